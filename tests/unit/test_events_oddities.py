"""Files that can be read, and whose numbers are probably meant otherwise, are told of; others are not."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from lhcq.config import ClusterConfig
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import write_event_file
from lhcq.events.oddities import find_oddities
from lhcq.requests.cluster import find_events
from lhcq.workspace import Workspace


def make_particles(*, eta_max: float = 2.5, n_events: int = 20) -> np.ndarray:
    """Events of a hundred particles, (n_events, 700, 3)."""
    random = np.random.default_rng(3)
    particles = np.zeros((n_events, 700, 3))
    particles[:, :100, 0] = random.exponential(20, (n_events, 100)) + 1
    particles[:, :100, 1] = random.uniform(-eta_max, eta_max, (n_events, 100))
    particles[:, :100, 2] = random.uniform(-math.pi, math.pi, (n_events, 100))
    particles[:, 0, 0] = 600
    return particles


def told(particles: np.ndarray) -> list[str]:
    return find_oddities(
        np.concatenate([particles.reshape(len(particles), -1), np.zeros((len(particles), 1))], 1)
    )


@pytest.mark.parametrize("eta_max", [2.5, 3.1, 5.0])
def test_events_as_they_should_be_are_not_odd(eta_max: float) -> None:
    particles = make_particles(eta_max=eta_max)
    assert told(particles) == []
    turned = particles.copy()
    turned[..., 2] = np.where(particles[..., 0] > 0, particles[..., 2] % (2 * math.pi), 0)
    assert told(turned) == []
    assert told(np.zeros((5, 700, 3))) == []


@pytest.mark.parametrize("eta_max", [2.5, 5.0])
def test_other_units_and_another_order_are_told(eta_max: float) -> None:
    particles = make_particles(eta_max=eta_max)
    for changed, words in (
        (particles * [1000, 1, 1], r"pt reaches 600,000 GeV"),
        (particles * [1, 1, 180 / math.pi], r"radians: multiply degrees"),
        (particles[:, :, [0, 2, 1]], r"second column ends at 3\.1.* pt, eta, phi in this order"),
    ):
        (sentence,) = told(changed)
        assert re.search(words, sentence)


def test_who_asks_for_their_jets_and_who_inspects_them_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mev.h5"
    particles = make_particles() * [1000, 1, 1]
    write_event_file(path, [(particles, np.zeros(len(particles)))], len(particles))
    warned: list[str] = []
    find_events(Workspace(tmp_path / "w"), path, ClusterConfig(), warn=warned.append)
    (sentence,) = warned
    assert sentence.startswith(f"{path}: pt reaches 600,000 GeV")
    assert any("pt reaches 600,000 GeV" in one for one in inspect_file(path).problems)
