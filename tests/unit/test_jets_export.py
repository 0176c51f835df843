import json

import pyarrow as pa
import pytest

from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.jets.export import export_jsonl
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import write_part
from lhcq.records.events import SCHEMA
from tests.made_chunks import told_apart


def make_jet(px: float) -> dict[str, float]:
    return {
        "pt": abs(px),
        "eta": 0.0,
        "phi": 0.0,
        "m": 1.0,
        "px": px,
        "py": 0.1,
        "pz": -2.5,
        "e": 1200.7276854490954,
        "n_constituents": 3,
        "pt_lead": 1.0,
    }


def make_dataset(directory, labels):
    records = [
        {
            "row": row,
            "label": label,
            "n_particles": 100 + row,
            "n_jets": row,
            "jets": [make_jet(10.0 * rank) for rank in range(row)],
            "mjj": None,
            "delta_r": None,
        }
        for row, label in enumerate(labels)
    ]
    write_part(directory / "part.arrows", [told_apart(pa.Table.from_pylist(records, schema=SCHEMA))], {})
    merge_parts([directory / "part.arrows"], directory / "mini", n_events=len(labels), manifest_fields={})
    return directory / "mini"


def test_events_are_written_by_class_in_order_of_row_as_the_study_reads_them(tmp_path):
    paths = export_jsonl(make_dataset(tmp_path, [0, 1, 1, 0]), tmp_path / "out")
    assert [path.name for path in paths] == ["signal.jsonl", "background.jsonl"]
    signal, background = (path.read_text().splitlines() for path in paths)
    momentum = '{"px": 0.0, "py": 0.1, "pz": -2.5, "E": 1200.7276854490954}'
    assert signal[0] == f'{{"type": "signal", "jets": [{momentum}], "num_particles": 101}}'
    assert background[0] == '{"type": "background", "jets": [], "num_particles": 100}'
    assert [json.loads(line)["num_particles"] for line in signal + background] == [101, 102, 100, 103]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["background.jsonl", "signal.jsonl"]


def test_an_existing_file_is_never_overwritten(tmp_path):
    dataset = make_dataset(tmp_path, [0, 1])
    (tmp_path / "background.jsonl").write_text("mine")
    with pytest.raises(NameTaken, match=r"background\.jsonl: exists already"):
        export_jsonl(dataset, tmp_path)
    assert (tmp_path / "background.jsonl").read_text() == "mine"
    assert not (tmp_path / "signal.jsonl").exists()


def test_a_dataset_without_labels_is_refused(tmp_path):
    dataset = make_dataset(tmp_path, [0, None, None])
    with pytest.raises(BadInput, match="mini: 2 of 3 events have no label"):
        export_jsonl(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_does_not_exist_says_how_to_make_it(tmp_path):
    with pytest.raises(NotThere, match=r"dataset 'gone' does not exist .*`lhcq cluster`"):
        export_jsonl(tmp_path / "gone", tmp_path / "out")
