"""Pause, resume, cancel and rm of a real clustering; Ctrl-C whenever it comes says what was left."""

import signal
from pathlib import Path
from typing import Any

import pytest

OPTIONS = (
    "--features",
    "jets",
    "--workers",
    "1",
    "--events-per-chunk",
    "21",
)  # 100 chunks of the made-up file


def parts_of(lhcq: Any, name: str) -> list[Path]:
    return list((lhcq.workspace / f"jobs/cluster-{name}/parts").rglob("[!.]*.arrows"))


def test_a_clustering_is_paused_resumed_without_its_command_and_removed(
    lhcq, inside, event_file: Path, until
) -> None:
    process = lhcq.start("cluster", event_file, "--name", "made", *OPTIONS)
    until(lambda: len(parts_of(lhcq, "made")) >= 3, "the first chunks")
    assert lhcq.inside("pause", "made").returncode == 0
    done = lhcq.finish(process)
    assert done.returncode == 3
    assert "cluster made is paused. `lhcq resume made` goes on." in done.stderr
    assert not lhcq.processes()
    kept = {path.name: path.stat().st_mtime_ns for path in parts_of(lhcq, "made")}
    assert 3 <= len(kept) < 100
    (row,) = lhcq.ask("status")["jobs"]
    assert (row["state"], row["done"]) == ("paused", len(kept))
    assert "cluster made: paused. `lhcq resume made` goes on." in lhcq.run("why", "made").stdout

    process = lhcq.start("resume", "made", "--json")
    until(lambda: len(parts_of(lhcq, "made")) > len(kept), "more chunks")
    again = {path.name: path.stat().st_mtime_ns for path in parts_of(lhcq, "made")}
    assert again.items() >= kept.items()  # nothing is done again
    done = lhcq.finish(process)
    assert done.returncode == 0, done.stderr
    assert inside.ask("cluster", event_file, "--name", "made", *OPTIONS)["seconds"] is None  # done already
    assert lhcq.inside("rm", "made").returncode == 0
    assert lhcq.ask("ls")["holdings"] == []


def test_a_clustering_that_is_cancelled_ends_and_leaves_its_name_free(
    lhcq, inside, event_file: Path, until
) -> None:
    process = lhcq.start("cluster", event_file, "--name", "made", *OPTIONS)
    until(lambda: parts_of(lhcq, "made"), "the first chunk")
    assert lhcq.inside("cancel", "made").returncode == 0
    done = lhcq.finish(process)
    assert done.returncode == 3
    assert "cluster made was cancelled." in done.stderr
    assert not (lhcq.workspace / "datasets/made").exists()
    assert inside.ask("prune")["leftovers"]
    assert parts_of(lhcq, "made") == []
    lhcq.cluster_here(event_file, "made", radius=0.4)
    other = ("cluster", event_file, "--name", "made", "--radius", "0.6")
    assert "`lhcq rm made --kind dataset`" in inside.refused(*other)
    made = lhcq.ask(*other, "--force")
    assert (made["rows"], made["config"]["radius"]) == (2100, 0.6)


@pytest.mark.parametrize("when", ["a process", "a worker", "its record"])
def test_ctrl_c_says_what_was_left_whenever_it_comes(lhcq, event_file: Path, until, when: str) -> None:
    process = lhcq.start("cluster", event_file, "--name", "made", *OPTIONS)
    moments = {
        "a process": lambda: len(lhcq.processes()) >= 2,
        "a worker": lambda: len(lhcq.processes()) >= 3,
        "its record": (lhcq.workspace / "jobs/cluster-made/job.json").exists,
    }
    until(moments[when], when)
    process.send_signal(signal.SIGINT)
    done = lhcq.finish(process)
    assert done.returncode == 130
    looked_at_the_file = (
        "lhcq: interrupted. Nothing is half-written, and the same command goes on." in done.stderr
    )
    if when != "a process" or not looked_at_the_file:  # which ends within a moment of that
        assert "Run the same command again to go on." in done.stderr
        assert any(f"cluster made {how}" in done.stderr for how in ("stopped", "was not begun"))
    assert not lhcq.processes()
