"""A run's journal: what is written comes back, and what another lhcq wrote does not stop the reading."""

import json
from pathlib import Path

import pytest

from lhcq.errors import BadInput
from lhcq.evaluate.metrics import metrics_of
from lhcq.records.journal import (
    AlarmLine,
    CheckpointLine,
    Journal,
    RemovedLine,
    RollbackLine,
    StepLine,
    ValidationLine,
    newest_step,
    read_journal,
    write_line,
)

METRICS = metrics_of([0, 1], [0.2, 0.7]).model_dump()
LINES = (
    StepLine(step=3, loss=0.5, learning_rate=1e-3, grad_norm=1.0, samples_per_second=4.0, tokens=80),
    CheckpointLine(step=3),
    ValidationLine(step=3, seconds=2.0, **METRICS),
    AlarmLine(kind="collapse", step=3, message="all are signal", act="rollback"),
    RollbackLine(step=3, origin=1, rate_factor=0.3),
    RemovedLine(step=2),
)


def test_each_kind_of_line_comes_back_with_all_that_it_was_given(tmp_path: Path) -> None:
    for line in LINES:
        write_line(tmp_path, line)
    read = read_journal(tmp_path)
    assert [line.model_copy(update={"time": None}) for line in read] == list(LINES)
    assert all(line.time for line in read)
    validation = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[2])
    assert validation == {"event": "validation", "time": read[2].time, "step": 3, "seconds": 2.0, **METRICS}


def test_the_newest_step_is_read_from_the_end(tmp_path: Path) -> None:
    assert newest_step(tmp_path) is None
    for step in range(1, 400):
        write_line(tmp_path, StepLine(step=step, loss=1.0))
    write_line(tmp_path, CheckpointLine(step=399))
    found = newest_step(tmp_path)
    assert found is not None
    assert found.step == 399


def test_lines_of_a_kind_that_is_not_known_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"event": "eclipse", "step": 1}\n{"event": "step", "step": 2}\n')
    assert [line.event for line in read_journal(tmp_path)] == ["step"]
    journal = Journal(tmp_path)
    journal.read()
    assert dict(journal.counts) == {"step": 1}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("half of", "Invalid JSON"),
        ('{"event": "step"}', "step is missing"),
        ('{"event": "step", "step": "x"}', "step should be a valid integer"),
        ('{"event": "step", "step": 1e30}', "step: "),
        ("[]", "Input should be"),
    ],
)
def test_a_line_that_is_none_is_named_unless_it_is_the_last(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f'{{"event": "step", "step": 1}}\n{line}\n')
    assert len(read_journal(tmp_path)) == 1
    path.write_text(f'{line}\n{{"event": "step", "step": 1}}\n')
    with pytest.raises(BadInput, match=f"line 1 cannot be read .*{reason}.*Remove that line"):
        read_journal(tmp_path)
