"""tau_N about other axes: fjcontrib is the judge, and two definitions never meet without a word."""

import re
import shlex
import subprocess
import sys

import awkward as ak
import fastjet
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.config import CLUSTER_PRESETS, ClusterConfig
from lhcq.errors import BadInput
from lhcq.events.featurefile import open_feature_file
from lhcq.events.foreign import describe_foreign
from lhcq.jets.clustering import cluster_events, cluster_four_vectors
from lhcq.jets.definitions import (
    axes_of,
    compare_axes,
    compared_axes,
    export_warning,
    unknown_jets,
)
from lhcq.jets.export_table import export_csv, export_parquet
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import write_part
from lhcq.jets.vectors import FourVectors
from lhcq.records.csv_metadata import axes_beside
from lhcq.records.events import AXES_KEY, read_dataset, read_schema
from lhcq.workspace import Workspace
from tests.made_chunks import told_apart
from tests.unit.test_jets_clustering import DATA, make_events, needs_data, real_events  # noqa: F401

WINNER = ClusterConfig(features="full", axes="wta-kt")
NAMES = ("px", "py", "pz", "m", "tau1", "tau2", "tau3")
FJCONTRIB = {"kt": "KT_Axes", "onepass-kt": "OnePass_KT_Axes", "wta-kt": "WTA_KT_Axes"}


def measure(particles, axes):
    """tau1 to tau4 of the two leading jets (n, 4), by lhcq and by fjcontrib."""
    vectors = FourVectors.massless(particles)
    jets = cluster_four_vectors(vectors, ClusterConfig(features="full", axes=axes))
    leading = np.flatnonzero(jets.rank < 2)
    inside = [jets.members[jets.starts[jet] : jets.starts[jet + 1]] for jet in leading]
    columns = {"px": vectors.px, "py": vectors.py, "pz": vectors.pz, "E": vectors.e}
    lists = ak.unflatten(
        ak.zip({name: column[np.concatenate(inside)] for name, column in columns.items()}),
        [len(one) for one in inside],
    )
    sequence = fastjet.ClusterSequence(lists, fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0))
    theirs = sequence.njettiness("UnnormalizedMeasure", FJCONTRIB[axes], njets=[1, 2, 3, 4], beta=1.0)
    return jets.substructure[leading, :4], ak.to_numpy(theirs)


@pytest.mark.parametrize("axes", sorted(FJCONTRIB))
def test_tau_of_made_up_jets_is_fjcontribs(axes):
    for seed in range(3):
        ours, theirs = measure(make_events(20, seed, n_particles=30 + 30 * seed), axes)
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@needs_data
@pytest.mark.parametrize("axes", ["onepass-kt", "wta-kt"])
def test_tau_of_real_jets_is_fjcontribs_and_has_the_bound_of_the_released_files(real_events, axes):  # noqa: F811
    ours, theirs = measure(real_events[0][:300], axes)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
    assert (ours[:, 1] <= 0.98 * ours[:, 0]).all()


@needs_data
def test_kt_axes_break_the_bound_that_the_released_files_keep(real_events):  # noqa: F811
    ours, _ = measure(real_events[0][:300], "kt")
    assert (ours[:, 1] > ours[:, 0]).any()


@pytest.mark.parametrize("axes", ["onepass-kt", "wta-kt"])
def test_axes_change_tau_alone_and_no_jet_has_more_axes_than_it_can(axes):
    particles = make_events(8, 3)
    particles[0, 2:] = 0.0
    rows = np.arange(8)
    usual, other = (
        cluster_events(
            particles, ClusterConfig(features="full", axes=one), rows=rows, labels=None
        ).to_pylist()
        for one in ("kt", axes)
    )
    for one, two in zip(usual, other, strict=True):
        for jet, same in zip(one["jets"], two["jets"], strict=True):
            assert {k: v for k, v in jet.items() if k[:3] != "tau"} == {
                k: v for k, v in same.items() if k[:3] != "tau"
            }
            assert all(same[f"tau{n}"] == 0.0 for n in range(1, 5) if same["n_constituents"] <= n)
    assert usual != other


KT, WTA, IMPORTED = {"config": {"radius": 1.0}}, {"config": {"axes": "wta-kt"}}, {"config": None}


def test_what_a_dataset_measured_is_known_from_its_manifest():
    assert [axes_of(one) for one in (KT, WTA, IMPORTED)] == ["kt", "wta-kt", "published"]
    assert "axes" not in ClusterConfig().model_dump()
    assert ClusterConfig(axes="wta-kt").model_dump()["axes"] == "wta-kt"


def test_two_definitions_are_refused_where_both_are_known_and_told_where_one_is_published():
    columns = ["mjj", "tau21_heavy"]
    with pytest.raises(BadInput, match=r"about wta-kt axes, not kt.*--axes kt"):
        compare_axes(columns, KT, WTA, dataset="box")
    for pair in ((KT, IMPORTED), (IMPORTED, KT)):
        assert "another quantity" in str(compare_axes(columns, *pair, dataset="box"))
    for pair in ((KT, KT), (WTA, IMPORTED), (IMPORTED, IMPORTED)):
        assert compare_axes(columns, *pair, dataset="box") is None
    assert compare_axes(["mjj", "m_heavy"], KT, WTA, dataset="box") is None


def test_imported_jets_are_taken_for_the_published_ones_and_others_beside_them_are_told():
    small, usual = {"algorithm": "antikt", "radius": 0.5}, {"algorithm": "antikt", "radius": 1.0}
    told = unknown_jets(None, small, trained_on="released", dataset="mine")
    assert "released: was imported" in str(told)
    assert "those of mine are others (antikt, R = 0.5)" in str(told)
    told = unknown_jets(small, None, trained_on="mine", dataset="released")
    assert "released: was imported" in str(told)
    for pair in ((None, usual), (usual, None), (None, None), (small, small)):
        assert unknown_jets(*pair, trained_on="a", dataset="b") is None


def test_an_export_for_code_of_the_released_files_says_where_tau_is_another():
    assert "--axes wta-kt" in str(export_warning(KT))
    assert export_warning(WTA) is export_warning(IMPORTED) is None


def test_a_clustering_as_the_released_files_has_axes_that_agree_with_them():
    assert CLUSTER_PRESETS["lhco"].axes == "wta-kt"
    assert axes_of({"config": CLUSTER_PRESETS["lhco"].model_dump()}) == "wta-kt"


def test_sums_in_which_the_winner_takes_all_do_not_depend_on_the_neighbours_of_an_event():
    """On a grid, where ties are resolved by the other loop."""
    particles = make_events(24, 11)
    particles[::2, :, 1:] = np.round(particles[::2, :, 1:] / 0.1) * 0.1
    together = cluster_events(particles, WINNER, rows=np.arange(24), labels=None)
    alone = [cluster_events(particles[k : k + 1], WINNER, rows=np.array([k]), labels=None) for k in range(24)]
    assert together.equals(pa.concat_tables(alone).combine_chunks())


def make_dataset(place, name, config, *, seed=7):
    labels = (np.arange(12) % 3 == 0).astype(np.int8)
    table = cluster_events(make_events(12, seed), config, rows=np.arange(12), labels=labels)
    part = place.root / f"{name}.part"
    write_part(part, [told_apart(table)], {"cpu": "any"})
    fields = {"name": name, "source": f"{name}.h5", "source_sha256": name, "config": config.model_dump()}
    return merge_parts(
        [part], place.dataset(name), n_events=12, manifest_fields=fields, features="full", axes=config.axes
    )


def metadata_of(schema, *path):
    field = schema.field(path[0])
    for name in path[1:]:
        field = field.type.value_type.field(name)
    return (field.metadata or {}).get(AXES_KEY.encode())


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("LHCQ_WORKSPACE", str(tmp_path / "place"))
    (tmp_path / "place").mkdir()
    return Workspace(tmp_path / "place")


def run(*arguments):
    done = CliRunner().invoke(cli, [str(one) for one in arguments])
    return done.exit_code, done.output + str(done.exception)


def test_each_column_of_a_dataset_says_about_which_axes_it_is_and_so_do_its_exports(place, tmp_path):
    assert make_dataset(place, "winner", WINNER)["tau_axes"] == "wta-kt"
    schema = read_schema(place.dataset("winner"))
    for name in ("tau1", "tau2", "tau3", "tau4"):
        assert metadata_of(schema, "jets", name) == b"wta-kt"
    assert metadata_of(schema, "jets", "m") is None
    assert metadata_of(schema, "row") is None
    flat = pq.read_schema(export_parquet(place.dataset("winner"), tmp_path / "flat.parquet"))
    assert metadata_of(flat, "j2_tau3") == flat.metadata[AXES_KEY.encode()] == b"wta-kt"
    assert metadata_of(flat, "j2_pt") is None


def test_an_exported_features_file_keeps_its_axes_and_another_word_is_refused(place, tmp_path):
    make_dataset(place, "winner", WINNER)
    file = tmp_path / "a.features.h5"
    assert run("export", "winner", "--format", "lhco-features", "--out", file)[0] == 0
    assert open_feature_file(file).axes == "wta-kt"
    code, said = run("import", file, "--name", "back", "--axes", "kt")
    assert code == 1
    assert "about wta-kt axes, not kt" in said
    assert run("import", file, "--name", "back")[0] == 0
    manifest = read_dataset(place.dataset("back"))
    assert axes_of(manifest) == manifest["tau_axes"] == "wta-kt"
    assert metadata_of(read_schema(place.dataset("back")), "jets", "tau2") == b"wta-kt"


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("config", [WINNER, ClusterConfig(features="full")])
def test_a_table_that_was_exported_is_imported_again_with_its_axes(place, tmp_path, form, config):
    """By the command that lhcq prints; an event without a second jet stays one."""
    events = cluster_events(make_events(12, 7), ClusterConfig(), rows=np.arange(12), labels=None).to_pylist()
    second = sorted(event["jets"][1]["pt"] for event in events)
    config = config.model_copy(update={"pt_min": second[4]})
    make_dataset(place, "first", config)
    file = tmp_path / f"a table.{form}"
    assert run("export", "first", "--format", form, "--out", file)[0] == 0
    code, said = run("import", file, "--name", "back")
    assert code == 1
    program = shlex.split(re.findall(r"`(.*)`", said)[0])
    subprocess.run([sys.executable, *program[1:]], cwd=tmp_path, check=True)
    assert run("import", tmp_path / "events.features.h5", "--name", "back")[0] == 0
    assert read_dataset(place.dataset("back"))["tau_axes"] == config.axes
    ours, theirs = (
        pq.read_table(place.dataset(name) / "events.parquet").to_pylist() for name in ("first", "back")
    )
    assert any(len(event["jets"]) < 2 for event in ours)
    for event, same in zip(ours, theirs, strict=True):
        assert (event["row"], event["label"]) == (same["row"], same["label"])
        for jet, one in zip(event["jets"], same["jets"], strict=True):
            assert {name: jet[name] for name in one if name[:3] == "tau"} == {
                name: one[name] for name in one if name[:3] == "tau"
            }


def test_of_a_csv_without_substructure_there_is_nothing_to_say(place, tmp_path):
    make_dataset(place, "first", WINNER)
    table = pq.read_table(place.dataset("first") / "events.parquet")
    assert len(export_csv(place.dataset("first"), tmp_path / "full.csv")) == 2
    assert axes_beside(tmp_path / "full.csv") == "wta-kt"
    jets = cluster_events(make_events(12, 7), ClusterConfig(), rows=np.arange(12), labels=None)
    part = place.root / "jets.part"
    write_part(part, [told_apart(jets)], {"cpu": "any"})
    fields = {"source": "events.h5", "source_sha256": "ab", "config": ClusterConfig().model_dump()}
    merge_parts([part], place.dataset("jets"), n_events=len(table), manifest_fields=fields, features="jets")
    assert export_csv(place.dataset("jets"), tmp_path / "jets.csv") == [tmp_path / "jets.csv"]


@pytest.mark.parametrize(
    "stands",
    ["", "[1", "[]", "7", '{"notes": 3}', '{"notes": [3, {"lhcq.axes": ["$(touch x)"]}]}', "\0" * 99],
)
def test_metadata_of_whatever_kind_beside_a_table_say_nothing(tmp_path, stands):
    """Somebody else may have put it there."""
    (tmp_path / "a.csv-metadata.json").write_text(stands)
    (tmp_path / "a.csv").write_text(",".join(f"{name}j{rank}" for rank in (1, 2) for name in NAMES) + "\n")
    assert "says=" not in describe_foreign(tmp_path / "a.csv")


def test_a_features_file_that_does_not_say_has_published_axes_unless_its_owner_knows(place, tmp_path):
    make_dataset(place, "winner", WINNER)
    file = tmp_path / "a.features.h5"
    run("export", "winner", "--format", "lhco-features", "--out", file)
    with h5py.File(file, "a") as opened:
        del opened["df"].attrs[AXES_KEY]
    code, said = run("import", file, "--name", "one")
    assert (code, "axes that it does not name" in said) == (0, True)
    assert run("import", file, "--name", "two", "--axes", "onepass-kt")[0] == 0
    axes = [axes_of(read_dataset(place.dataset(name))) for name in ("one", "two")]
    assert axes == ["published", "onepass-kt"]


def test_datasets_about_other_axes_are_not_mixed(place):
    make_dataset(place, "winner", WINNER)
    make_dataset(place, "plain", ClusterConfig(features="full"), seed=8)
    make_dataset(place, "alike", WINNER, seed=9)
    asked = ("--background", "winner", "--signal-events", 2)
    code, said = run("mix", "mixed", *asked, "--signal", "plain")
    assert code == 1
    assert "about kt axes, those of winner about wta-kt" in said
    assert run("mix", "mixed", *asked, "--signal", "alike")[0] == 0
    assert read_dataset(place.dataset("mixed"))["tau_axes"] == "wta-kt"
    assert metadata_of(read_schema(place.dataset("mixed")), "jets", "tau1") == b"wta-kt"


def test_what_a_comparison_says_of_axes():
    assert compared_axes("kt", "wta-kt")
    assert compared_axes("onepass-kt", "wta-kt")
    assert "a published file's" in str(compared_axes("kt", "published"))
    assert compared_axes("published", "wta-kt") is compared_axes("kt", "kt") is None
