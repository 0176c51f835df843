"""Which columns of a table are the particles, and which one is the label.

The released files number their columns: 2,100 of particles, then the label. Names decide, since pandas keeps columns
in blocks that mean nothing; where names do not decide, the file is refused.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lhcq.errors import BadInput
from lhcq.events.faults import QUANTITIES
from lhcq.events.frames import Column, Frame
from lhcq.events.names import FEATURE_WIDTHS, LABEL, NEEDED, means_label
from lhcq.events.signatures import HINT

N_PARTICLES = 700
UNLABELLED_WIDTH = 3 * N_PARTICLES
WIDTH = UNLABELLED_WIDTH + 1
BOTH_WIDTHS = tuple(UNLABELLED_WIDTH + width for width in FEATURE_WIDTHS)
"""Particles, then the columns of a features file: the companions of the R&D set."""
_MISNAMED = {"px": "pt", "py": "eta", "pz": "phi"}
"""The extra QCD events of Zenodo record 8370758 are called so, and are pt, eta, phi (a pt is never negative). Other
files with such names hold momenta."""
OF_A_PARTICLE = re.compile(rf"({'|'.join((*QUANTITIES, *_MISNAMED))})_?(\d{{1,9}})")
_NUMBERED = re.compile(r"(.*?)(\d{1,9})")
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """What the columns of an event file mean."""

    particles: tuple[Column, ...]
    """2,100, or fewer where the rest is padding: pt, eta, phi of the first, of the second, ..."""
    label: Column | None
    ignored: tuple[str, ...]
    """Names of those that are not read."""


def arrange(frame: Frame, path: Path) -> Arrangement:
    """Find the particles and the label in a frame; raises `BadInput` where its columns do not say which they are."""
    width = len(frame.columns)
    if width in FEATURE_WIDTHS or (
        width < UNLABELLED_WIDTH and set(NEEDED) <= {one.name for one in frame.columns}
    ):
        raise BadInput(
            f"{path}: a features file ({width} columns), not an event file. "
            "Use `lhcq import`, or give the event file that it was made from."
        )
    columns = _all_named(frame.columns)
    label = next((column for column in columns if column.name == LABEL), None)
    ordered, others = _in_order([column for column in columns if column is not label], path)
    particles, after = ordered[:UNLABELLED_WIDTH], ordered[UNLABELLED_WIDTH:]
    if len(ordered) == WIDTH and label is None:
        (label,), after = after, []
    elif len(ordered) == BOTH_WIDTHS[1] and label is None:
        *after, label = after
    if after and len(ordered) not in BOTH_WIDTHS:
        names = [column.name for column in after]
        raise BadInput(
            f"{path}: {width} columns, not {WIDTH} (700 particles and the label) or {UNLABELLED_WIDTH} (no label): "
            f"columns {_shown(names)} are too many. Save it again with the label alone after the particles: "
            f"df = df.drop(columns=[...]); df.columns = range({WIDTH})."
        )
    refuse_near_label(label, others, path)
    refuse_objects([*particles, *([label] if label else [])], path)
    ignored = tuple(str(column.name) for column in [*others, *after])
    return Arrangement(particles=tuple(particles), label=label, ignored=ignored)


def refuse_near_label(label: Column | None, others: Sequence[Column], path: Path) -> None:
    """Raise `BadInput` where no column is the label and one of the `others` has a name that means it."""
    for column in others if label is None else ():
        if means_label(str(column.name)):
            raise BadInput(
                f"{path}: no column is called {LABEL!r}, and one {column.name!r}. If that is 1 for signal and 0 for "
                f"background, save it again with df.rename(columns={{{column.name!r}: {LABEL!r}}}); if not, under a "
                "name that says what it is."
            )


def refuse_objects(columns: Sequence[Column], path: Path) -> None:
    """Raise `BadInput` where one of the columns to read has no numbers."""
    for column in columns:
        if column.dtype == "object":
            raise BadInput(
                f"{path}: column {column.name!r} holds text or other Python objects, not numbers. Save it again as "
                "numbers; a label is 1 for signal and 0 for background."
            )


def _all_named(columns: Sequence[Column]) -> list[Column]:
    """Columns without names, which are all of one block, are numbered in the order of it."""
    return [
        column if column.name is not None else column._replace(name=str(column.position))
        for column in columns
    ]


def _in_order(columns: list[Column], path: Path) -> tuple[list[Column], list[Column]]:
    """The columns that are numbered, from the first quantity of the first particle on, and those that are not."""
    numbers = _numbers(columns)
    ordered = [columns[place] for _, place in sorted((number, place) for place, number in numbers.items())]
    others = [column for place, column in enumerate(columns) if place not in numbers]
    found = sorted(numbers.values())
    if len(ordered) < UNLABELLED_WIDTH:
        if len(columns) < UNLABELLED_WIDTH:
            raise BadInput(
                f"{path}: {len(columns)} columns, not {WIDTH} (700 particles and the label) or {UNLABELLED_WIDTH} "
                f"(no label): {_shown([column.name for column in columns])}. It is not an LHC Olympics event file. "
                f"{HINT}"
            )
        raise BadInput(
            f"{path}: its columns are called {_shown([column.name for column in columns])}, which does not say where "
            f"the particles are. Save it again with pt, eta, phi of each in turn, then the label: "
            f"df.columns = range({WIDTH})."
        )
    first = found[0]
    if first not in (0, 1) or found[:UNLABELLED_WIDTH] != list(range(first, first + UNLABELLED_WIDTH)):
        raise BadInput(
            f"{path}: the numbers of its columns do not run from 0 to {UNLABELLED_WIDTH - 1}, so a column of the "
            "particles is missing or twice there. Save it again with all 700 particles of three columns each."
        )
    return ordered, others


def _numbers(columns: list[Column]) -> dict[int, int]:
    """The number of each column, by its place in the list, where it has one.

    Either all are numbered alike (`17` or `c17`), or they are called after what they hold (`eta_5` is 16).
    """
    names = [str(column.name) for column in columns]
    if all(map(str.isdecimal, names)):
        return dict(enumerate(map(int, names)))
    quantities = {place: m for place, name in enumerate(names) if (m := OF_A_PARTICLE.fullmatch(name))}
    misnamed = any(match[1] in _MISNAMED for match in quantities.values())
    if len(quantities) >= UNLABELLED_WIDTH and (not misnamed or "pxj1" in names):
        first = min(int(match[2]) for match in quantities.values())
        return {
            place: 3 * (int(match[2]) - first) + QUANTITIES.index(_MISNAMED.get(match[1], match[1]))
            for place, match in quantities.items()
        }
    numbered = {place: m for place, name in enumerate(names) if (m := _NUMBERED.fullmatch(name))}
    (prefix, _), *_ = Counter(match[1] for match in numbered.values()).most_common(1) or [("", 0)]
    return {place: int(match[2]) for place, match in numbered.items() if match[1] == prefix}


def _shown(names: Sequence[str | None]) -> str:
    listed = [str(name) for name in names]
    if len(listed) > _SHOWN:
        listed = [*listed[: _SHOWN - 1], "...", listed[-1]]
    return ", ".join(listed)
