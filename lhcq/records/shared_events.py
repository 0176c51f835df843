"""Events of a dataset that stand in the split of a run as well, though the dataset has another source.

A copy of a file, a part of one and a mixture of a dataset's events are other sources than the one that a run was
trained on. An event is told by m_jj, the heavier jet's mass and how many constituents both jets have. Masses need
only be alike: they are not the same to the last bit where events were written in single precision, or turned about
the beam.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.records.subsets import SUBSETS, read_subset

TOLD_BY = ("mjj", "m_heavy", "n_heavy", "n_light")
"""Features by which an event is known again."""
_STEPS = {"mjj": 1e-5, "m_heavy": 1e-4}
"""Of a logarithm: a hundred times what single precision changes. Of a million events and a million others some ten
are alike by chance."""
_LARGEST_COUNT = 1 << 10

Floats = NDArray[np.float64]


def count_shared(
    split_dir: Path, manifest: Mapping[str, Any], features: Mapping[str, Floats]
) -> dict[str, int] | None:
    """How many of the events with these features (n,), those of `TOLD_BY` that there are, stand in each subset.

    Where the split, by its `manifest`, or the events lack one of these, m_jj alone has to be the same to the last
    bit; None where one of them has no m_jj.
    """
    names = [name for name in TOLD_BY if name in features and name in manifest["features"]]
    if "mjj" not in names:
        return None
    if len(names) < len(TOLD_BY):
        names = ["mjj"]
    ours, found = [features[name] for name in names], {}
    for subset in SUBSETS:
        table = read_subset(split_dir, subset, names)
        found[subset] = int(_stand_among(ours, [table[name].to_numpy() for name in names]).sum())
    return found


def _stand_among(ours: list[Floats], theirs: list[Floats]) -> NDArray[np.bool_]:
    """Which events (n,) are among others."""
    if len(ours) == 1:
        return np.isin(ours[0], theirs[0])
    # Two numbers that are alike are in one step of one of two rulers, the second moved by half a step.
    alike = np.zeros(len(ours[0]), bool)
    for offsets in itertools.product((0.0, 0.5), repeat=len(_STEPS)):
        alike |= np.isin(_keys(ours, offsets), _keys(theirs, offsets))
    return alike & np.isfinite(ours[0])


def _keys(values: list[Floats], offsets: tuple[float, ...]) -> NDArray[np.int64]:
    """One number for each event (n,): the steps that its masses are in, and its counts."""
    keys = np.zeros(len(values[0]), np.int64)
    for mass, step, offset in zip(values, _STEPS.values(), offsets, strict=False):
        at = np.log(np.clip(np.nan_to_num(mass), 1.0, 1e6)) / step + offset
        keys = keys * int(20 / step) + at.astype(np.int64)
    for count in values[len(_STEPS) :]:
        keys = keys * _LARGEST_COUNT + np.nan_to_num(count).astype(np.int64) % _LARGEST_COUNT
    return keys


def describe_shared(shared: Mapping[str, int] | None) -> list[str]:
    """A warning for people; none where no event is one that training, choice or calibration had seen."""
    shared = shared or {}  # of a record, so in whatever order
    seen = {name: shared[name] for name in SUBSETS if shared.get(name) and name != "test"}
    if not seen:
        return []
    counts = ", ".join(f"{n:,} in {name}" for name, n in seen.items())
    return [
        f"Beware: {sum(seen.values()):,} of these events stand in the split that the run was trained on ({counts}). "
        "Their scores are better than those of new events, and so are metrics, p-values and selection."
    ]
