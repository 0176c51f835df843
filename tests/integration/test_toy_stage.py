"""A new stage is one spec, one module of tasks and one line in KINDS: the engine and every command know the rest."""

import ast
import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import redis

from lhcq.workspace import Workspace
from tasks.broker.embedded import running_broker

N_CHUNKS = 4

# What somebody would add to lhcq: the spec to `lhcq.records.specs`, the tasks to `tasks.stages`, the line to KINDS.
STAGE = '''
"""Squares: one task a chunk of two numbers, merged into one file."""

import os
import time
from pathlib import Path
from typing import Literal

from lhcq.errors import RowsMissing
from lhcq.manifests import write_manifest
from lhcq.records.specs import SPECS, Spec
from lhcq.storage import staged_directory, staged_file
from tasks.app import app
from tasks.jobs.kinds import KINDS, fan_out
from tasks.stages.fanout import chunk_work, merge_work, perform_chunk, perform_merge


class SquareSpec(Spec):
    """The squares of the first numbers."""

    kind: Literal["square"] = "square"
    n_numbers: int


def _make(workspace, job, index, path, held):
    (workspace.root / f"began-{index}").touch()
    while index == 1 and not (workspace.root / "go").exists():
        held.check()
        time.sleep(0.05)
    with staged_file(path) as temporary:
        temporary.write_text("".join(f"{number * number}\\n" for number in (2 * index, 2 * index + 1)))


def _merge(workspace, job, chunks, lost):
    if lost:
        raise RowsMissing(f"{len(lost)} chunks are missing")
    final = workspace.root / "squares" / job.name
    if not final.exists():
        with staged_directory(final) as directory:
            (directory / "squares").write_text("".join(chunks[at].read_text() for at in sorted(chunks)))
            write_manifest(directory, rows=job.spec_of(SquareSpec).n_numbers)
    return f"{job.spec_of(SquareSpec).n_numbers} squares"


@app.task(name="lhcq.square_part", work=staticmethod(chunk_work(_make)))
def square_part(name: str, index: int) -> str:
    return perform_chunk("square", name, index, _make)


@app.task(name="lhcq.square_merge", work=staticmethod(merge_work(_merge)))
def square_merge(name: str) -> str:
    return perform_merge("square", name, _merge)


SPECS["square"] = SquareSpec
KINDS["square"] = fan_out(
    SquareSpec,
    queue="cpu",
    suffix=".txt",
    result=lambda workspace, job: workspace.root / "squares" / job.name,
    stretch=lambda job, index: ("numbers", 2 * index, 2 * index + 2),
)
'''

# What a verb of it would do, and what any program does.
ASK = f"""
import sys
from square_stage import SquareSpec
from lhcq.environment import Settings
from lhcq.records.jobs import Job
from lhcq.workspace import Workspace
from tasks.client import session, submit, workers_for

workspace = Workspace(Settings.from_environment().workspace)
workspace.create()
spec = SquareSpec.resolved(n_numbers={2 * N_CHUNKS})
request = Job(kind=spec.kind, name="first", spec=spec, parts={N_CHUNKS})
with session(workspace, workers_for(request, 1)) as current:
    following = submit(current, request)
    outcome = following.wait()
    following.tidy_up()
print(outcome.state, outcome.message)
"""


def waiting(place: Workspace) -> list[dict[str, Any]]:
    """The messages of the embedded broker's queue, oldest first."""
    url = running_broker(place)
    assert url is not None
    with redis.Redis(unix_socket_path=url.removeprefix("redis+socket://")) as client:
        return [json.loads(message) for message in reversed(client.lrange("cpu", 0, -1))]


def test_a_stage_of_ones_own_fans_out_survives_a_kill_is_merged_and_is_told_of(
    lhcq: Any, tmp_path: Path, until: Any, kill_group: Any
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "square_stage.py").write_text(STAGE)
    (modules / "sitecustomize.py").write_text("import square_stage\n")
    own = {"PYTHONPATH": str(modules), "LHCQ_WORKSPACE": str(lhcq.workspace)}
    inherited = {name: value for name, value in os.environ.items() if name != "LHCQ_BROKER_URL"}
    program = subprocess.Popen(
        [sys.executable, "-c", ASK],
        env={**inherited, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lhcq.started.append(program)
    place = Workspace(lhcq.workspace)
    until(lambda: (place.root / "began-1").exists() or program.poll() is not None, "the second chunk", 200)
    assert program.poll() is None, program.communicate()

    # In the middle: one chunk stands, one is at work, two wait.
    messages = waiting(place)
    told = [ast.literal_eval(message["headers"]["kwargsrepr"]) for message in messages]
    assert told == [{"dataset": "numbers", "rows": "4-5"}, {"dataset": "numbers", "rows": "6-7"}]
    _, _, embedded = json.loads(base64.b64decode(messages[0]["body"]))
    assert embedded["chord"]["task"] == "lhcq.square_merge"
    assert embedded["chord"]["options"]["kwargsrepr"] == "{'square': 'first', 'parts': '4'}"
    (row,) = lhcq.ask("status", **own)["jobs"]
    assert {row[field] for field in ("kind", "name", "state", "unit")} == {"square", "first", "open", "parts"}
    assert (row["done"], row["total"]) == (1, N_CHUNKS)
    units = {unit["unit"]: unit for unit in lhcq.ask("why", "first", **own)["units"]}
    assert {key: unit["state"] for key, unit in units.items()} == {
        "lhcq.square_part:first:1": "at work",
        "lhcq.square_part:first:2": "queued",
        "lhcq.square_part:first:3": "queued",
    }
    scrape = lhcq.run("metrics", "--once", **own).stdout
    assert 'lhcq_job_parts{job="first",kind="square",state="at_work"} 1.0' in scrape

    (worker,) = lhcq.workers()
    kill_group(worker, signal.SIGKILL)
    (place.root / "go").touch()
    out, err = program.communicate(timeout=240)
    assert (program.returncode, out) == (0, f"done {2 * N_CHUNKS} squares\n"), err

    squares = (place.root / "squares" / "first" / "squares").read_text()
    assert squares == "".join(f"{number * number}\n" for number in range(2 * N_CHUNKS))
    (row,) = lhcq.ask("status", **own)["jobs"]
    assert (row["state"], row["done"], row["message"]) == ("done", N_CHUNKS, f"{2 * N_CHUNKS} squares")
    why = lhcq.ask("why", "first", **own)
    assert (why["state"], why["units"]) == ("done", [])
    (unit,) = lhcq.ask("why", "first", "1", **own)["units"]
    assert unit["state"] == "finished"
    begun = [line for line in lhcq.run("logs", "first", "1", **own).stdout.splitlines() if "begun" in line]
    assert len(begun) == 2  # before the kill, and after it
    assert all("lhcq.square_part:first:1" in line for line in begun)
    assert "lhcq.square_merge:first" in lhcq.run("logs", "first", **own).stdout
    assert not lhcq.processes()


def test_without_the_stage_its_job_is_left_alone_and_said_to_be_unknown(lhcq: Any) -> None:
    """As an lhcq that does not have it yet meets it in a shared workspace."""
    record = {"kind": "square", "name": "first", "created": 1.0, "spec": {"n_numbers": 8}, "parts": 4}
    path = lhcq.workspace / "jobs" / "square-first" / "job.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record))
    done = lhcq.run("status", "--json")
    assert done.stderr == ""
    (row,) = json.loads(done.stdout)["jobs"]
    assert (row["kind"], row["name"], row["state"]) == ("square", "first", "damaged")
    assert "kind: 'square' is none of generate, cluster, prepare, train, predict, search" in row["message"]
    lhcq.run("rm", "first")
    assert not path.parent.exists()
