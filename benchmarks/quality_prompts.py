"""Ways to write numbers into a prompt, for the quality benchmark: each from features, none that a release needs."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality_data import Features
from lhcq.prompts.templates import noise_of

Column = tuple[str, float]
"""A feature and the unit that it is counted in."""
Write = Callable[[Features, Features], list[str]]
"""The prompts of events with these features, knowing those of the training part."""


def _both(name: str, unit: float) -> tuple[Column, Column]:
    return (f"{name}_heavy", unit), (f"{name}_light", unit)


RECIPE: tuple[Column, ...] = (("mjj", 10.0), *_both("m", 1.0), *_both("tau21", 0.001))
COMPACT_JETS: tuple[Column, ...] = (
    ("mjj", 10.0),
    *_both("m", 1.0),
    ("n_particles", 10.0),
    *_both("n", 10.0),
)
COMPACT_FULL: tuple[Column, ...] = (
    ("mjj", 10.0),
    *_both("m_sd", 1.0),
    ("n_particles", 10.0),
    *_both("d2", 0.1),
)
JETS: tuple[Column, ...] = (
    ("mjj", 10.0),
    *_both("m", 1.0),
    ("n_particles", 1.0),
    *_both("n", 1.0),
    *_both("pt", 10.0),
    ("delta_r", 0.1),
)
WIDE: tuple[Column, ...] = (
    ("mjj", 10.0),
    *_both("m", 1.0),
    *_both("m_sd", 1.0),
    ("n_particles", 10.0),
    *_both("n", 10.0),
    *_both("d2", 0.1),
    *_both("tau21", 0.01),
    *_both("tau32", 0.01),
)
WIDER: tuple[Column, ...] = (
    *WIDE,
    *_both("pt", 10.0),
    *_both("pt_lead", 10.0),
    ("delta_eta", 0.1),
    *_both("tau43", 0.01),
    *_both("width", 0.01),
    *_both("z_g", 0.01),
    *_both("c2", 0.01),
)

FINE: tuple[Column, ...] = tuple(
    (name, {"n": 1.0, "d2": 0.01}.get(name.split("_")[0], unit)) for name, unit in WIDE
)
"""`WIDE`, with all digits of the numbers of constituents, and one more of D2."""
NOISE: dict[str, float] = {name: noise_of(name) for name, _ in WIDE}
"""As `lhcq prepare --copies` moves them."""


def integers(columns: Sequence[Column]) -> Write:
    """`357 120 447 53 10:`, as the compact template writes."""
    return lambda events, _: _joined(
        [[str(value) for value in _counted(events, *column)] for column in columns]
    )


def packed(columns: Sequence[Column]) -> Write:
    """`357120447053010:`, each number with as many digits as the training part needs, and nothing between."""

    def write(events: Features, train: Features) -> list[str]:
        fields = []
        for column in columns:
            high = int(np.max(_counted(train, *column)))
            digits = len(str(high))
            fields.append(
                [f"{value:0{digits}}" for value in np.clip(_counted(events, *column), 0, 10**digits - 1)]
            )
        return _joined(fields, "")

    return write


def decimals(columns: Sequence[Column]) -> Write:
    """`3.57 0.12 0.447`: TeV for what is counted in GeV, and two digits more than the integers have."""

    def write(events: Features, _: Features) -> list[str]:
        fields = []
        for name, unit in columns:
            scale, places = (1000.0, 4 if unit < 10 else 3) if unit >= 1.0 else (1.0, 4)
            fields.append([f"{value:.{places}f}" for value in np.nan_to_num(events[name]) / scale])
        return _joined(fields)

    return write


def named(columns: Sequence[Column]) -> Write:
    """`mjj=357 m_heavy=447 ...:`."""
    return lambda events, _: _joined(
        [[f"{column[0]}={value}" for value in _counted(events, *column)] for column in columns]
    )


def percentiles(columns: Sequence[Column]) -> Write:
    """`74 60 54 56 08:`, the place among the training events in percent."""
    return _binned(columns, 100, lambda place: f"{place:02}")


def letters(columns: Sequence[Column]) -> Write:
    """` T P O O C:`, one of 26 bins of equal occupancy, which is one token."""
    return _binned(columns, 26, lambda place: f" {chr(ord('A') + place)}", "")


def _binned(columns: Sequence[Column], bins: int, show: Callable[[int], str], separator: str = " ") -> Write:
    shown = [show(place) for place in range(bins)]

    def write(events: Features, train: Features) -> list[str]:
        fields = []
        for name, _ in columns:
            known = np.nan_to_num(train[name])
            edges = np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])
            places = np.searchsorted(edges, np.nan_to_num(events[name]), side="right")
            fields.append([shown[place] for place in places])
        return _joined(fields, separator)

    return write


def _counted(events: Features, name: str, unit: float) -> NDArray[np.int64]:
    return np.rint(np.nan_to_num(events[name] / unit)).astype(np.int64)


def _joined(fields: list[list[str]], separator: str = " ") -> list[str]:
    return [separator.join(values) + ":" for values in zip(*fields, strict=True)]
