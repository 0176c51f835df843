"""What the fuzzing found, once each."""

from pathlib import Path

import pytest

from lhcq.errors import BadInput
from lhcq.storage import read_json
from lhcq.workspace import Workspace


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
    from lhcq.records.journal import newest_step

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
        found = newest_step(place.run("first"))
        assert found is not None
        assert found.step == 7


def test_a_state_without_a_pass_says_nothing_of_its_size(tmp_path: Path) -> None:
    from lhcq.model.checkpoint import recorded_rows

    for state in ("{}", '{"pass": "8"}', '{"pass": {"rows": "8"}}', '{"pass": []}'):
        (tmp_path / "state.json").write_text(state)
        assert recorded_rows(tmp_path) is None


@pytest.mark.parametrize("unit", ["", "made", "a:b:c:d", "lhcq.cluster_part:made:x"])
def test_a_failure_of_no_unit_is_told_as_wrong_input(unit: str) -> None:
    from tasks.jobs.units import unit_of_key

    with pytest.raises(BadInput, match="key of no unit"):
        unit_of_key(unit)


@pytest.mark.parametrize(
    ("fields", "spec"),
    [
        ({"parts": 2**63}, {}),
        ({"parts": -1}, {}),
        ({}, {"config": [1]}),
        ({}, {"checkpoint_steps": 5}),
        ({}, {"checkpoint_steps": []}),
        ({}, {"checkpoint_steps": ["a"]}),
        ({}, {"total_steps": None}),
        ({}, {"total_steps": 2**63}),
    ],
    ids=str,
)
def test_a_job_whose_record_would_fill_the_memory_or_make_no_sense_is_refused(
    fields: dict[str, object], spec: dict[str, object]
) -> None:
    from lhcq.records.jobs import Job
    from tests.specs import job_of

    record = job_of("train", parts=0).model_dump()
    (fault,) = [*fields, *spec]
    with pytest.raises(BadInput, match=rf"^Job: {fault}[.\d]*:? ") as caught:
        Job.checked(**{**record, **fields, "spec": {**record["spec"], **spec}})
    assert len(str(caught.value)) < 300


def test_a_part_with_damaged_columns_is_refused_when_it_is_merged(tmp_path: Path) -> None:
    import pyarrow as pa

    from lhcq.jets.merge import merge_parts
    from lhcq.jets.parts import write_part
    from lhcq.records.events import SCHEMA
    from tests.fuzz.spoilt import seal_again
    from tests.made_chunks import told_apart

    event = {"row": 0, "label": 1, "n_particles": 7, "n_jets": 0, "jets": [], "mjj": 1.25, "delta_r": 2.5}
    part = tmp_path / "part.arrows"
    write_part(part, [told_apart(pa.Table.from_pylist([event], schema=SCHEMA))], {"cpu": "any"})
    whole = part.read_bytes()
    said = set()
    for at in range(4, len(whole) // 2):
        part.write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])
        seal_again(part)  # as who can write it can
        try:
            merge_parts([part], tmp_path / f"merged-{at}", n_events=1, manifest_fields={})
        except BadInput as error:
            said.add("not a readable chunk" in str(error))
    assert True in said


def test_a_dataset_whose_manifest_holds_half_a_character_is_split_like_any_other() -> None:
    import numpy as np

    from lhcq.prompts.split import assign_subsets

    rows = np.arange(2_000)
    parts = assign_subsets(rows, (rows % 2).astype(np.int8), dataset_key="\ud800")
    assert set(parts.tolist()) == {0, 1, 2, 3}


def test_numbers_beyond_all_events_are_written_without_a_warning() -> None:
    import numpy as np

    from lhcq.prompts.templates import count_units

    values = np.array([np.inf, -np.inf, np.nan, 1e308, 2.6])
    assert count_units(values).tolist() == [10**18, -(10**18), 0, 10**18, 3]
