"""Substructure against FastJet's own objects, against published numbers, and under what must not change it."""

import itertools
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fastjet
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lhcq
from lhcq.config import ClusterConfig
from lhcq.jets.clustering import Jets, cluster_events, cluster_four_vectors, compile_kernels
from lhcq.jets.vectors import FourVectors
from lhcq.records.events import SUBSTRUCTURE, schema_of
from lhcq.storage import lock_file

NAMES = [field.name for field in SUBSTRUCTURE]
FULL = ClusterConfig(features="full")
TAUS = ("tau1", "tau2", "tau3", "tau4")
ANTIKT = fastjet.JetDefinition(fastjet.antikt_algorithm, 1.0)
KT = fastjet.JetDefinition(fastjet.kt_algorithm, 1000.0)
CAMBRIDGE = fastjet.JetDefinition(fastjet.cambridge_algorithm, 1000.0)


@pytest.fixture(scope="module")
def real_events(test_data: Path) -> np.ndarray:
    import h5py
    import hdf5plugin  # noqa: F401

    with h5py.File(test_data / "events_anomalydetection_tiny.h5") as file:
        return file["df/block0_values"][:, :2100].reshape(-1, 700, 3)


@pytest.fixture(scope="module")
def published(test_data: Path) -> list[dict[str, float]]:
    """The hard jets of FastJet's example event, with what fjcontrib's examples were run on: anti-kt, R=1."""
    px, py, pz, e = np.loadtxt(test_data / "single-event.dat").T.copy()
    event = FourVectors(counts=np.array([len(px)]), px=px, py=py, pz=pz, e=e)
    return describe(cluster_four_vectors(event, FULL))


def describe(jets: Jets) -> list[dict[str, float]]:
    assert jets.substructure is not None
    return [
        {**dict(zip(NAMES, measures, strict=True)), "pt": pt}
        for measures, pt in zip(jets.substructure.tolist(), jets.vectors.pt.tolist(), strict=True)
    ][:2]


def measure_jet(particles: np.ndarray) -> dict[str, float]:
    """The one jet of `particles` (n, 3), whatever their distances (within R=3)."""
    config = ClusterConfig(algorithm="cambridge", radius=3.0, pt_min=0.0, features="full")
    jets = cluster_four_vectors(FourVectors.massless(particles[None]), config)
    assert len(jets.pt_lead) == 1
    return describe(jets)[0]


def make_jet(n: int, seed: int, spread: float = 0.3) -> np.ndarray:
    """`n` particles around two prongs that lie across phi = pi."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, n)
    eta = 0.4 + 0.5 * spread * side + rng.normal(0, 0.2 * spread, n)
    phi = math.pi + 0.5 * spread * side + rng.normal(0, 0.2 * spread, n)
    wrapped = np.where(phi > math.pi, phi - math.tau, phi)
    return np.stack([rng.exponential(30, n) + 0.01, eta, wrapped], axis=1)


def measure_slowly(particles: list[fastjet.PseudoJet]) -> dict[str, float]:
    """The definitions, word by word, from FastJet's classic interface and plain loops."""
    values = dict.fromkeys(NAMES, 0.0)
    jet = sum(particles[1:], particles[0])
    total = sum(p.pt() for p in particles)

    by_kt = fastjet.ClusterSequence(particles, KT)
    for n_axes in range(1, min(4, len(particles)) + 1):
        axes = by_kt.exclusive_jets(n_axes)
        values[f"tau{n_axes}"] = sum(p.pt() * min(p.delta_R(axis) for axis in axes) for p in particles)
    subjets = [p.pt() / jet.pt() for p in by_kt.exclusive_jets(min(2, len(particles)))]
    values["z1"], values["z2"] = [*sorted(subjets, reverse=True), 0.0][:2]
    values["width"] = sum(p.pt() * p.delta_R(jet) for p in particles) / total

    by_angle = fastjet.ClusterSequence(particles, CAMBRIDGE)
    branch, first, second = by_angle.inclusive_jets()[0], fastjet.PseudoJet(), fastjet.PseudoJet()
    while branch.has_parents(first, second):
        z = min(first.pt(), second.pt()) / (first.pt() + second.pt())
        if z > 0.1:
            values["z_g"] = z
            break
        branch = fastjet.PseudoJet(first if first.pt() > second.pt() else second)
    values["m_sd"] = math.sqrt(max(branch.m2(), 0.0))

    pt = [p.pt() for p in particles]
    distance = [[p.delta_R(other) for other in particles] for p in particles]
    every = range(len(particles))
    e2 = sum(pt[i] * pt[j] * distance[i][j] for i, j in itertools.combinations(every, 2)) / total**2
    e3 = sum(
        pt[i] * pt[j] * pt[k] * distance[i][j] * distance[j][k] * distance[i][k]
        for i, j, k in itertools.combinations(every, 3)
    )
    if e2 > 0:
        values["c2"], values["d2"] = e3 / total**3 / e2**2, e3 / total**3 / e2**3
    return values


def to_pseudojets(vectors: FourVectors) -> list[fastjet.PseudoJet]:
    columns = (vectors.px, vectors.py, vectors.pz, vectors.e)
    return [fastjet.PseudoJet(*momentum) for momentum in zip(*(c.tolist() for c in columns), strict=True)]


def measured(jet: dict[str, float]) -> dict[str, float]:
    return {name: jet[name] for name in NAMES}


def test_real_jets_have_the_values_of_an_independent_loop(real_events):
    events = real_events[:25]
    for event, record in zip(events, cluster_full(events), strict=True):
        particles = to_pseudojets(FourVectors.massless(event[None]))
        sequence = fastjet.ClusterSequence(particles, ANTIKT)
        expected = fastjet.sorted_by_pt(sequence.inclusive_jets(20.0))[:2]
        for jet, reference in zip(record["jets"], expected, strict=True):
            slow = measure_slowly(list(reference.constituents()))
            assert measured(jet) == pytest.approx(slow, rel=1e-9, abs=1e-12)


@settings(max_examples=60)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.1, 1.0, 1.9]))
def test_any_jet_has_the_values_of_an_independent_loop(n, seed, spread):
    particles = make_jet(n, seed, spread)
    slow = measure_slowly(to_pseudojets(FourVectors.massless(particles[None])))
    # A mass squared is the difference of two squares of the energy, each rounded.
    assert measured(measure_jet(particles)) == pytest.approx(slow, rel=1e-9, abs=1e-9)


# The numbers that fjcontrib's authors printed for the first jets of `single-event.dat`, as its releases carry them.


def test_taus_are_those_of_fjcontribs_nsubjettiness_example(published):
    # Nsubjettiness/example_advanced_usage.ref: unnormalised measure, beta = 1, KT axes.
    assert [published[0][name] for name in TAUS[:3]] == pytest.approx(
        [12.313933, 9.974134, 7.269459], abs=5e-7
    )
    # Nsubjettiness/example.ref, second jet: divided by R0 = 1 and by the sum of pt, which is N=0 in the next test's
    # source. tau3 is larger than tau2: kt axes are not the best ones.
    taus = [published[1][name] / 910.0320 for name in TAUS[:3]]
    assert taus == pytest.approx([0.0214112, 0.0156127, 0.015849], abs=5e-7)


def test_c2_and_d2_are_those_of_fjcontribs_energycorrelator_example(published):
    # EnergyCorrelator/example.ref: pt_R, beta = 1: ECF(1) to ECF(3), and C2 as printed.
    for jet, (ecf1, ecf2, ecf3), c2 in (
        (published[0], (983.6369, 10006.49, 9934.06), 0.097588),
        (published[1], (910.0320, 13863.90, 65435.19), 0.309811),
    ):
        assert jet["c2"] == pytest.approx(c2, abs=5e-7)
        assert jet["d2"] == pytest.approx(ecf3 * ecf1**3 / ecf2**3, rel=3e-6)


def test_the_groomed_jet_is_that_of_fjcontribs_recursivetools_example(published):
    # RecursiveTools/example_advanced_usage.ref: `MMDT-like zcut=.1` is soft drop with beta = 0.
    assert [jet["m_sd"] for jet in published] == pytest.approx([8.7048, 4.0381], abs=5e-5)
    assert [jet["z_g"] for jet in published] == pytest.approx([0.1543, 0.2350], abs=5e-5)


def test_the_two_subjets_are_those_of_fjcontribs_recursivetools_example(published):
    # The same file: pt of the jet and of its harder kt branch (`b=0.5 z=.2 kT` and `b=2.0 z=.2 kT`), `sym` of the
    # first kt splitting.
    assert published[0]["z1"] == pytest.approx(946.4934 / 983.3873, abs=1e-7)
    assert published[1]["z1"] == pytest.approx(900.1551 / 908.0979, abs=1e-7)
    assert published[0]["z2"] / (published[0]["z1"] + published[0]["z2"]) == pytest.approx(0.0377, abs=5e-5)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_values_hang_together(n, seed):
    particles = make_jet(n, seed)
    jet = measure_jet(particles)
    assert all(jet[name] >= 0 for name in NAMES)
    assert jet["tau1"] == pytest.approx(jet["width"] * particles[:, 0].sum(), rel=1e-12)
    assert [jet[tau] == 0 for tau in TAUS] == [n_axes >= n for n_axes in (1, 2, 3, 4)]
    assert jet["z1"] >= jet["z2"]
    assert jet["z_g"] == 0 or 0.1 < jet["z_g"] <= 0.5
    whole = to_pseudojets(FourVectors.massless(particles[None]))
    assert jet["m_sd"] <= sum(whole[1:], whole[0]).m() + 1e-3


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1), st.floats(-3, 3))
def test_neither_the_order_of_particles_nor_a_rotation_in_azimuth_matters(n, seed, angle):
    particles = make_jet(n, seed)
    expected = pytest.approx(measured(measure_jet(particles)), rel=1e-9, abs=1e-5)
    assert measured(measure_jet(np.random.default_rng(seed).permutation(particles))) == expected
    turned = particles.copy()
    turned[:, 2] = np.remainder(turned[:, 2] + angle + math.pi, math.tau) - math.pi
    assert measured(measure_jet(turned)) == expected


def test_pt_times_four_multiplies_tau_and_mass_by_four_and_leaves_ratios_alone():
    particles = make_jet(50, 7)
    once, scaled = measure_jet(particles), measure_jet(particles * [4, 1, 1])
    for name in NAMES:  # a power of two, so that not a bit is rounded otherwise
        factor = 4 if name in (*TAUS, "m_sd") else 1
        assert scaled[name] == factor * once[name]


def test_empty_slots_change_nothing():
    events = np.zeros((3, 700, 3))
    for row, event in enumerate(events):
        event[:50] = make_jet(50, row)
    spread = np.zeros((3, 700, 3))
    spread[:, 3:303:6] = events[:, :50]
    assert cluster_full(spread) == cluster_full(events)


def test_a_jet_of_one_particle_has_the_documented_values():
    expected = dict.fromkeys(NAMES, 0.0) | {"z1": 1.0}
    jet = measure_jet(np.array([[100.0, 0.5, 1.0]]))
    assert measured(jet) == pytest.approx(expected, abs=1e-5)
    assert jet["z_g"] == jet["width"] == jet["c2"] == jet["d2"] == jet["z2"] == 0.0


def test_a_jet_of_two_particles_is_its_own_splitting():
    jet = measure_jet(np.array([[60.0, 0.0, 0.0], [40.0, 0.1, 0.0]]))
    assert [jet["z_g"], jet["z1"] / jet["z2"]] == pytest.approx([0.4, 1.5])
    assert jet["m_sd"] == pytest.approx(math.sqrt(2 * 60 * 40 * (math.cosh(0.1) - 1)))
    assert [jet["tau2"], jet["c2"], jet["d2"]] == [0.0, 0.0, 0.0]


def test_a_jet_without_a_balanced_splitting_is_groomed_down_to_its_hardest_particle():
    jet = measure_jet(np.array([[1000.0, 0.0, 0.0], [5.0, 0.3, 0.0], [4.0, 0.0, -0.4]]))
    assert jet["z_g"] == 0.0
    assert jet["m_sd"] == pytest.approx(0.0, abs=1e-4)


def test_particles_on_top_of_each_other_have_neither_width_nor_correlations():
    jet = measure_jet(np.array([[50.0, 0.25, 1.0]] * 3))
    assert [jet[name] for name in ("tau2", "width", "c2", "d2")] == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert jet["z1"] + jet["z2"] == pytest.approx(1.0)


ODD_PARTICLES = st.tuples(
    st.sampled_from([1e-6, 0.5, 20.0, 20.0, 5000.0]),
    st.sampled_from([-5.0, -1e-200, 0.0, 0.0, 1e-9, 0.5, 4.9]),
    st.sampled_from([-math.pi, -1e-300, 0.0, 0.0, 1e-9, 1.5, math.pi]),
)


@settings(max_examples=150)
@given(st.lists(ODD_PARTICLES, min_size=1, max_size=12))
def test_no_value_is_ever_missing_or_infinite_in_an_odd_event(event):
    particles = np.array([event])
    config = ClusterConfig(pt_min=0.0, max_jets=None, features="full")
    (record,) = cluster_events(particles, config, rows=np.zeros(1, np.int64), labels=None).to_pylist()
    for jet in record["jets"][:2]:
        assert all(math.isfinite(jet[name]) for name in NAMES)
    assert sum(jet["n_constituents"] for jet in record["jets"]) == len(event)
    assert math.isfinite(record["h_t"])


def cluster_full(particles: np.ndarray, **options: object) -> list[dict]:
    config = ClusterConfig(features="full", **options)
    return cluster_events(particles, config, rows=np.arange(len(particles)), labels=None).to_pylist()


def make_event(*pts: float) -> np.ndarray:
    """One particle for each jet, far from each other."""
    particles = np.zeros((1, 700, 3))
    particles[0, : len(pts), 0] = pts
    particles[0, : len(pts), 1] = np.linspace(-3, 3, len(pts))
    return particles


def test_full_records_have_the_documented_columns_and_jets_records_are_part_of_them():
    particles = make_event(50.0, 60.0, 70.0)
    full = cluster_events(particles, FULL, rows=np.zeros(1, np.int64), labels=None)
    assert full.schema.equals(schema_of("full"), check_metadata=True)
    jets_only = cluster_events(particles, ClusterConfig(), rows=np.zeros(1, np.int64), labels=None)
    assert jets_only.schema.equals(schema_of("jets"), check_metadata=True)
    (first,), (second,) = full.to_pylist(), jets_only.to_pylist()
    for jet in first["jets"]:
        for name in NAMES:
            del jet[name]
    assert {name: first[name] for name in second} == second


def test_only_the_two_leading_jets_have_substructure():
    (record,) = cluster_full(make_event(50.0, 60.0, 70.0, 80.0), max_jets=None)
    assert [jet["pt"] for jet in record["jets"]] == pytest.approx([80, 70, 60, 50])
    assert [jet["z1"] for jet in record["jets"]] == [pytest.approx(1), pytest.approx(1), None, None]


def test_one_jet_kept_has_its_substructure_and_the_event_that_of_both():
    (record,) = cluster_full(make_event(50.0, 60.0, 70.0), max_jets=1)
    assert [jet["z1"] for jet in record["jets"]] == [pytest.approx(1)]
    assert record["delta_eta"] == pytest.approx(3.0)
    assert record["delta_r"] == pytest.approx(3.0)


@pytest.mark.parametrize(("pts", "h_t"), [((), 0.0), ((50.0,), 50.0), ((50.0, 19.0), 50.0)])
def test_an_event_of_fewer_than_two_jets_has_h_t_and_nothing_of_a_pair(pts, h_t):
    (record,) = cluster_full(make_event(*pts))
    assert record["h_t"] == pytest.approx(h_t)
    assert [record[name] for name in ("mjj", "delta_r", "delta_eta")] == [None, None, None]
    assert len(record["jets"]) == record["n_jets"] == int(h_t > 0)


def test_h_t_counts_jets_that_the_list_leaves_out_and_delta_eta_is_never_negative():
    events = np.concatenate([make_event(40.0, 50.0, 60.0), make_event(60.0, 50.0, 40.0)])
    for record in cluster_full(events, max_jets=2):
        assert record["h_t"] == pytest.approx(150.0)
        assert record["delta_eta"] == pytest.approx(3.0)


def test_full_features_have_the_same_bits_whatever_the_chunk(real_events):
    whole = cluster_full(real_events[:120])
    pieces = [cluster_full(real_events[a:b]) for a, b in itertools.pairwise([0, 1, 50, 119, 120])]
    rows = itertools.count()
    assert [{**record, "row": next(rows)} for piece in pieces for record in piece] == whole


def test_compiled_loops_need_no_second_compilation(monkeypatch):
    from lhcq.jets import kernels, libm, momenta

    compile_kernels()
    loops = (
        *(kernels.find_jets, kernels.measure_jets, kernels.are_orderly, momenta.to_momenta),
        *(momenta.count_filled, libm.count_differences, libm.count_wave_differences),
    )
    known = [len(loop.signatures) for loop in loops]
    cluster_full(make_event(50.0, 60.0))
    assert [len(loop.signatures) for loop in loops] == known


def test_loops_are_compiled_also_where_no_cache_can_be_written(tmp_path):
    package = tmp_path / "lhcq"
    shutil.copytree(Path(lhcq.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "jets" / "__pycache__").write_text("a file where the cache would be")
    nowhere = str(tmp_path / "file")
    Path(nowhere).write_text("")
    code = (
        "import numpy as np; from lhcq.jets import momenta\n"
        "held, counts = np.full(12, 3.0), np.zeros(1, np.int64)\n"
        "momenta.count_filled(held.ctypes.data, 96, 4, counts)\n"
        "print(momenta.__file__, counts[0], momenta.count_filled.stats.cache_path)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "HOME": nowhere, "XDG_CACHE_HOME": nowhere, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(package / "jets" / "momenta.py"), "4", "None"]


def test_a_change_of_any_file_that_loops_are_made_of_makes_them_compile_anew():
    from lhcq.jets import compiling, kernels, libm, momenta

    made_of = {
        line.split()[1].removeprefix("lhcq.jets.")
        for name in compiling._SOURCES
        for line in Path(kernels.__file__).with_name(f"{name}.py").read_text().splitlines()
        if line.startswith("from lhcq.jets.")
    }
    assert made_of <= set(compiling._SOURCES)
    for loop in (kernels.find_jets, kernels.measure_jets, momenta.to_momenta, libm.count_differences):
        assert loop._cache._cache_file._source_stamp == compiling._STAMP


def test_on_a_new_machine_one_process_compiles_and_the_others_wait_for_it(tmp_path):
    from lhcq.jets import compiling, kernels

    compile_kernels()
    real = Path(kernels.measure_jets._cache._cache_file._index_path)
    assert real.exists()  # so that nobody waits for anybody any more
    index = tmp_path / real.name
    loop = SimpleNamespace(_cache=SimpleNamespace(_cache_file=SimpleNamespace(_index_path=str(index))))
    with (tmp_path / ".compiling.lock").open("a") as other:
        with compiling.one_at_a_time(loop):
            assert not lock_file(other, wait=False)
        assert lock_file(other, wait=False)
        index.touch()
        with compiling.one_at_a_time(loop):  # which would wait for ever
            pass
