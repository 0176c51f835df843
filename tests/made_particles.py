"""Made-up particles of some events, and whether a file of them is read as they are."""

from pathlib import Path
from typing import Any

import numpy as np

from lhcq.events.blocks import read_blocks
from lhcq.events.layout import N_PARTICLES, EventBlock, open_event_file, read_rows

N_EVENTS = 24
TRUTH = np.arange(N_EVENTS) % 4 == 1


def make_particles(n: int = N_EVENTS, seed: int = 0) -> np.ndarray:
    """(n, 2100): different in every column, also the last ones; float32 holds them exactly."""
    rng = np.random.default_rng(seed)
    values = np.empty((n, N_PARTICLES, 3), np.float32)
    values[:, :, 0] = rng.exponential(20, (n, N_PARTICLES)) + 1
    values[:, :, 1] = rng.uniform(-2, 2, (n, N_PARTICLES))
    values[:, :, 2] = rng.uniform(-3, 3, (n, N_PARTICLES))
    return values.reshape(n, 2100).astype(np.float64)


PARTICLES = make_particles()


def check(path: Path, particles: np.ndarray = PARTICLES, labels: Any = TRUTH) -> None:
    """Every value is where it belongs, whether the file is read as a whole, in ranges or by the task's blocks."""
    file = open_event_file(path)
    assert file.n_events == len(particles)
    assert file.labelled == (labels is not None)
    whole = read_rows(file, 0, file.n_events)
    np.testing.assert_array_equal(whole.particles.reshape(-1, 2100), particles)
    assert whole.labels is None if labels is None else whole.labels.tolist() == labels.astype(int).tolist()
    part = read_rows(file, 5, 17)
    np.testing.assert_array_equal(part.particles, whole.particles[5:17])
    found = []
    for block in read_blocks(file, 0, file.n_events, skip_wrong=True):
        assert isinstance(block, EventBlock)
        found.append(block.particles.copy())
    np.testing.assert_array_equal(np.concatenate(found), whole.particles)
