"""tau_N about other axes: fjcontrib is the judge, and two definitions never meet without a word."""

import awkward as ak
import fastjet
import numpy as np
import pytest

from lhcq.config import ClusterConfig
from lhcq.errors import BadInput
from lhcq.jets.clustering import cluster_events, cluster_four_vectors
from lhcq.jets.definitions import axes_of, compare_axes, export_warning
from lhcq.jets.vectors import FourVectors
from tests.unit.test_jets_clustering import DATA, make_events, needs_data, real_events  # noqa: F401

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


def test_an_export_for_code_of_the_released_files_says_where_tau_is_another():
    assert "--axes onepass-kt" in str(export_warning(KT))
    assert export_warning(WTA) is export_warning(IMPORTED) is None
