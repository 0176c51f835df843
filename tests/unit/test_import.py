"""Features files become datasets, and what follows works as if they had been clustered."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.config import ClusterConfig, SplitConfig
from lhcq.errors import BadInput, NameTaken
from lhcq.evaluate.baseline import fit_baseline
from lhcq.events.featurefile import LABEL, OF_JETS, open_feature_file, read_features
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import open_event_file, read_rows
from lhcq.jets.clustering import cluster_events
from lhcq.manifests import read_manifest, verify_files
from lhcq.prompts.features import compute_features
from lhcq.prompts.templates import render
from lhcq.prompts.writing import write_split
from lhcq.records.subsets import SUBSETS
from lhcq.storage import MANIFEST, read_json
from lhcq.workspace import Workspace
from tasks.jobs.store import create_job
from tests.feature_files import BLOSC, COLUMNS, import_file, make_values, write_frame
from tests.specs import job_of


def run(workspace: Path, *arguments: str | Path) -> Any:
    """A command of the program in this process."""
    return CliRunner().invoke(
        cli,
        [str(argument) for argument in arguments],
        env={"LHCQ_WORKSPACE": str(workspace)},
        standalone_mode=False,
    )


def in_blocks(values: np.ndarray) -> dict[str, list[tuple[Any, np.ndarray]]]:
    """One table in the ways that pandas may have stored it."""
    jets, label = values[:, :14], values[:, 14:]
    return {
        "one block": [(COLUMNS, values)],
        "numbers for names": [(range(15), values)],
        "digits for names": [([str(number) for number in range(15)], values)],
        "label of its own type": [(OF_JETS, jets), ([LABEL], label.astype(np.int64))],
        "label as a truth value": [(OF_JETS, jets), ([LABEL], label.astype(bool))],
        "label first": [([LABEL], label.astype(np.int8)), (OF_JETS, jets)],
        "other order": [(COLUMNS[::-1], values[:, ::-1])],
        "more columns": [([*COLUMNS, "njets"], np.column_stack([values, values[:, :1] * 0 - 1]))],
    }


@pytest.mark.parametrize("form", in_blocks(np.zeros((1, 15))))
def test_a_table_reads_alike_however_pandas_stored_it(tmp_path: Path, form: str):
    values = make_values(40)
    path = write_frame(tmp_path / "features.h5", in_blocks(values)[form], chunks=True, **BLOSC)
    file = open_feature_file(path)
    assert (file.n_events, file.columns, file.labelled) == (40, COLUMNS, True)
    assert file.ignored == (("njets",) if form == "more columns" else ())
    block = next(read_features(file, rows=100))
    assert block.rows.tolist() == list(range(40))
    np.testing.assert_array_equal(np.column_stack(list(block.values.values())), values[:, :14])
    np.testing.assert_array_equal(block.labels, values[:, 14])


def test_a_file_is_read_by_blocks_of_rows(tmp_path: Path):
    values = make_values(40)
    file = open_feature_file(write_frame(tmp_path / "features.h5", [(COLUMNS, values)]))
    blocks = list(read_features(file, rows=17))
    assert [len(block.rows) for block in blocks] == [17, 17, 6]
    np.testing.assert_array_equal(np.concatenate([block.values["mj2"] for block in blocks]), values[:, 10])


def test_a_table_under_another_key_is_found_unless_there_are_several(tmp_path: Path):
    path = write_frame(tmp_path / "features.h5", [(COLUMNS, make_values(5))], key="events")
    assert open_feature_file(path).n_events == 5
    with h5py.File(path, "r+") as file:
        file.copy("events", "more")
    with pytest.raises(BadInput, match=r"several tables \(events, more\), none called df"):
        open_feature_file(path)
    with h5py.File(path, "r+") as file:
        file.move("more", "df")
    assert open_feature_file(path).places["mj1"][0] == "/df/block0_values"


def test_records_hold_what_the_file_says_and_nothing_else(tmp_path: Path):
    values = make_values(40)
    path = write_frame(tmp_path / "features.h5", [(COLUMNS, values)])
    manifest = import_file(path, tmp_path / "made")
    verify_files(tmp_path / "made", manifest)
    assert (manifest["rows"], manifest["kind"]) == (40, "import")
    assert manifest["labels"] == {"signal": 10, "background": 30, "unknown": 0}
    assert manifest["columns"] == ["row", "label", "jets", "mjj", "delta_r", "delta_eta"]
    assert manifest["jet_columns"] == [
        "pt", "eta", "phi", "m", "px", "py", "pz", "e", "tau1", "tau2", "tau3",
    ]  # fmt: skip
    records = pq.read_table(tmp_path / "made" / "events.parquet").to_pylist()
    for row, (record, line) in enumerate(zip(records, values, strict=True)):
        assert (record["row"], record["label"]) == (row, line[14])
        for jet, (px, py, pz, m, *taus) in zip(record["jets"], (line[:7], line[7:14]), strict=True):
            assert [jet[name] for name in ("px", "py", "pz", "m")] == [px, py, pz, m]
            assert [jet[f"tau{number}"] for number in (1, 2, 3)] == taus
            p = np.hypot(np.hypot(px, py), pz)
            expected = (np.hypot(px, py), np.arctanh(pz / p), np.arctan2(py, px), np.hypot(p, m))
            np.testing.assert_allclose([jet[name] for name in ("pt", "eta", "phi", "e")], expected, rtol=1e-9)
        one, two = record["jets"]
        squared = (one["e"] + two["e"]) ** 2 - sum(
            (one[name] + two[name]) ** 2 for name in ("px", "py", "pz")
        )
        turn = abs(one["phi"] - two["phi"])
        around = min(turn, 2 * np.pi - turn)
        np.testing.assert_allclose(
            [record["mjj"], record["delta_eta"], record["delta_r"]],
            [np.sqrt(squared), abs(one["eta"] - two["eta"]), np.hypot(one["eta"] - two["eta"], around)],
            rtol=1e-9,
        )


def test_a_jet_without_momentum_is_none_and_jets_come_by_pt(tmp_path: Path):
    values = make_values(4)
    full = values.copy()
    values[1, 7:14] = 0  # one jet
    values[2, :14] = 0  # none
    values[3, :7], values[3, 7:14] = full[3, 7:14], full[3, :7]  # by mass, say
    import_file(write_frame(tmp_path / "features.h5", [(COLUMNS, values)]), tmp_path / "made")
    records = pq.read_table(tmp_path / "made" / "events.parquet")
    events = records.to_pylist()
    assert [len(event["jets"]) for event in events] == [2, 1, 0, 2]
    assert [event["mjj"] is None for event in events] == [False, True, True, False]
    assert [event["delta_eta"] is None for event in events] == [False, True, True, False]
    assert [jet["m"] for jet in events[3]["jets"]] == [full[3, 3], full[3, 10]]
    manifest = read_manifest(tmp_path / "made", what="dataset", remedy="")
    assert manifest["events_by_listed_jets"] == {"0": 1, "1": 1, "2": 2}
    prompts = render("compact", records)
    assert prompts[1] == f"0 {full[1, 3]:.0f} 0 50 0:"
    assert prompts[2] == "0 0 0 0 0:"


def test_a_tau_that_only_one_jet_has_is_not_read(tmp_path: Path):
    kept = [number for number, name in enumerate(COLUMNS) if name not in ("tau3j2", "label")]
    path = write_frame(tmp_path / "features.h5", [([COLUMNS[i] for i in kept], make_values(4)[:, kept])])
    file = open_feature_file(path)
    assert file.ignored == ("tau3j1",)
    assert not file.labelled
    manifest = import_file(path, tmp_path / "made")
    assert manifest["jet_columns"][-2:] == ["tau1", "tau2"]
    assert manifest["labels"] == {"signal": 0, "background": 0, "unknown": 4}


def test_n_subjettiness_at_beta_one_is_read_and_at_others_named(tmp_path: Path):
    values = make_values(20)
    names = [f"{name}_1" if name.startswith("tau") else name for name in OF_JETS]
    others = [f"tau{number}j{rank}_{beta}" for beta in (2, 5) for rank in (1, 2) for number in (1, 2, 3)]
    columns = [*names, *others, LABEL]
    table = np.column_stack([values[:, :14], np.ones((20, len(others))), values[:, 14]])
    file = open_feature_file(write_frame(tmp_path / "extratau.h5", [(columns, table)]))
    assert (file.columns, file.ignored) == (COLUMNS, tuple(others))
    block = next(read_features(file, rows=100))
    np.testing.assert_array_equal(np.column_stack(list(block.values.values())), values[:, :14])


@pytest.mark.parametrize("width", [14, 15])
def test_a_file_of_particles_and_features_is_read_as_either(tmp_path: Path, width: int):
    particles = np.zeros((20, 700, 3))
    particles[:, :2, 0] = 100.0 + np.arange(40).reshape(20, 2)
    values = make_values(20)
    table = np.column_stack([particles.reshape(20, 2100), values[:, :width]])
    path = write_frame(tmp_path / "both.h5", [(range(2100 + width), table)])
    events = open_event_file(path)
    block = read_rows(events, 0, 20)
    np.testing.assert_array_equal(block.particles, particles)
    assert events.ignored == tuple(str(number) for number in range(2100, 2114))
    features = open_feature_file(path)
    assert features.columns == COLUMNS[:width]
    read = next(read_features(features, rows=100))
    np.testing.assert_array_equal(np.column_stack(list(read.values.values())), values[:, :14])
    for labels in (block.labels, read.labels):
        assert labels is None if width == 14 else labels.tolist() == values[:, 14].tolist()


@pytest.mark.parametrize("name", ["is_signal", "labels", "signal", "Label"])
def test_a_label_by_another_name_is_not_taken_for_no_label(tmp_path: Path, name: str):
    path = write_frame(tmp_path / "features.h5", [((*OF_JETS, name), make_values(4))])
    with pytest.raises(BadInput, match=f"no column is called 'label', and one '{name}'") as caught:
        open_feature_file(path)
    assert inspect_file(path).problems == [str(caught.value)]


def test_the_file_does_not_depend_on_the_reading_but_for_its_row_groups(tmp_path: Path):
    path = write_frame(tmp_path / "features.h5", [(COLUMNS, make_values(50))])
    first = import_file(path, tmp_path / "a", rows=16)
    assert import_file(path, tmp_path / "b", rows=16)["files"] == first["files"]
    import_file(path, tmp_path / "c")
    assert pq.ParquetFile(tmp_path / "a" / "events.parquet").num_row_groups == 4
    tables = [pq.read_table(tmp_path / name / "events.parquet") for name in "ac"]
    assert tables[0].equals(tables[1])


def test_the_first_dataset_of_a_name_stands(tmp_path: Path):
    path = write_frame(tmp_path / "features.h5", [(COLUMNS, make_values(5))])
    import_file(path, tmp_path / "made")
    (tmp_path / "made" / "manifest.json").write_text('{"source_sha256": "cd"}')
    with pytest.raises(NameTaken, match="another dataset took this name"):
        import_file(path, tmp_path / "made")


def test_force_imports_anew_and_refuses_where_a_split_was_made_of_it(tmp_path: Path):
    first, other = (
        write_frame(tmp_path / f"{seed}.features.h5", [(COLUMNS, make_values(6, seed))]) for seed in (1, 2)
    )
    workspace = tmp_path / "workspace"
    assert run(workspace, "import", first, "--name", "made").exit_code == 0
    assert "exists already" in str(run(workspace, "import", other, "--name", "made").exception)
    done = run(workspace, "import", other, "--name", "made", "--force", "--json")
    assert done.exit_code == 0
    place = Workspace(workspace)
    assert read_json(place.dataset("made") / MANIFEST)["source"] == str(other)
    create_job(place, job_of("prepare", "split", dataset="made", parts=0))
    refused = run(workspace, "import", first, "--name", "made", "--force").exception
    assert "dataset made: split split was made of it" in str(refused)
    assert read_json(place.dataset("made") / MANIFEST)["source"] == str(other)


def test_float32_features_sorted_by_label_go_all_the_way_to_prompts_and_trees(tmp_path: Path):
    values = make_values(600)
    path = write_frame(tmp_path / "features.h5", [(COLUMNS, values.astype(np.float32))])
    done = run(tmp_path / "ws", "import", path, "--name", "made", "--json")
    assert done.exception is None, done.output
    assert json.loads(done.stdout)["labels"] == {"signal": 150, "background": 450, "unknown": 0}
    split = tmp_path / "ws" / "splits" / "half"
    manifest = write_split(tmp_path / "ws" / "datasets" / "made", split, config=SplitConfig(ratio="1:2"))
    assert manifest["counts"]["train"] == {"signal": 90, "background": 180}
    assert manifest["template"]["columns"] == [
        "mjj", "m_heavy", "m_light", "tau21_heavy", "tau21_light",
    ]  # fmt: skip
    masses = np.sort(values[:, [3, 10]], axis=1)[:, ::-1]
    for part in SUBSETS:
        for event in pq.read_table(split / f"{part}.parquet").to_pylist():
            heavy, light = masses[event["row"]]
            assert event["label"] == int(event["row"] >= 450)
            assert event["prompt"] == f"{event['mjj'] / 10:.0f} {heavy:.0f} {light:.0f} 50 50:"
            assert event["m_heavy"] == pytest.approx(heavy, rel=1e-6)
    fit_baseline(split, tmp_path / "trees")
    trees = read_manifest(tmp_path / "trees", what="trees", remedy="")
    assert trees["features"] == manifest["features"]
    assert trees["features"] == [
        "mjj", "m_heavy", "m_light", "pt_heavy", "pt_light", "delta_r", "delta_eta",
        "tau21_heavy", "tau21_light", "tau32_heavy", "tau32_light",
    ]  # fmt: skip
    assert json.loads((tmp_path / "trees" / "figures.json").read_text())["test"]["auc"] > 0.8


def test_a_black_box_s_features_take_their_labels_from_the_master_key(tmp_path: Path):
    path = write_frame(tmp_path / "features.h5", [(OF_JETS, make_values(60)[:, :14])])
    key = tmp_path / "key"
    key.write_text("0.0\n" * 45 + "1.0\n" * 10 + "2.0\n" * 5)
    for name, options in (("box", ()), ("opened", ("--labels", key))):
        assert run(tmp_path / "ws", "import", path, "--name", name, *options).exception is None
    datasets = tmp_path / "ws" / "datasets"
    with pytest.raises(BadInput, match=r"box: none of its 60 events has a label.*--labels KEY"):
        write_split(datasets / "box", tmp_path / "split", config=SplitConfig())
    labels = pq.read_table(datasets / "opened" / "events.parquet")["label"].to_pylist()
    assert labels == [0] * 45 + [1] * 15
    key.write_text("0\n" * 59)
    refused = run(tmp_path / "ws", "import", path, "--name", "third", "--labels", key)
    assert "59 lines for 60 events" in str(refused.exception)
    labelled = write_frame(tmp_path / "labelled.h5", [(COLUMNS, make_values(60))])
    refused = run(tmp_path / "ws", "import", labelled, "--name", "third", "--labels", key)
    assert "has labels of its own" in str(refused.exception)
    taken = run(tmp_path / "ws", "import", labelled, "--name", "box")
    assert isinstance(taken.exception, NameTaken)
    path = path.rename(tmp_path / "moved.h5")
    again = run(tmp_path / "ws", "import", path, "--name", "box", "--json")
    assert again.exception is None
    answered = json.loads(again.stdout)
    assert (answered["rows"], answered["seconds"], answered["events_per_second"]) == (60, None, None)
    absent = run(tmp_path / "ws", "import", path, "--name", "box", "--labels", tmp_path / "absent")
    assert absent.exception is not None
    assert sorted(found.name for found in datasets.iterdir()) == ["box", "opened"]


def test_the_diary_prompt_cannot_be_made_of_a_features_file_and_says_so(tmp_path: Path):
    path = write_frame(tmp_path / "features.h5", [(COLUMNS, make_values(200))])
    import_file(path, tmp_path / "made")
    with pytest.raises(BadInput, match=r"made: template diary needs n_particles.*use --template compact"):
        write_split(tmp_path / "made", tmp_path / "split", config=SplitConfig(template="diary"))


def write_sorted_float32(test_data: Path, path: Path, n: int) -> np.ndarray:
    """Real events as an event file in single precision, background first and signal last; gives the labels."""
    with h5py.File(test_data / "events_anomalydetection_tiny.h5") as real:
        values = real["df/block0_values"][:n]
    values = values[np.argsort(values[:, 2100], kind="stable")].astype(np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("df/block0_values", data=values, chunks=(7, 2101), **BLOSC)
    return values[:, 2100]


def test_imported_events_are_the_clustered_ones(test_data: Path, tmp_path: Path):
    labels = write_sorted_float32(test_data, tmp_path / "events.h5", 300)
    block = read_rows(open_event_file(tmp_path / "events.h5"), 0, 300)
    np.testing.assert_array_equal(block.labels, labels)
    clustered = cluster_events(
        block.particles, ClusterConfig(features="full"), rows=block.rows, labels=block.labels
    )
    values = np.zeros((300, 15))
    for row, event in enumerate(clustered.to_pylist()):
        values[row, 14] = event["label"]
        for rank, jet in enumerate(event["jets"]):
            names = ("px", "py", "pz", "m", "tau1", "tau2", "tau3")
            values[row, 7 * rank : 7 * rank + 7] = [jet[name] for name in names]
    import_file(write_frame(tmp_path / "features.h5", [(COLUMNS, values)]), tmp_path / "made")
    imported = pq.read_table(tmp_path / "made" / "events.parquet")
    assert imported["label"].equals(clustered["label"])
    ours, theirs = compute_features(imported), compute_features(clustered)
    assert len(ours) == 11
    for name, column in ours.items():
        np.testing.assert_allclose(column, theirs[name], rtol=1e-9, atol=1e-9, err_msg=name)
    units = {"mjj": 10, "m_heavy": 1, "m_light": 1, "tau21_heavy": 0.01, "tau21_light": 0.01}
    numbers = np.column_stack([np.rint(np.nan_to_num(theirs[name] / unit)) for name, unit in units.items()])
    assert render("compact", imported) == [" ".join(f"{one:.0f}" for one in line) + ":" for line in numbers]
