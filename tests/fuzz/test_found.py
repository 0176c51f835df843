"""What the fuzzing found, once each."""

from pathlib import Path

import pytest

from lhcq.errors import BadInput
from lhcq.workspace import Workspace, read_json


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a": ' + b"1" * 5_000 + b"}", b"\xff", b"[]", b"5", b"null", b'"a"'],
    ids=["nested", "digits", "bytes", "list", "number", "null", "text"],
)
def test_a_record_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(BadInput, match="not readable as JSON"):
        read_json(tmp_path / "record.json")


def test_a_field_that_a_record_lacks_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"outer": {}}')
    record = read_json(tmp_path / "record.json")
    with pytest.raises(BadInput, match=r"record\.json: has no field 'inner'"):
        record["outer"]["inner"]
    assert record.get("inner") is None
    assert "inner" not in record


def test_a_log_of_steps_with_nonsense_at_its_end_tells_the_last_step_before(place: Workspace) -> None:
    from lhcq.cli.runs import last_step

    place.run("first").mkdir(parents=True)
    good = '{"event": "step", "step": 7, "loss": 0.5, "samples_per_second": 3.0}'
    for bad in (
        "[" * 10_000,
        "5",
        "[]",
        '{"event": "step"}',
        '{"event": "step", "step": 8, "loss": "low"}',
        '{"ev',
    ):
        (place.run("first") / "events.jsonl").write_text(f"{good}\n{bad}\n")
        assert last_step(place, "first")[0] == 7


def test_a_state_without_a_pass_says_nothing_of_its_size(tmp_path: Path) -> None:
    from lhcq.model.checkpoint import recorded_rows

    for state in ("{}", '{"pass": "8"}', '{"pass": {"rows": "8"}}', '{"pass": []}'):
        (tmp_path / "state.json").write_text(state)
        assert recorded_rows(tmp_path) is None
