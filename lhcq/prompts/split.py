"""Which events belong to which subset of a split: pure planning on rows and labels."""

import numpy as np
from numpy.typing import NDArray

from lhcq.config import SplitConfig
from lhcq.errors import BadInput
from lhcq.records.subsets import SUBSETS, hash_rows

Integers = NDArray[np.int64]

# In percent, so that boundaries are exact integers.
SHARES: dict[str, int] = dict(zip(SUBSETS, (60, 15, 10, 15), strict=True))


def assign_subsets(
    rows: Integers, labels: NDArray[np.int8], *, dataset_key: str, firsts: Integers | None = None
) -> NDArray[np.int8]:
    """The subset of each event, (n_events,), as a position in `SHARES`; -1 where an event has no label.

    `labels` (n_events,) are 1 for signal, 0 for background, anything else where unknown. Within each class the events
    are ranked by a keyed hash of their row and cut by the shares, so every subset has its share of each class to
    within one event. Nothing of a split's configuration enters: a row of one source (`dataset_key`, its sha256) is
    in the same subset of every split.
    `firsts` (n_events,) name for each event the first row of the source with the same event, which is its own unless
    it is a duplicate. All rows of one event are in one subset, at the place and in the class of the first of them
    that has a label, and a cut is moved to the nearer end of a group. Raises `BadInput` where no event has a label.
    """
    if len(labels) and not np.isin(labels, (0, 1)).any():
        raise BadInput(
            f"none of its {len(labels)} events has a label, and training needs signal and background. Make the "
            "dataset again with its master key: --labels KEY."
        )
    firsts = rows if firsts is None else firsts
    hashes = hash_rows(firsts, dataset_key)
    classes = _classes(rows, labels, firsts)
    subsets = np.full(len(rows), -1, np.int8)
    for label in (0, 1):
        members = np.flatnonzero(classes == label)
        ranked = members[np.argsort(hashes[members], kind="stable")]
        stops = (np.cumsum(list(SHARES.values())) * len(ranked) + 50) // 100
        subsets[ranked] = np.searchsorted(stops, _middles(hashes[ranked]), side="right")
    return subsets


def _classes(rows: Integers, labels: NDArray[np.int8], firsts: Integers) -> NDArray[np.int8]:
    """The label that each labelled event is ranked by: its own, or that of the first row of the same event."""
    if np.array_equal(firsts, rows):
        return labels
    labelled = np.flatnonzero(np.isin(labels, (0, 1)))
    ordered = labelled[np.argsort(rows[labelled], kind="stable")]
    _, leaders, group = np.unique(firsts[ordered], return_index=True, return_inverse=True)
    classes = labels.copy()
    classes[ordered] = labels[ordered[leaders]][group]
    return classes


def _middles(ranked: NDArray[np.uint64]) -> Integers:
    """The place of each of these hashes, which rise; equal ones have the place in their middle."""
    begins = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(ranked)])
    sizes = np.diff(np.append(begins, len(ranked)))
    return np.repeat(begins + (sizes - 1) // 2, sizes)


def select(subsets: NDArray[np.int8], labels: NDArray[np.int8], config: SplitConfig) -> dict[str, Integers]:
    """The positions of the events that each subset takes, in random order by `config.seed`.

    Takes as many as the ratio and the limit allow; the limit is shared over the subsets by their shares. Raises
    `BadInput` when a subset would be without one of the classes.
    """
    limits = _share_limit(config.limit)
    chosen = {}
    for code, name in enumerate(SHARES):
        rng = np.random.Generator(np.random.PCG64([config.seed, code]))
        background, signal = (
            rng.permutation(np.flatnonzero((subsets == code) & (labels == label))) for label in (0, 1)
        )
        n_signal, n_background = count_events(
            len(signal), len(background), config.background_per_signal, limits[name]
        )
        chosen[name] = rng.permutation(np.concatenate([signal[:n_signal], background[:n_background]]))
    _check_classes(chosen, labels, config)
    return chosen


def count_events(
    n_signal: int, n_background: int, background_per_signal: int | None, limit: int | None
) -> tuple[int, int]:
    """How many signal and background events to take of those there are; None is the natural ratio, no limit."""
    if background_per_signal is not None:
        units = min(n_signal, n_background // background_per_signal)
        if limit is not None:
            units = min(units, limit // (1 + background_per_signal))
        return units, units * background_per_signal
    total = n_signal + n_background
    if limit is None or total <= limit:
        return n_signal, n_background
    taken = (2 * limit * n_signal + total) // (2 * total)
    return taken, limit - taken


def expected_prompts(n_signal: int, n_background: int, config: SplitConfig) -> dict[str, int]:
    """Prompts of each subset, copies included, of a dataset of so many events: to within rounding and duplicates."""
    limits = _share_limit(config.limit)
    found = {}
    for name, percent in SHARES.items():
        signal, background = n_signal * percent // 100, n_background * percent // 100
        taken = sum(count_events(signal, background, config.background_per_signal, limits[name]))
        found[name] = taken * (config.copies if name == "train" else 1)
    return found


def _share_limit(limit: int | None) -> dict[str, int | None]:
    if limit is None:
        return dict.fromkeys(SHARES)
    shares = {name: limit * percent // 100 for name, percent in SHARES.items()}
    # What rounding leaves goes to the largest subset.
    shares["train"] += limit - sum(shares.values())
    return dict(shares)


def _check_classes(chosen: dict[str, Integers], labels: NDArray[np.int8], config: SplitConfig) -> None:
    counts = {name: np.bincount(labels[events], minlength=2).tolist() for name, events in chosen.items()}
    if all(min(count) for count in counts.values()):
        return
    n_background, n_signal = (int(np.count_nonzero(labels == label)) for label in (0, 1))
    held = ", ".join(f"{name} {signal}+{background}" for name, (background, signal) in counts.items())
    limit = "" if config.limit is None else f" and --limit {config.limit}"
    raise BadInput(
        f"too few events: of {n_signal} signal and {n_background} background events, --ratio {config.ratio}{limit} "
        f"would leave (signal+background) {held}, and every subset needs both. Use more events, another ratio or a "
        "higher limit."
    )
