"""What the benchmark of particles rests on: its network, its intervals, its events."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import particles_data
from benchmarks.particles_codings import write_all, write_behind
from benchmarks.particles_data import MORE_EVENTS, Subset, flattened, training_events
from benchmarks.particles_network import ParticleTransformer, _middles, turn_at_random
from benchmarks.particles_table import _opponent, mean_difference, sic_band
from benchmarks.particles_trees import FEATURES, TREES
from benchmarks.quality_data import MORE
from benchmarks.quality_table import auc_difference
from lhcq.evaluate.metrics import metrics_of
from lhcq.prompts.features import features_of
from lhcq.prompts.particles import Constituents
from lhcq.records.events import schema_of
from lhcq.workspace import Workspace


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(1)
    return ParticleTransformer(5).eval()


def particles(n: int, most: int, there: int) -> torch.Tensor:
    made = torch.zeros(n, 2, most, 3)
    made[:, :, :there] = torch.randn(n, 2, there, 3, generator=torch.Generator().manual_seed(2)) * 0.2
    made[..., 0] = made[..., 0].abs()
    return made


def test_a_network_does_not_see_the_order_of_constituents_nor_places_without_any(network: Any) -> None:
    made, features = particles(4, 6, 6), torch.randn(4, 5)
    with torch.no_grad():
        known = network(made, features)
        assert torch.allclose(network(made[:, :, torch.randperm(6)], features), known, atol=1e-5)
        longer = torch.cat([made, torch.zeros(4, 2, 3, 3)], dim=2)
        assert torch.allclose(network(longer, features), known, atol=1e-5)
        assert not torch.allclose(network(made.flip(1), features), known, atol=1e-4), "jets are told apart"


def test_a_network_has_about_a_million_weights(network: Any) -> None:
    assert 0.5e6 < sum(one.numel() for one in network.parameters()) < 1.5e6


def test_jets_that_are_turned_keep_their_distances() -> None:
    made = particles(3, 5, 5)
    turned = turn_at_random(made)
    assert not torch.allclose(turned, made)
    assert torch.equal(turned[..., 0], made[..., 0])
    assert torch.allclose(
        torch.hypot(turned[..., 1], turned[..., 2]), torch.hypot(made[..., 1], made[..., 2])
    )
    apart, before = (torch.cdist(one[:, 0, :, 1:], one[:, 0, :, 1:]) for one in (turned, made))
    assert torch.allclose(apart, before, atol=1e-5)


def test_the_middle_of_a_bin_is_in_it() -> None:
    values = particles(50, 4, 3).double().numpy()
    values[..., 0] = values[..., 0].clip(0, 0.9)
    constituents = Constituents(values)
    middles = Constituents(_middles(constituents))
    there = values[..., 0] > 0
    assert (middles.values[~there] == 0).all()
    np.testing.assert_array_equal(middles.bins()[there], constituents.bins()[there])


def test_flattened_constituents_are_missing_where_there_are_none() -> None:
    values = particles(2, 4, 2).double().numpy()
    events = Subset(np.arange(2), np.arange(2), np.zeros((2, 1)), Constituents(values))
    flat = flattened(events, 3, "detector").reshape(2, 2, 3, 3)
    np.testing.assert_array_equal(flat[:, :, :2], values[:, :, :2])
    assert np.isnan(flat[:, :, 2]).all()


def test_other_codings_write_behind_the_numbers() -> None:
    values = np.array([[[[0.5, 0.12, -0.3], [0.0, 0.0, 0.0]], [[0.25, 0.0, 0.0], [0.1, 0.5, 0.5]]]])
    events = Subset(np.arange(1), np.arange(1), np.zeros((1, 1)), Constituents(values))
    assert write_behind(["1 2:"], events, "digits", 2, "detector") == ["1 2; 500 12 -30; 250 0 0 100 50 50:"]
    assert write_behind(["1 2:"], events, "digits", 1, "detector") == ["1 2; 500 12 -30; 250 0 0:"]
    assert write_behind(["1 2:"], events, "two-digits", 1, "detector") == ["1 2; 46 34 10; 41 26 26:"]


def test_seeds_that_scatter_widen_the_interval_of_their_mean() -> None:
    random = np.random.default_rng(1)
    labels = np.repeat([1, 0], 400)
    other = random.normal(labels, 1.0)
    one, better = other + random.normal(0, 0.3, 800), other + labels
    alone, same = (mean_difference(labels, [(one, other)] * n) for n in (1, 3))
    assert (alone["auc"], alone["low"], alone["high"]) == pytest.approx(auc_difference(labels, one, other))
    assert same["high"] - same["low"] == pytest.approx(alone["high"] - alone["low"])
    apart = mean_difference(labels, [(one, other), (better, other)])
    assert apart["high"] - apart["low"] > 2 * (alone["high"] - alone["low"])
    assert apart["auc"] == pytest.approx(np.mean(apart["seeds"]))


def test_the_band_of_a_significance_improvement_holds_it_and_narrows_with_events() -> None:
    widths = []
    for n in (2000, 20000):
        random = np.random.default_rng(1)
        labels = np.repeat([1, 0], n)
        score = 1 / (1 + np.exp(-random.normal(3.0 * labels, 1.0)))
        found = metrics_of(labels, score).model_dump()
        band = sic_band(found)
        assert band is not None
        assert band[0] < found["max_sic"] < band[1]
        widths.append((band[1] - band[0]) / found["max_sic"])
    assert widths[1] <= widths[0]
    assert sic_band({"max_sic": None}) is None


NAMES = [feature.name for feature in features_of(schema_of("full"))]


def test_constituents_are_written_behind_all_numbers_and_moved_with_them() -> None:
    features = {name: np.full(2, 7.0) for name in NAMES}
    values = np.array([[[[0.5, 0.12, -0.3]], [[0.25, 0.0, 0.0]]], [[[0.5, 0.1, 0.1]], [[0.0, 0.0, 0.0]]]])
    constituents = Constituents(values)
    (alone, _), written = (
        write_all(features, some, "detector", 1) for some in (Constituents(values[:, :, :0]), constituents)
    )
    assert alone.count(" ") == 33
    assert written == [f"{alone[:-1]}{letters}:" for letters in constituents.write()]
    copies = write_all(features, constituents, "detector", 3)
    assert [len(one.split(";")) for one in copies] == [3] * 6
    assert len(set(copies)) == 6
    assert copies[0].split(";")[0] != copies[2].split(";")[0]
    assert {one.split(";")[2] for one in copies[1::2]} == {":"}, "what is not there is not moved"


def test_more_events_are_trained_on_behind_the_others_and_held_to_trees_that_had_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Subset(
        np.arange(3), np.array([0, 1, 0]), np.arange(6.0).reshape(3, 2), Constituents(np.ones((3, 2, 4, 3)))
    )
    monkeypatch.setattr(particles_data, "read_events", lambda _root, _name: first)
    monkeypatch.setattr(particles_data, "feature_names", lambda _place: ["a", "b"])
    pq.write_table(
        pa.table({"row": [0, 1], "label": [1, 0], "b": [9.0, 8.0], "a": [7.0, 6.0], "c": [0.0, 0.0]}),
        tmp_path / MORE,
    )
    place = Workspace(tmp_path)
    assert training_events(place, more=False) is first
    both = training_events(place, more=True)
    assert both.labels.tolist() == [0, 1, 0, 1, 0]
    assert both.features.tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [7.0, 9.0], [6.0, 8.0]]
    assert both.constituents.values.shape == (5, 2, 0, 3)
    assert both.first(4).features.shape == (4, 2)
    assert _opponent({"more": False}) == TREES["trees"].kind == FEATURES
    assert _opponent({"more": True}) == TREES["trees-more"].kind == FEATURES + MORE_EVENTS
