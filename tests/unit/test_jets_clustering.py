import itertools
import math
import os
import subprocess
import sys
from pathlib import Path

import awkward as ak
import fastjet
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhcq.config import CLUSTER_PRESETS, ClusterConfig
from lhcq.events import blocks
from lhcq.events.layout import open_event_file, write_event_file
from lhcq.jets.clustering import cluster_events, cluster_four_vectors
from lhcq.jets.vectors import FourVectors, delta_phi
from lhcq.records.events import SCHEMA

DATA = os.environ.get("LHCQ_TEST_DATA")
needs_data = pytest.mark.skipif(
    not DATA, reason="LHCQ_TEST_DATA does not name the directory of the real events"
)

CODES = {
    "antikt": fastjet.antikt_algorithm,
    "kt": fastjet.kt_algorithm,
    "cambridge": fastjet.cambridge_algorithm,
}


@pytest.fixture(scope="module")
def real_events():
    import h5py
    import hdf5plugin  # noqa: F401

    with h5py.File(Path(DATA) / "events_anomalydetection_tiny.h5") as file:
        values = file["df/block0_values"][:]
    return values[:, :2100].reshape(-1, 700, 3), values[:, 2100].astype(np.int8)


def make_events(n_events: int, seed: int = 0, n_particles: int = 60) -> np.ndarray:
    """Random particles around two directions, padded and not ordered by pt."""
    rng = np.random.default_rng(seed)
    particles = np.zeros((n_events, 700, 3))
    axes = rng.normal(0, 1, n_events)
    for side in (0, 1):
        slots = slice(side * n_particles, side * n_particles + rng.integers(20, n_particles))
        n_slots = slots.stop - slots.start
        particles[:, slots, 0] = rng.exponential(20, (n_events, n_slots)) + 0.1
        particles[:, slots, 1] = axes[:, None] + rng.normal(0, 0.3, (n_events, n_slots))
        particles[:, slots, 2] = side * math.pi - math.pi / 2 + rng.normal(0, 0.3, (n_events, n_slots))
    return particles


def cluster(particles: np.ndarray, config: ClusterConfig | None = None, labels=None) -> pa.Table:
    rows = np.arange(len(particles))
    return cluster_events(particles, config or ClusterConfig(), rows=rows, labels=labels)


def read_single_event() -> FourVectors:
    px, py, pz, e = np.loadtxt(Path(DATA) / "single-event.dat").T.copy()
    return FourVectors(counts=np.array([len(px)]), px=px, py=py, pz=pz, e=e)


def cluster_one_by_one(event: np.ndarray, config: ClusterConfig, algorithm: int) -> list[dict[str, float]]:
    """FastJet's classic interface, one event and one PseudoJet at a time."""
    particles = [
        fastjet.PseudoJet(pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta), pt * math.cosh(eta))
        for pt, eta, phi in event
        if pt > 0
    ]
    sequence = fastjet.ClusterSequence(particles, fastjet.JetDefinition(algorithm, config.radius))
    jets = fastjet.sorted_by_pt(sequence.inclusive_jets(config.pt_min))
    return [
        {
            "pt": jet.pt(),
            "eta": jet.eta(),
            "phi": jet.phi_std(),
            "m": max(jet.m(), 0.0),
            "px": jet.px(),
            "py": jet.py(),
            "pz": jet.pz(),
            "e": jet.e(),
            "n_constituents": len(jet.constituents()),
            "pt_lead": max(particle.pt() for particle in jet.constituents()),
        }
        for jet in jets
    ]


@needs_data
@pytest.mark.parametrize("algorithm", sorted(CODES))
def test_every_algorithm_gives_the_jets_of_an_independent_loop_over_real_events(real_events, algorithm):
    config = ClusterConfig(algorithm=algorithm, max_jets=None)
    particles = real_events[0][:40]
    for event, record in zip(particles, cluster(particles, config).to_pylist(), strict=True):
        expected = cluster_one_by_one(event, config, CODES[algorithm])
        assert len(record["jets"]) == record["n_jets"] == len(expected)
        for jet, reference in zip(record["jets"], expected, strict=True):
            # A soft jet of one massless particle has a mass of rounding errors alone.
            assert jet["m"] == pytest.approx(reference["m"], rel=1e-8, abs=2e-4)
            assert jet == pytest.approx({**reference, "m": jet["m"]}, rel=1e-9, abs=1e-9)


@needs_data
@pytest.mark.parametrize("radius", [0.4, 1.0])
@pytest.mark.parametrize("algorithm", sorted(CODES))
def test_every_jet_of_every_real_event_has_the_bits_of_fastjets(real_events, algorithm, radius):
    vectors = FourVectors.massless(real_events[0])
    columns = [ak.contents.NumpyArray(column) for column in (vectors.px, vectors.py, vectors.pz, vectors.e)]
    momenta = ak.contents.RecordArray(columns, ["px", "py", "pz", "E"])
    events = ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(vectors.offsets), momenta))
    sequence = fastjet.ClusterSequence(events, fastjet.JetDefinition(CODES[algorithm], radius))

    found = cluster_four_vectors(
        vectors, ClusterConfig(algorithm=algorithm, radius=radius, pt_min=0.0)
    ).vectors
    expected = sequence.inclusive_jets(min_pt=0.0)
    assert found.counts.tolist() == ak.num(expected).tolist()
    in_order = expected[ak.argsort(-np.sqrt(expected.px**2 + expected.py**2), axis=1, stable=True)]
    for column, reference in ((found.px, "px"), (found.py, "py"), (found.pz, "pz"), (found.e, "E")):
        assert np.array_equal(column, ak.flatten(in_order[reference]).to_numpy())


@settings(max_examples=100)
@given(
    st.integers(0, 40),
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(CODES)),
    st.sampled_from([0.05, 0.4, 1.0, 3.0]),
    st.sampled_from([0.0, 15.0]),
)
def test_any_event_has_the_jets_and_constituents_of_an_independent_loop(n, seed, algorithm, radius, pt_min):
    rng = np.random.default_rng(seed)
    columns = [rng.exponential(20, n) + 1e-3, rng.uniform(-5, 5, n), rng.uniform(-math.pi, math.pi, n)]
    event = np.stack(columns, axis=1)
    config = ClusterConfig(algorithm=algorithm, radius=radius, pt_min=pt_min, max_jets=None)
    (record,) = cluster(event[None], config).to_pylist()
    expected = cluster_one_by_one(event, config, CODES[algorithm])
    assert record["n_jets"] == len(record["jets"]) == len(expected)
    for jet, reference in zip(record["jets"], expected, strict=True):
        assert jet["m"] == pytest.approx(reference["m"], rel=1e-8, abs=2e-3)
        assert jet == pytest.approx({**reference, "m": jet["m"]}, rel=1e-9, abs=1e-9)


@needs_data
@pytest.mark.parametrize(
    ("radius", "expected"),
    [(1.0, {0: 0, 1: 362, 2: 637, 3: 1}), (0.5, {0: 101, 1: 455, 2: 444, 3: 0})],
)
def test_the_real_file_has_its_known_numbers_of_jets_above_1200_gev(real_events, radius, expected):
    records = cluster(real_events[0], ClusterConfig(radius=radius, pt_min=1200.0, max_jets=None))
    n_jets = records["n_jets"].to_numpy()
    assert {count: int((n_jets == count).sum()) for count in expected} == expected
    assert records["jets"].combine_chunks().value_lengths().to_pylist() == n_jets.tolist()


@needs_data
@pytest.mark.parametrize(
    ("radius", "n_jets", "pt"), [(0.6, 91, 983.28), (1.0, 50, 983.387), (0.5, 118, 982.342)]
)
def test_the_reference_event_gives_the_figures_of_the_fastjet_manual(radius, n_jets, pt):
    jets = cluster_four_vectors(read_single_event(), ClusterConfig(radius=radius, pt_min=0.0))
    assert jets.vectors.counts.tolist() == [n_jets]
    assert jets.vectors.pt[0] == pytest.approx(pt, abs=5e-3)
    assert jets.n_constituents.sum() == 354


@needs_data
def test_the_leading_jet_of_the_reference_event_has_its_known_direction_and_mass():
    jets = cluster_four_vectors(read_single_event(), ClusterConfig(radius=0.6, pt_min=0.0)).vectors
    assert jets.eta[0] == pytest.approx(-0.8676, abs=5e-5)
    assert jets.m[0] == pytest.approx(36.46, abs=5e-3)


@needs_data
@pytest.mark.parametrize("config", [ClusterConfig(), CLUSTER_PRESETS["diary"]])
def test_real_events_have_the_same_bits_whatever_the_chunk(real_events, config):
    particles, labels = real_events[0][:400], real_events[1][:400]
    whole = cluster(particles, config, labels)
    cuts = [0, 1, 2, 9, 140, 141, 333, 400]
    pieces = [
        cluster_events(particles[a:b], config, rows=np.arange(a, b), labels=labels[a:b])
        for a, b in itertools.pairwise(cuts)
    ]
    assert pa.concat_tables(pieces).combine_chunks().equals(whole)


def test_a_file_gives_the_same_records_whatever_the_blocks_that_are_read_into_one_memory(
    tmp_path, monkeypatch
):
    path, config = tmp_path / "events.h5", ClusterConfig(features="full", constituents=4)
    write_event_file(path, [(make_events(90), np.arange(90) % 2)], 90, storage_rows=8)
    file = open_event_file(path)
    found = []
    for size in (8, 32, 1024):
        monkeypatch.setattr(blocks, "BLOCK_ROWS", size)
        tables = [
            cluster_events(
                block.particles, config, rows=block.rows, labels=block.labels, n_particles=block.n_particles
            )
            for block in blocks.read_blocks(file, 0, 90, skip_wrong=False)
        ]
        assert len(tables) == -(-90 // min(size, 90))
        found.append(pa.concat_tables(tables).combine_chunks())
    assert found[0].equals(found[2])
    assert found[1].equals(found[2])
    assert found[2].equals(
        cluster_events(make_events(90), config, rows=np.arange(90), labels=np.arange(90) % 2)
    )


def test_numbers_of_single_precision_are_not_computed_with_in_single_precision():
    single = make_events(3).astype(np.float32)
    assert cluster(single).equals(cluster(single.astype(np.float64)))


def test_particles_may_be_a_view_of_a_wider_table():
    particles = make_events(3)
    table = np.zeros((3, 2101))
    table[:, :2100] = particles.reshape(3, 2100)
    assert cluster(table[:, :2100].reshape(3, 700, 3)).equals(cluster(particles))


def test_a_record_has_the_documented_columns_and_its_row_and_label():
    records = cluster_events(
        make_events(2), ClusterConfig(), rows=np.array([70, 71]), labels=np.array([1, 0], np.int8)
    )
    assert records.schema.equals(SCHEMA, check_metadata=True)
    assert records["row"].to_pylist() == [70, 71]
    assert records["label"].to_pylist() == [1, 0]


def test_labels_are_null_where_they_are_unknown():
    assert cluster(make_events(2))["label"].to_pylist() == [None, None]


def test_jets_are_ordered_by_pt_and_constituents_add_up_to_them():
    particles = make_events(30)
    for record in cluster(particles, ClusterConfig(pt_min=0.0, max_jets=None)).to_pylist():
        pts = [jet["pt"] for jet in record["jets"]]
        assert pts == sorted(pts, reverse=True)
        assert sum(jet["n_constituents"] for jet in record["jets"]) == record["n_particles"]
        assert max(jet["pt_lead"] for jet in record["jets"]) == pytest.approx(
            particles[record["row"], :, 0].max(), rel=1e-12
        )


def test_mjj_is_the_invariant_mass_of_the_sum_and_not_the_sum_of_masses():
    for record in cluster(make_events(10)).to_pylist():
        first, second = record["jets"][:2]
        px, py, pz, e = (first[name] + second[name] for name in ("px", "py", "pz", "e"))
        assert record["mjj"] == pytest.approx(math.sqrt(e**2 - px**2 - py**2 - pz**2), rel=1e-9)
        assert record["mjj"] > first["m"] + second["m"]
        wrapped = math.remainder(first["phi"] - second["phi"], math.tau)
        assert record["delta_r"] == pytest.approx(
            math.hypot(first["eta"] - second["eta"], wrapped), rel=1e-12
        )


def test_max_jets_cuts_the_list_and_nothing_else():
    particles = make_events(20)
    every = cluster(particles, ClusterConfig(radius=0.4, max_jets=None))
    assert max(every["n_jets"].to_pylist()) > 2
    for max_jets in (1, 2):
        cut = cluster(particles, ClusterConfig(radius=0.4, max_jets=max_jets))
        assert cut.drop_columns("jets").equals(every.drop_columns("jets"))
        kept = [jets[:max_jets] for jets in every["jets"].to_pylist()]
        assert cut["jets"].to_pylist() == kept


def test_events_without_particles_or_jets_keep_their_record_and_leave_the_others_alone():
    particles = make_events(9)
    emptied, hollow = particles.copy(), [0, 3, 4, 8]
    emptied[hollow] = 0.0
    emptied[5, :, 0] *= 1e-3  # particles, but no jet above pt_min
    full, partial = cluster(particles).to_pylist(), cluster(emptied).to_pylist()
    for row, (expected, record) in enumerate(zip(full, partial, strict=True)):
        if row in [*hollow, 5]:
            assert record["jets"] == []
            assert (record["n_jets"], record["mjj"], record["delta_r"]) == (0, None, None)
            assert record["n_particles"] == (expected["n_particles"] if row == 5 else 0)
        else:
            assert record == expected


@pytest.mark.parametrize("n_events", [0, 1, 5])
def test_only_empty_events_give_only_empty_records(n_events):
    records = cluster(np.zeros((n_events, 700, 3)))
    assert records.schema.equals(SCHEMA)
    assert records["n_jets"].to_pylist() == [0] * n_events
    assert records["jets"].to_pylist() == [[]] * n_events


def test_no_jet_above_pt_min_in_any_event_gives_only_empty_records():
    assert cluster(make_events(4), ClusterConfig(pt_min=1e5))["jets"].to_pylist() == [[]] * 4


def test_one_jet_has_neither_mjj_nor_delta_r():
    particles = np.zeros((1, 700, 3))
    particles[0, 5] = (100.0, 0.5, 1.0)
    (record,) = cluster(particles).to_pylist()
    assert (record["n_jets"], record["mjj"], record["delta_r"]) == (1, None, None)
    (jet,) = record["jets"]
    assert (jet["n_constituents"], jet["pt_lead"]) == (1, jet["pt"])
    assert jet["pt"] == pytest.approx(100.0, rel=1e-14)


def test_a_negative_squared_mass_becomes_zero():
    one = np.ones(1)
    spacelike = FourVectors(counts=np.ones(1, np.int64), px=one * 3, py=one * 4, pz=one, e=one * 5)
    assert spacelike.m.tolist() == [0.0]


def test_a_difference_of_azimuths_goes_the_short_way_round():
    assert delta_phi(np.array([3.0, -3.0, 1.0]), np.array([-3.0, 3.0, 0.5])) == pytest.approx(
        [6 - math.tau, math.tau - 6, 0.5]
    )


def test_clustering_prints_nothing():
    code = (
        "import numpy as np; from lhcq.config import ClusterConfig; from lhcq.jets.clustering import cluster_events\n"
        "particles = np.zeros((1, 700, 3)); particles[0, 0] = (50.0, 0.1, 0.2)\n"
        "assert cluster_events(particles, ClusterConfig(), rows=np.arange(1), labels=None)['n_jets'][0].as_py() == 1"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e120])
def test_a_momentum_that_cannot_be_ordered_is_refused_before_the_loops_see_it(value):
    one = np.ones(3)
    vectors = FourVectors(counts=np.array([3]), px=one, py=np.array([1.0, value, 2.0]), pz=one, e=3 * one)
    with pytest.raises(ValueError, match="a momentum that is not a number or beyond 1e\\+100 GeV"):
        cluster_four_vectors(vectors, ClusterConfig())


@pytest.mark.parametrize("algorithm", sorted(CODES))
def test_particles_on_the_edges_of_the_sectors_of_azimuth_have_fastjets_jets(algorithm):
    """What is sorted into the wrong sector seems farther from the next ones than it is."""
    rng, config = (
        np.random.default_rng(8),
        ClusterConfig(algorithm=algorithm, radius=0.4, pt_min=0.0, max_jets=None),
    )
    width, shape = 2 * math.pi / 256, (12, 60)
    phi = rng.integers(0, 40, shape) * width + rng.choice(
        [-1e-15, 0.0, 1e-15, 0.499 * width, 0.501 * width], shape
    )
    particles = np.stack([rng.exponential(20, shape) + 0.1, rng.normal(0, 1, shape), phi], axis=2)
    for event, record in zip(particles, cluster(particles, config).to_pylist(), strict=True):
        expected = cluster_one_by_one(event, config, CODES[algorithm])
        assert [jet["px"] for jet in record["jets"]] == [jet["px"] for jet in expected]
