"""All 34 numbers of an event in words, with and without constituents behind: what trees have, as text.

lhcq's own prompts have fourteen of them at most. Numbers of copies are moved as `lhcq prepare --copies` moves them.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.particles_data import feature_names, read_events
from lhcq.config import Frame
from lhcq.prompts.particles import Constituents
from lhcq.prompts.templates import count_units, noise_of, units_of
from lhcq.workspace import Workspace

SEED = 1
# Of features that `wide` does not have: the unit that each is counted in, and how far a copy's is moved at most.
_GEV = {"pt": (10.0, 10.0), "pt_lead": (10.0, 10.0), "h_t": (10.0, 30.0)}
_RATIOS = dict.fromkeys(("tau43", "z_g", "z1", "z2"), (0.01, 0.02))
_ANGLES = {"delta_r": (0.01, 0.02), "delta_eta": (0.01, 0.02), "width": (0.001, 0.005)}
_OTHERS = {**_GEV, **_RATIOS, **_ANGLES, "n_jets": (1.0, 0.0), "c2": (0.001, 0.005)}


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
    """Prompts of features (n, 34) in the order of `names`, and of constituents."""
    units = np.array([unit_and_noise(name)[0] for name in names])
    numbers = count_units(features / units).tolist()
    behind = constituents.write() if constituents.values.shape[2] else [""] * len(numbers)
    return [f"{' '.join(map(str, one))}{letters}:" for one, letters in zip(numbers, behind, strict=True)]


def move_all(
    features: NDArray[np.float64], names: list[str], random: np.random.Generator
) -> NDArray[np.float64]:
    """Features (n, 34) moved at random; none below zero, and what is absent (NaN) stays so."""
    most = np.array([unit_and_noise(name)[1] for name in names])
    return np.maximum(features + most * random.uniform(-1.0, 1.0, features.shape), 0.0)


def unit_and_noise(name: str) -> tuple[float, float]:
    """What a feature is counted in, and how far it is moved at most: as lhcq has it where its prompts do."""
    units = units_of("wide")
    if name in units:
        return units[name], noise_of(name)
    return _OTHERS[name.removesuffix("_heavy").removesuffix("_light")]
