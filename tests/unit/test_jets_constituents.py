"""The hardest constituents of the leading jets, as a column of lists."""

from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
import pytest

import lhcq
from lhcq.config import CLUSTER_PRESETS, ClusterConfig
from lhcq.events.layout import open_event_file, read_rows
from lhcq.jets.clustering import cluster_events
from lhcq.jets.export_table import export_csv, export_parquet

SEVEN = ClusterConfig(constituents=7)


@pytest.fixture(scope="module")
def particles(test_data: Path) -> np.ndarray:
    """Of three hundred real events."""
    file = open_event_file(test_data / "events_anomalydetection_tiny.h5")
    return np.asarray(read_rows(file, 0, 300).particles, np.float64)


def records_of(particles: np.ndarray, config: ClusterConfig) -> pa.Table:
    return cluster_events(particles, config, rows=np.arange(len(particles)), labels=None)


def test_they_are_the_hardest_about_the_axis_of_a_jet_that_they_make_up(particles: np.ndarray) -> None:
    everything = ak.from_arrow(records_of(particles, ClusterConfig(constituents=1000)))
    assert ak.all(ak.num(everything.constituents, axis=2) == everything.jets.n_constituents)
    of_jets = everything.constituents
    # What they are in the file, added up, is the jet: so they are its own, whole, and about its axis.
    eta, phi = of_jets.delta_eta + everything.jets.eta, of_jets.delta_phi + everything.jets.phi
    for name, sums in {
        "px": ak.sum(of_jets.pt * np.cos(phi), axis=2),
        "py": ak.sum(of_jets.pt * np.sin(phi), axis=2),
        "pz": ak.sum(of_jets.pt * np.sinh(eta), axis=2),
    }.items():
        assert np.allclose(ak.flatten(sums), ak.flatten(everything.jets[name]), atol=0.05)
    assert ak.all(np.abs(of_jets.delta_phi) < 1.6)
    assert ak.all(of_jets.pt[:, :, 1:] <= of_jets.pt[:, :, :-1])
    assert ak.all(ak.firsts(of_jets.pt, axis=2) == np.float32(everything.jets.pt_lead))
    seven = ak.from_arrow(records_of(particles, SEVEN)).constituents
    assert ak.all(ak.num(seven, axis=2) == np.minimum(everything.jets.n_constituents, 7))
    assert seven.to_list() == of_jets[:, :, :7].to_list()


def test_an_event_s_do_not_depend_on_its_neighbours_or_on_padding(particles: np.ndarray) -> None:
    together = records_of(particles, SEVEN)["constituents"].to_pylist()
    wider = np.concatenate([np.zeros((40, 3, 3)), particles[100:140]], axis=1)
    assert records_of(wider, SEVEN)["constituents"].to_pylist() == together[100:140]


def test_equal_ones_keep_the_order_of_the_file_and_azimuth_is_wrapped() -> None:
    around = np.array(
        [[[5.0, 0.1, 3.1], [5.0, 0.0, -3.1], [9.0, 0.0, 3.13], [5.0, -0.1, -3.1], [0.0, 0.0, 0.0]]]
    )
    (event,) = records_of(around, ClusterConfig(pt_min=0.0, constituents=3))["constituents"].to_pylist()
    (jet,) = event
    assert [one["pt"] for one in jet] == [9.0, 5.0, 5.0]
    assert [round(one["delta_eta"], 1) for one in jet] == [0.0, 0.1, 0.0]
    assert max(abs(one["delta_phi"]) for one in jet) < 0.1


def test_as_many_jets_have_them_as_are_listed_and_two_at_most(particles: np.ndarray) -> None:
    for config, most in (
        (ClusterConfig(max_jets=1, constituents=2), 1),
        (ClusterConfig(max_jets=None, pt_min=5.0, constituents=2), 2),
    ):
        records = records_of(particles, config)
        listed = [len(event) for event in records["constituents"].to_pylist()]
        assert listed == [min(most, n) for n in records["n_jets"].to_pylist()]


def test_without_them_records_and_jobs_are_what_they_were(particles: np.ndarray) -> None:
    assert "constituents" not in ClusterConfig().model_dump()
    assert ClusterConfig(constituents=3).model_dump()["constituents"] == 3
    plain = records_of(particles, ClusterConfig(features="full"))
    with_them = records_of(particles, ClusterConfig(features="full", constituents=5))
    assert with_them.drop_columns(["constituents"]).equals(plain)


def test_a_dataset_has_them_and_exports_say_them_where_they_can(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(tmp_path / "workspace"))
    made = lhcq.cluster(test_data / "events_anomalydetection_tiny.h5", "some", preset="diary", constituents=4)
    events = made.to_awkward()
    assert ak.all(ak.num(events.constituents, axis=1) == np.minimum(ak.num(events.jets, axis=1), 2))
    assert ak.max(ak.num(events.constituents, axis=2)) == 4
    assert "constituents" not in made.to_pandas().columns
    names = export_csv(made.path, tmp_path / "flat.csv")[0].read_text().partition("\n")[0].split(",")
    assert names == list(made.to_pandas().columns)
    flat = ak.from_parquet(export_parquet(made.path, tmp_path / "flat.parquet"))
    assert ak.all(flat.constituents.pt == events.constituents.pt)
    assert CLUSTER_PRESETS["diary"].constituents == 0
