"""In how many events equal distances decided is counted, from the loops to the manifest."""

import numpy as np
import pytest

from lhcq.cli.cluster import _text
from lhcq.config import CLUSTER_PRESETS, ClusterConfig
from lhcq.errors import DamagedChunk
from lhcq.jets.clustering import cluster_and_count
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import read_told, write_part
from lhcq.report.dataset import collect_dataset
from lhcq.report.dataset_page import render_dataset
from lhcq.workspace import Workspace
from tests.made_chunks import told_apart
from tests.unit.test_jets_clustering import make_events, needs_data, real_events  # noqa: F401

TIE = np.array([[[25.0, 0.5, -0.25], [50.0, -0.5, -0.25], [50.0, 0.0, -0.25]]])
SMALL = ClusterConfig(radius=0.6)


def count(particles, config=SMALL) -> int:
    rows = np.arange(len(particles))
    return cluster_and_count(particles, config, rows=rows, labels=None)[1]


def test_the_smallest_tie_is_one_and_a_step_away_from_it_is_none() -> None:
    assert count(TIE) == 1
    moved = TIE.copy()
    moved[0, 0, 1] += 1e-9
    assert count(moved) == 0
    assert count(np.concatenate([moved, TIE, moved, TIE])) == 2


def test_events_on_a_grid_tie_and_others_do_not() -> None:
    particles = make_events(40, 5)
    assert count(particles) == count(particles, ClusterConfig(features="full", axes="wta-kt")) == 0
    particles[:, :, 1:] = np.round(particles[:, :, 1:] / 0.1) * 0.1
    assert count(particles) > 30


def test_a_tie_in_a_jet_alone_counts_where_its_substructure_is_measured() -> None:
    """anti-kt knows distances to what is hard; Cambridge/Aachen all of them, of which more are equal."""
    rng = np.random.default_rng(2)
    particles = np.empty((300, 5, 3))
    particles[:, :, 0] = rng.uniform(20, 40, (300, 5))
    particles[:, :, 1:] = 0.125 * rng.integers(0, 5, (300, 5, 2))
    particles[:, 0] = [900.0, 0.26, 0.27]
    assert count(particles) < count(particles, ClusterConfig(features="full"))


@needs_data
@pytest.mark.parametrize(("step", "expected"), [(None, 0), (0.1, 1000)])
def test_of_the_released_events_none_ties_and_on_a_grid_all_do(real_events, step, expected) -> None:  # noqa: F811
    """What docs/dataset.md says of them."""
    particles = real_events[0].copy()
    if step:
        particles[:, :, 1:] = np.round(particles[:, :, 1:] / step) * step
    assert count(particles, CLUSTER_PRESETS["lhco"]) == expected


def merged(tmp_path, ties):
    paths = []
    for index, found in enumerate(ties):
        rows = np.arange(5 * index, 5 * index + 5)
        table, _ = cluster_and_count(make_events(5, index), ClusterConfig(), rows=rows, labels=None)
        paths.append(tmp_path / f"{index}.arrows")
        write_part(paths[-1], [told_apart(table)], {"cpu": "any"}, ties=found)
    fields = {"source": "a.h5", "source_sha256": "ab" * 32, "config": ClusterConfig().model_dump()}
    place = Workspace(tmp_path)
    return merge_parts(paths, place.dataset("made"), n_events=5 * len(paths), manifest_fields=fields), place


def test_a_dataset_has_the_sum_of_its_chunks_and_its_page_says_it(tmp_path) -> None:
    manifest, place = merged(tmp_path, [[1, 2], [0], [4]])
    assert manifest["ties"] == 7
    page = render_dataset(collect_dataset(place, "made"), b"")
    assert "in 7 of 15 events equal distances decided" in page
    assert "equal distances decided (docs/dataset.md): 7\n" in _text(tmp_path, manifest, "") + "\n"


def test_a_dataset_with_a_chunk_that_did_not_count_claims_nothing(tmp_path) -> None:
    manifest, place = merged(tmp_path, [[1], None])
    assert manifest["ties"] is None
    assert "equal distances" not in render_dataset(collect_dataset(place, "made"), b"")
    assert "equal distances" not in _text(tmp_path, manifest, "")


def test_a_count_that_is_no_number_is_a_damaged_chunk(tmp_path) -> None:
    assert read_told(b'{"fingerprint": {}, "ties": 3}', tmp_path / "a").ties == 3
    for told in (b'{"fingerprint": {}, "ties": "many"}', b"[]", b"{}", b"", b"[" * 100_000):
        with pytest.raises(DamagedChunk, match="no chunk of a clustering that this lhcq wrote"):
            read_told(told, tmp_path / "a")
