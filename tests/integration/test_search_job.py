"""A search or a scan as a job: killed in the middle, or with a damaged chunk, it comes to the same bytes."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from lhcq.workspace import Workspace
from tests.search_events import write_events
from tests.tiny_models import write_model

pytestmark = pytest.mark.torture

SMALL = ("--regions", "3300..3900..400", "--folds", "2", "--select", "0.1", "--shuffles", "1")
EXPERIMENTS = ("--pseudo-experiments", "300")
N_TRAINED, N_DRAWN = 2 * 2 + 2, 6
BY_TREES = ("--regions", "3300..3700..400", "--folds", "3", "--select", "0.1", "--shuffles", "0")
BY_MODEL = (*BY_TREES, "--max-steps", "12")
N_TUNED = 3


def test_a_search_that_is_killed_twice_goes_on_to_the_same_bytes(
    lhcq: Any, until: Any, kill_group: Any
) -> None:
    write_events(Workspace(lhcq.workspace).dataset("mixed"), 6000, 200)
    asked = ("search", "mixed", *SMALL, *EXPERIMENTS)
    _kill_twice(lhcq, until, kill_group, asked, "mixed", N_TRAINED, N_DRAWN)


def test_a_search_by_a_language_model_trains_on_workers_of_its_own_and_goes_on_after_kills(
    lhcq: Any, until: Any, kill_group: Any, tmp_path: Path
) -> None:
    write_events(Workspace(lhcq.workspace).dataset("mixed"), 6000, 200)
    model = write_model(tmp_path / "tiny")
    lhcq.run("search", "mixed", *BY_TREES, *EXPERIMENTS)
    asked = ("search", "mixed", *BY_MODEL, *EXPERIMENTS, "--model", str(model))
    answer = _kill_twice(lhcq, until, kill_group, asked, "mixed-tiny", N_TUNED, N_DRAWN)
    assert answer["beside"]["name"] == "mixed"
    logged = map(json.loads, lhcq.run("logs", "mixed-tiny", "--json").stdout.splitlines())
    steps = [line for line in logged if line["message"].startswith("step ")]
    assert any(line["message"].startswith("step 12 of 12, loss ") for line in steps)
    assert {line["unit"].rpartition(":")[0] for line in steps} == {"lhcq.search_train:mixed-tiny"}


def _kill_twice(
    lhcq: Any, until: Any, kill_group: Any, asked: tuple[str, ...], name: str, n_trained: int, n_drawn: int
) -> Any:
    """The answer of a search that is killed in either round, once it has the bytes of one that was not."""
    place = Workspace(lhcq.workspace)
    undisturbed = lhcq.ask(*asked, "--name", "calm")
    chunks = lhcq.workspace / f"jobs/search-{name}/parts"
    kept: dict[str, int] = {}
    # In the middle of the trainings, and among the pseudo-experiments that are published once all of them stand.
    for least in (n_trained // 3, n_trained + 1):
        process = lhcq.start(*asked)
        until(lambda least=least: len(list(chunks.rglob("[0-9]*.arrows"))) >= least, f"{least} chunks", 240)
        for worker in lhcq.workers():
            kill_group(worker, signal.SIGKILL)
        process.kill()
        lhcq.finish(process)
        standing = {path.name: path.stat().st_mtime_ns for path in chunks.rglob("[0-9]*.arrows")}
        assert least <= len(standing) < n_trained + n_drawn
        assert kept.items() <= standing.items()  # what was finished is not done again
        kept = standing
        units = [unit["unit"] for unit in lhcq.ask("why", name, "--kind", "search")["units"]]
        wanted = range(n_trained) if least < n_trained else range(n_trained, n_trained + n_drawn)
        assert {int(unit.rpartition(":")[2]) for unit in units} <= set(wanted)

    # A training that the pseudo-experiments read is damaged: it alone is made again, before them.
    trained = min(chunks.rglob("[0-9]*.arrows"))
    content = bytearray(trained.read_bytes())
    content[len(content) // 2] ^= 1
    trained.write_bytes(content)

    answer = lhcq.ask(*asked)
    assert not chunks.exists()
    for field in ("tests", "global", "spread", "excess", "truth"):
        assert answer[field] == undisturbed[field]
    calm, disturbed = place.search("calm"), place.search(name)
    for file in ("scores.parquet", "pseudo.parquet"):
        assert (disturbed / file).read_bytes() == (calm / file).read_bytes()
    return answer


def test_a_scan_whose_workers_are_killed_goes_on_to_the_same_bytes(
    lhcq: Any, until: Any, kill_group: Any
) -> None:
    place = Workspace(lhcq.workspace)
    write_events(place.dataset("mixed"), 6000, 400)
    asked = ("search", "mixed", "--scan", "0,100,200", "--regions", "3300..3700..400", "--folds", "3")
    asked += ("--select", "0.1", "--seeds", "2")
    n_chunks, chunks = 3 * 2 * 3, lhcq.workspace / "jobs/scan-mixed/parts"
    undisturbed = lhcq.ask(*asked, "--name", "calm")
    process = lhcq.start(*asked)
    until(lambda: len(list(chunks.rglob("[0-9]*.arrows"))) >= n_chunks // 3, "a third of the chunks", 240)
    for worker in lhcq.workers():
        kill_group(worker, signal.SIGKILL)
    process.kill()
    lhcq.finish(process)
    kept = {path.name: path.stat().st_mtime_ns for path in chunks.rglob("[0-9]*.arrows")}
    assert n_chunks // 3 <= len(kept) < n_chunks
    units = [unit["unit"] for unit in lhcq.ask("why", "mixed", "--kind", "scan")["units"]]
    assert {f"{int(unit.rpartition(':')[2]):06d}.arrows" for unit in units}.isdisjoint(kept)
    answer = lhcq.ask(*asked)
    assert not chunks.exists()
    calm, disturbed = (place.scan(name) / "scan.json" for name in ("calm", "mixed"))
    assert disturbed.read_text() == calm.read_text().replace('"name": "calm"', '"name": "mixed"')
    assert answer["points"] == undisturbed["points"]
    assert answer["report"] == str(place.scan("mixed") / "report.html")


def test_a_region_without_events_is_refused_before_there_is_a_job(lhcq: Any) -> None:
    write_events(Workspace(lhcq.workspace).dataset("few"), 900, 0)
    done = lhcq.run("search", "few", "--regions", "2900..5300..400", "--shuffles", "0", code=1)
    assert "events to learn from, and 50 are needed" in done.stderr
    assert lhcq.ask("status")["jobs"] == []
