"""Whoever may read a workspace and not write to it may look: status, why, logs, ls, doctor, plots elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lhcq.config import ClusterConfig
from lhcq.events.layout import write_event_file
from lhcq.records.jobs import Job
from lhcq.requests.cluster import cluster_request, find_events
from lhcq.workspace import Workspace
from tasks.client import do_here
from tasks.jobs.store import create_job

OWNER = 12345
# Root without these is bound by the modes of files as everybody is.
BOUND = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner")
LOOK = """
import json, sys
from click.testing import CliRunner
from lhcq.cli.main import cli

told = []
for words in json.loads(sys.argv[1]):
    result = CliRunner().invoke(cli, words)
    told.append([result.exit_code, result.output + str(result.exception or "")])
print(json.dumps(told))
"""


@pytest.fixture
def foreign(place: Workspace, tmp_path: Path) -> Workspace:
    """A workspace of another user's: a dataset, a job that nobody works for, a log, and a broker's directory."""
    if os.geteuid() != 0 or subprocess.call([*BOUND, "true"]):
        pytest.skip("only root can act as another user")
    place.create()
    source = tmp_path / "events.h5"
    particles = np.random.default_rng(1).uniform(0.5, 1.0, (30, 700, 3))
    write_event_file(source, [(particles, np.arange(30) % 2)], 30, storage_rows=1)

    def request(name: str) -> Job:
        config = ClusterConfig(features="full")
        return cluster_request(place, find_events(place, source, config), name, config, chunk=10)

    do_here(place, request("whole"))
    create_job(place, request("cut"))
    place.logs.mkdir()
    line = "[2026-01-01T00:00:00.000Z INFO a/P-1 lhcq.cluster_part:whole:0 attempt 1] begun\n"
    (place.logs / "cpu.log").write_text(line)
    place.broker.mkdir(mode=0o700)
    (place.broker / "server.lock").touch()
    for path in (place.root, *place.root.rglob("*")):
        os.chown(path, OWNER, OWNER, follow_symlinks=False)
    return place


def standing(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in (root, *root.rglob("*"))}


def test_a_reader_looks_and_leaves_no_trace(foreign: Workspace, tmp_path: Path) -> None:
    before = standing(foreign.root)
    looks = {
        ("status",): "cluster cut",
        ("why", "cut"): "the owner of its broker can tell alone",
        ("logs", "whole"): "begun",
        ("ls",): str(OWNER),
        ("prune", "--dry-run"): "nothing to remove",
        ("metrics", "--once"): 'lhcq_jobs{kind="cluster",state="open"} 1.0',
        ("plot", "whole", "--out", str(tmp_path / "plots")): "whole.png",
        ("export", "whole", "--out", str(tmp_path / "exports")): "signal.jsonl",
        ("doctor",): "2 jobs and 2 results can be read",
    }
    # What would write says so in one line.
    refusals = dict.fromkeys((("cancel", "cut"), ("rm", "whole"), ("prune",)), "cannot be written")
    done = subprocess.run(
        [*BOUND, sys.executable, "-c", LOOK, json.dumps([*looks, *refusals])],
        env={**os.environ, "LHCQ_WORKSPACE": str(foreign.root)},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    for (code, text), (words, said) in zip(told, (looks | refusals).items(), strict=True):
        assert said in text, f"{words}\n{text}"
        assert code == (words in refusals), f"{words}\n{text}"
    assert standing(foreign.root) == before
