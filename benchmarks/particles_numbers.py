"""All 34 numbers of an event in words, with and without constituents behind: what trees have, as text.

lhcq's own prompts have fourteen of them at most. Numbers of copies are moved as `lhcq prepare --copies` moves them.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.particles_data import feature_names, read_events
from lhcq.config import Frame
from lhcq.prompts.particles import Constituents
from lhcq.prompts.templates import count_units
from lhcq.workspace import Workspace

SEED = 1
# By feature: the unit that it is counted in, and how far a copy's is moved at most, in its own unit.
_GEV = {"mjj": (10.0, 30.0), "m": (1.0, 3.0), "m_sd": (1.0, 3.0), "pt": (10.0, 10.0), "pt_lead": (10.0, 10.0)}
_COUNTS = {"n": (1.0, 5.0), "n_particles": (1.0, 10.0), "n_jets": (1.0, 0.0)}
_RATIOS = dict.fromkeys(("tau21", "tau32", "tau43", "z_g", "z1", "z2"), (0.01, 0.02))
_ANGLES = {"delta_r": (0.01, 0.02), "delta_eta": (0.01, 0.02), "width": (0.001, 0.005)}
UNITS = {
    **{"h_t": (10.0, 30.0), "d2": (0.01, 0.1), "c2": (0.001, 0.005)},
    **{**_GEV, **_COUNTS, **_RATIOS, **_ANGLES},
}


def prompts_of_all(place: Workspace, subset: str, *, most: int, frame: Frame, copies: int = 1) -> list[str]:
    """The prompts of a subset's events, `most` constituents of either jet behind their numbers.

    All of a copy, then of the next. One copy is the events as they are; of several, each is moved.
    """
    events, names = read_events(place.root, subset), feature_names(place)
    constituents = Constituents(events.constituents.values[:, :, :most])
    if copies == 1:
        return write_all(events.features, names, constituents.turned(frame))
    prompts = []
    for copy in range(copies):
        random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([SEED, copy])))
        moved = move_all(events.features, names, random)
        # What is turned by its principal axis is moved before.
        prompts += write_all(moved, names, constituents.moved(frame, random).turned(frame))
    return prompts


def write_all(features: NDArray[np.float64], names: list[str], constituents: Constituents) -> list[str]:
    """Prompts of features (n, 34), in units of `UNITS` and the order of `names`, and of constituents, none of K=0."""
    units = np.array([UNITS[_either(name)][0] for name in names])
    numbers = count_units(features / units).tolist()
    behind = constituents.write() if constituents.values.shape[2] else [""] * len(numbers)
    return [f"{' '.join(map(str, one))}{letters}:" for one, letters in zip(numbers, behind, strict=True)]


def move_all(
    features: NDArray[np.float64], names: list[str], random: np.random.Generator
) -> NDArray[np.float64]:
    """Features (n, 34) moved at random; none below zero, and what is absent (NaN) stays so."""
    most = np.array([UNITS[_either(name)][1] for name in names])
    return np.maximum(features + most * random.uniform(-1.0, 1.0, features.shape), 0.0)


def _either(name: str) -> str:
    return name.removesuffix("_heavy").removesuffix("_light")
