"""Events of a dataset that stand in the split of a run as well, though the dataset has another source.

A copy of a file, a part of one and a mixture of a dataset's events are other sources than the one that a run was
trained on. Their events are told by m_jj: of two different events it is not the same to the last bit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.records.subsets import SUBSETS, read_subset


def count_shared(
    split_dir: Path, manifest: Mapping[str, Any], mjj: NDArray[np.float64]
) -> dict[str, int] | None:
    """How many of the events with these masses (n,), GeV or NaN, stand in each subset of a split.

    None where the split, by its `manifest`, does not keep m_jj.
    """
    if "mjj" not in manifest["features"]:
        return None
    masses = {name: read_subset(split_dir, name, ["mjj"])["mjj"].to_numpy() for name in SUBSETS}
    return {name: int(np.isin(mjj, there).sum()) for name, there in masses.items()}


def describe_shared(shared: Mapping[str, int] | None) -> list[str]:
    """A warning for people; none where no event is one that training, choice or calibration had seen."""
    seen = {name: n for name, n in (shared or {}).items() if n and name != "test"}
    if not seen:
        return []
    counts = ", ".join(f"{n:,} in {name}" for name, n in seen.items())
    return [
        f"Beware: {sum(seen.values()):,} of these events stand in the split that the run was trained on ({counts}). "
        "Their scores are better than those of new events, and so are metrics, p-values and selection."
    ]
