"""A dataset in formats that other programs read: csv, parquet, and the columns of the released features files."""

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the Blosc filter with HDF5)
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.config import ClusterConfig
from lhcq.errors import BadInput, DiskFull, NameTaken
from lhcq.events.featurefile import open_feature_file, read_features
from lhcq.events.layout import open_event_file, read_rows
from lhcq.events.pytables import write_frame
from lhcq.jets.clustering import cluster_events
from lhcq.jets.export import export_jsonl
from lhcq.jets.export_table import export_csv, export_parquet, flatten_dataset
from lhcq.jets.import_features import imported_schema, write_imported
from lhcq.jets.lhco_features import OF_JET, read_lhco_features
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import write_part
from lhcq.records.events import schema_of
from lhcq.workspace import Workspace
from tests.made_chunks import told_apart

COLUMNS = [f"{column}j{rank}" for rank in (1, 2) for column in OF_JET]


def make_jet(schema: pa.Schema, seed: float) -> dict[str, float]:
    """Every column another number, none of which is a short decimal."""
    jet = schema.field("jets").type.value_type
    made = {jet.field(index).name: seed * (index + 1) / 7 for index in range(jet.num_fields)}
    return {name: int(value) if name == "n_constituents" else value for name, value in made.items()}


def make_events(labels: list[int | None], features: Any = "full") -> pa.Table:
    """An event a label; event k has k modulo 4 jets."""
    schema = schema_of(features)
    events = [
        {
            "row": row,
            "label": label,
            "n_particles": 100 + row,
            "n_jets": row % 4,
            "jets": [make_jet(schema, 1000.0 * (row + 1) / (rank + 1)) for rank in range(row % 4)],
            "mjj": 3000 / 7 if row % 4 > 1 else None,
            "delta_r": 22 / 7 if row % 4 > 1 else None,
            "delta_eta": 1 / 3 if row % 4 > 1 else None,
            "h_t": 0.1 + 0.2,
        }
        for row, label in enumerate(labels)
    ]
    return pa.Table.from_pylist(events, schema=schema)


def make_dataset(place: Workspace, table: pa.Table, config: ClusterConfig, name: str = "mini") -> Path:
    part = place.root / f"{name}.part"
    write_part(part, [told_apart(table)], {})
    fields = {"source": "events.h5", "source_sha256": "ab" * 32, "config": config.model_dump()}
    final = place.dataset(name)
    merge_parts([part], final, n_events=len(table), manifest_fields=fields, features=config.features)
    return final


@pytest.fixture
def mini(place: Workspace) -> Path:
    """Eight events with zero to three jets, background and signal in turn."""
    return make_dataset(
        place, make_events([0, 1] * 4), ClusterConfig(features="full", max_jets=None, pt_min=0)
    )


@pytest.fixture
def real(place: Workspace, test_data: Path) -> Path:
    """The 1,000 real events with all features."""
    config = ClusterConfig(features="full")
    file = open_event_file(test_data / "events_anomalydetection_tiny.h5")
    block = read_rows(file, 0, file.n_events)
    table = cluster_events(block.particles, config, rows=block.rows, labels=block.labels)
    return make_dataset(place, table, config, "real")


def run(place: Workspace, *arguments: str | Path) -> Any:
    return CliRunner().invoke(
        cli,
        [str(argument) for argument in arguments],
        env={"LHCQ_WORKSPACE": str(place.root)},
        standalone_mode=False,
    )


def write_features(dataset: Path, path: Path) -> Path:
    features = read_lhco_features(dataset)
    write_frame(path, features.blocks, rows=features.n_events, columns=features.columns)
    return path


def values_of(path: Path) -> np.ndarray:
    with h5py.File(path) as file:
        return file["df/block0_values"][:]


def expected_features(events: list[dict[str, Any]]) -> np.ndarray:
    """Event by event, as the columns are defined."""
    rows = []
    for event in events:
        jets = [*event["jets"], {}, {}][:2]
        rows.append([jet.get(name, 0.0) for jet in jets for name in OF_JET] + [event["label"]])
    return np.array(rows, dtype=np.float64)


@pytest.mark.parametrize(
    ("form", "name", "meant"),
    [("jsonl", "a.csv", "csv"), ("csv", "a.parquet", "parquet"), ("parquet", "a.h5", "lhco-features")],
)
def test_a_name_of_another_format_is_refused_and_no_directory_made_of_it(
    place: Workspace, mini: Path, tmp_path: Path, form: str, name: str, meant: str
) -> None:
    out = tmp_path / name
    refused = run(place, "export", "mini", "--format", form, "--out", out)
    assert isinstance(refused.exception, BadInput)
    assert f"is named like a file of --format {meant}, and this writes {form}" in str(refused.exception)
    assert not out.exists()
    out.mkdir()
    assert run(place, "export", "mini", "--format", form, "--out", out).exit_code == 0
    assert list(out.iterdir())


def test_csv_holds_every_number_exactly_and_nothing_where_there_is_none(mini: Path, tmp_path: Path):
    path, _ = export_csv(mini, tmp_path / "out" / "mini.csv")
    events = pq.read_table(mini / "events.parquet").to_pylist()
    with path.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == len(events)
    for line, event in zip(lines, events, strict=True):
        for name in ("row", "label", "n_particles", "n_jets", "mjj", "delta_r", "delta_eta", "h_t"):
            assert (float(line[name]) if line[name] else None) == event[name], name
        for rank in range(3):
            jet = event["jets"][rank] if rank < len(event["jets"]) else {}
            for name in schema_of("full").field("jets").type.value_type:
                text = line[f"j{rank + 1}_{name.name}"]
                assert (float(text) if text else None) == jet.get(name.name), name.name


def test_the_columns_of_csv_are_those_of_the_event_then_those_of_each_jet(mini: Path, tmp_path: Path):
    header = export_csv(mini, tmp_path / "mini.csv")[0].read_text().splitlines()[0].split(",")
    assert header[:10] == [*schema_of("full").names[:4], *schema_of("full").names[5:], "j1_pt", "j1_eta"]
    assert header[-1] == "j3_d2"
    assert len(header) == 8 + 3 * 21


def test_parquet_holds_the_same_flat_table(mini: Path, tmp_path: Path):
    table = pq.read_table(export_parquet(mini, tmp_path / "mini.parquet"))
    events = pq.read_table(mini / "events.parquet").to_pylist()
    assert table["j1_pt"].to_pylist() == [
        event["jets"][0]["pt"] if event["jets"] else None for event in events
    ]
    assert table["j3_d2"].to_pylist() == [
        event["jets"][2]["d2"] if len(event["jets"]) > 2 else None for event in events
    ]
    assert table["label"].type == pa.int8()
    assert not any(pa.types.is_nested(field.type) for field in table.schema)


def test_an_export_does_not_depend_on_how_it_is_cut_into_batches(mini: Path):
    whole, cut = (pa.Table.from_batches(flatten_dataset(mini, size=size)[1]) for size in (8, 3))
    assert cut.equals(whole)
    whole, cut = (np.concatenate(list(read_lhco_features(mini, size=size).blocks)) for size in (8, 3))
    assert np.array_equal(cut, whole)


def test_a_dataset_without_a_single_jet_has_the_columns_of_the_event(place: Workspace, tmp_path: Path):
    dataset = make_dataset(place, make_events([0]), ClusterConfig(features="full"))
    header, line = export_csv(dataset, tmp_path / "none.csv")[0].read_text().splitlines()
    assert header == "row,label,n_particles,n_jets,mjj,delta_r,delta_eta,h_t"
    assert line == "0,0,100,0,,,,0.30000000000000004"


def test_features_are_the_two_leading_jets_and_zeros_where_there_are_fewer(mini: Path, tmp_path: Path):
    values = values_of(write_features(mini, tmp_path / "mini.h5"))
    assert np.array_equal(values, expected_features(pq.read_table(mini / "events.parquet").to_pylist()))
    assert not values[0, :14].any()


def test_features_of_real_events_are_what_an_event_by_event_loop_finds(real: Path, tmp_path: Path):
    values = values_of(write_features(real, tmp_path / "real.h5"))
    assert np.array_equal(values, expected_features(pq.read_table(real / "events.parquet").to_pylist()))
    assert (np.hypot(values[:, 0], values[:, 1]) >= np.hypot(values[:, 7], values[:, 8])).all()
    assert values[:, 14].sum() == 93


def test_a_features_file_has_the_layout_that_pandas_gives_a_frame(mini: Path, tmp_path: Path):
    """The attributes are those found in a file of pandas 3.1.1, whose `read_hdf` gives our file as the same frame."""
    with h5py.File(write_features(mini, tmp_path / "mini.h5")) as file:
        frame = file["df"]
        assert {name: frame.attrs[name] for name in ("pandas_type", "ndim", "nblocks", "encoding")} == {
            "pandas_type": b"frame", "ndim": 2, "nblocks": 1, "encoding": b"UTF-8",
        }  # fmt: skip
        for name in ("axis0", "block0_items"):
            assert frame.attrs[f"{name}_variety"] == b"regular"
            assert frame[name].attrs["kind"] == b"string"
            assert frame[name].dtype == "S6"
            assert [item.decode() for item in frame[name]] == [*COLUMNS, "label"]
        assert frame["axis1"].attrs["kind"] == b"integer"
        assert frame["axis1"][:].tolist() == list(range(8))
        assert frame["block0_values"].dtype == np.float64


def test_without_labels_the_features_have_no_column_of_them(place: Workspace, tmp_path: Path):
    dataset = make_dataset(place, make_events([None] * 4), ClusterConfig(features="full"))
    path = write_features(dataset, tmp_path / "box.h5")
    assert values_of(path).shape == (4, 14)
    assert open_feature_file(path).labelled is False


def test_features_with_some_labels_unknown_are_refused(place: Workspace):
    dataset = make_dataset(place, make_events([0, None, 1]), ClusterConfig(features="full"))
    with pytest.raises(BadInput, match="1 of 3 events have no label, which a features file cannot say"):
        read_lhco_features(dataset)


def test_features_of_jets_without_tau_say_how_to_get_them(place: Workspace):
    dataset = make_dataset(place, make_events([0, 1], "jets"), ClusterConfig())
    with pytest.raises(BadInput, match=r"needs tau1, tau2, tau3 of its jets, .* `--features full`"):
        read_lhco_features(dataset)


def test_features_need_two_jets_an_event(place: Workspace):
    dataset = make_dataset(place, make_events([0, 1]), ClusterConfig(features="full", max_jets=1))
    with pytest.raises(BadInput, match="keeps one jet an event"):
        read_lhco_features(dataset)


@pytest.fixture
def imported(mini: Path, place: Workspace, tmp_path: Path) -> Path:
    """The features of `mini`, exported and imported again."""
    file = open_feature_file(write_features(mini, tmp_path / "mini.h5"))
    blocks = ((one.rows, one.values, one.labels) for one in read_features(file, rows=1000))
    final = place.dataset("imported")
    write_imported(blocks, final, imported_schema(file.columns), source=str(file.path), config=None)
    return final


def test_features_that_were_imported_are_exported_as_they_were(mini: Path, imported: Path, tmp_path: Path):
    ours = values_of(write_features(mini, tmp_path / "before.h5"))
    assert np.array_equal(values_of(write_features(imported, tmp_path / "after.h5")), ours)


def test_an_imported_dataset_exports_the_columns_that_it_has(imported: Path, tmp_path: Path):
    header = export_csv(imported, tmp_path / "imported.csv")[0].read_text().splitlines()[0].split(",")
    assert header[:6] == ["row", "label", "mjj", "delta_r", "delta_eta", "j1_pt"]
    assert header[-1] == "j2_tau3"
    assert "n_particles" not in header


def test_the_studys_lines_need_what_an_imported_dataset_lacks(imported: Path, tmp_path: Path):
    with pytest.raises(BadInput, match="imported: this export needs n_particles, which it lacks"):
        export_jsonl(imported, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["csv", "parquet", "lhco-features"])
def test_a_file_that_exists_is_refused_and_left_alone(
    mini: Path, place: Workspace, tmp_path: Path, form: str
):
    first = run(place, "export", "mini", "--format", form, "--json")
    path, *metadata = json.loads(first.stdout)["files"]
    before = Path(path).read_bytes()
    assert metadata == ([f"{path}-metadata.json"] if form == "csv" else [])
    again = run(place, "export", "mini", "--format", form)
    assert isinstance(again.exception, NameTaken)
    assert Path(path).read_bytes() == before
    assert sorted(map(str, Path(path).parent.iterdir())) == [path, *metadata]
    if metadata:  # which is not overwritten either where it stands alone
        Path(path).unlink()
        assert isinstance(run(place, "export", "mini", "--format", form).exception, NameTaken)


def test_an_export_goes_where_it_is_told_to(mini: Path, place: Workspace, tmp_path: Path):
    made = [
        run(place, "export", "mini", "--format", form, *out).stdout.splitlines()[0]
        for form, out in (
            ("csv", ()),
            ("csv", ("--out", tmp_path / "folder")),
            ("csv", ("--out", tmp_path / "own.csv")),
            ("lhco-features", ("--out", tmp_path / "own.h5")),
            ("lhco-features", ("--out", tmp_path / "own.csv.d")),
        )
    ]
    assert made == [
        str(path)
        for path in (
            place.root / "exports" / "mini" / "mini.csv",
            tmp_path / "folder" / "mini.csv",
            tmp_path / "own.csv",
            tmp_path / "own.h5",
            tmp_path / "own.csv.d" / "mini.features.h5",
        )
    ]
    assert all(Path(path).is_file() for path in made)


@pytest.mark.parametrize("form", ["csv", "parquet", "lhco-features"])
def test_a_full_disk_is_said_and_leaves_nothing(real: Path, place: Workspace, small_disk: Path, form: str):
    free = 50_000
    (small_disk / "filler").write_bytes(bytes(1_048_576 - free))
    done = run(place, "export", "real", "--format", form, "--out", small_disk)
    assert isinstance(done.exception, DiskFull)
    assert [one.name for one in small_disk.iterdir()] == ["filler"]


def test_a_damaged_dataset_is_one_clear_line(mini: Path, tmp_path: Path):
    (mini / "events.parquet").write_bytes(b"PAR1 and nothing of it")
    with pytest.raises(BadInput, match=r"events\.parquet: differs from its manifest .* Make mini again"):
        export_csv(mini, tmp_path / "mini.csv")
    assert not list(tmp_path.glob("*.csv"))


def test_a_frame_is_refused_when_its_rows_are_not_those_announced(tmp_path: Path):
    block = np.zeros((3, 2))
    with pytest.raises(ValueError, match="3 rows, not the 4 announced"):
        write_frame(tmp_path / "few.h5", [block], rows=4, columns=["a", "b"])
    with pytest.raises(ValueError, match="more than the 4 rows announced"):
        write_frame(tmp_path / "many.h5", [block, block], rows=4, columns=["a", "b"])
