"""A search as a job: killed in the middle of either round, or with a damaged chunk, it comes to the same bytes."""

import signal
from typing import Any

import pytest

from lhcq.workspace import Workspace
from tests.search_events import write_events

pytestmark = pytest.mark.torture

SMALL = ("--regions", "3300..3900..400", "--folds", "2", "--select", "0.1", "--shuffles", "1")
EXPERIMENTS = ("--pseudo-experiments", "300")
N_TRAINED, N_DRAWN = 2 * 2 + 2, 6


def test_a_search_that_is_killed_twice_goes_on_to_the_same_bytes(
    lhcq: Any, until: Any, kill_group: Any
) -> None:
    place = Workspace(lhcq.workspace)
    write_events(place.dataset("mixed"), 6000, 200)
    asked = ("search", "mixed", *SMALL, *EXPERIMENTS)
    undisturbed = lhcq.ask(*asked, "--name", "calm")
    chunks = lhcq.workspace / "jobs/search-mixed/parts"
    kept: dict[str, int] = {}
    # In the middle of the trainings, and among the pseudo-experiments that are published once all of them stand.
    for least in (2, N_TRAINED + 1):
        process = lhcq.start(*asked)
        until(lambda least=least: len(list(chunks.rglob("[0-9]*.parquet"))) >= least, f"{least} chunks", 240)
        for worker in lhcq.workers():
            kill_group(worker, signal.SIGKILL)
        process.kill()
        lhcq.finish(process)
        standing = {path.name: path.stat().st_mtime_ns for path in chunks.rglob("[0-9]*.parquet")}
        assert least <= len(standing) < N_TRAINED + N_DRAWN
        assert kept.items() <= standing.items()  # what was finished is not done again
        kept = standing
        units = [unit["unit"] for unit in lhcq.ask("why", "mixed", "--kind", "search")["units"]]
        wanted = range(N_TRAINED) if least < N_TRAINED else range(N_TRAINED, N_TRAINED + N_DRAWN)
        assert {int(unit.rpartition(":")[2]) for unit in units} <= set(wanted)

    # A training that the pseudo-experiments read is damaged: it alone is made again, before them.
    trained = min(chunks.rglob("[0-9]*.parquet"))
    content = bytearray(trained.read_bytes())
    content[len(content) // 2] ^= 1
    trained.write_bytes(content)

    answer = lhcq.ask(*asked)
    assert not chunks.exists()
    for field in ("tests", "global", "spread", "excess", "truth"):
        assert answer[field] == undisturbed[field]
    calm, disturbed = place.search("calm"), place.search("mixed")
    for name in ("scores.parquet", "pseudo.parquet"):
        assert (disturbed / name).read_bytes() == (calm / name).read_bytes()


def test_a_region_without_events_fails_the_search_before_anything_is_drawn(lhcq: Any) -> None:
    write_events(Workspace(lhcq.workspace).dataset("few"), 900, 0)
    done = lhcq.run("search", "few", "--regions", "2900..5300..400", "--shuffles", "0", code=1)
    assert "events to learn from, and 50 are needed" in done.stderr
    (job,) = lhcq.ask("status")["jobs"]
    assert job["state"] == "failed"
