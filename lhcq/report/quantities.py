"""What `lhcq plot` draws of a dataset's events: which numbers there are, and their values and bins."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.records.events import names_of_jet, read_event_batches

_BATCH = 65_536

Floats = NDArray[np.float64]
WhichJet = Literal["leading", "second", "heavier", "lighter"]


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One number of an event, and how it is drawn."""

    name: str
    title: str
    """In words, for the table and for who cannot see the plot."""
    axis: str
    """In the notation of matplotlib's mathtext, without the unit."""
    columns: tuple[str, ...]
    """Of the event, or of one jet; two for their ratio."""
    jet: WhichJet | None = None
    """Of the two leading jets by pt: `leading` and `second` by pt, `heavier` and `lighter` by mass."""
    unit: str = ""
    """`GeV`, or empty."""
    log: bool = False
    """A steeply falling spectrum, which only a logarithmic axis shows whole."""
    whole: bool = False
    """A count."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns to read: those of a jet that is chosen by mass include the mass."""
        by_mass = self.jet in ("heavier", "lighter")
        return tuple(dict.fromkeys((*self.columns, *(("m",) if by_mass else ()))))


QUANTITIES: tuple[Quantity, ...] = (
    Quantity(
        name="pt_leading", title="pT of the leading jet", axis=r"Leading jet $p_\mathrm{T}$",
        columns=("pt",), jet="leading", unit="GeV", log=True,
    ),
    Quantity(
        name="pt_second", title="pT of the second jet", axis=r"Second jet $p_\mathrm{T}$",
        columns=("pt",), jet="second", unit="GeV", log=True,
    ),
    Quantity(name="mjj", title="Dijet mass", axis=r"$m_{jj}$", columns=("mjj",), unit="GeV", log=True),
    Quantity(
        name="m_heavier", title="Mass of the heavier jet", axis=r"Heavier jet $m$",
        columns=("m",), jet="heavier", unit="GeV",
    ),
    Quantity(
        name="m_lighter", title="Mass of the lighter jet", axis=r"Lighter jet $m$",
        columns=("m",), jet="lighter", unit="GeV",
    ),
    Quantity(
        name="n_particles", title="Particles in the event", axis="Particles in the event",
        columns=("n_particles",), whole=True,
    ),
    Quantity(
        name="tau21_heavier", title="tau21 of the heavier jet", axis=r"Heavier jet $\tau_{21}$",
        columns=("tau2", "tau1"), jet="heavier",
    ),
    Quantity(
        name="tau21_lighter", title="tau21 of the lighter jet", axis=r"Lighter jet $\tau_{21}$",
        columns=("tau2", "tau1"), jet="lighter",
    ),
    Quantity(
        name="n_constituents_heavier", title="Constituents of the heavier jet",
        axis="Heavier jet constituents", columns=("n_constituents",), jet="heavier", whole=True,
    ),
)  # fmt: skip


def plan_quantities(schema: pa.Schema) -> tuple[list[Quantity], dict[str, str]]:
    """What can be drawn of events with these columns, and why the rest cannot: a reason by name."""
    of_jet = set(names_of_jet(schema))
    drawn, left_out = [], {}
    for quantity in QUANTITIES:
        there = of_jet if quantity.jet else set(schema.names)
        itself = quantity.name.rpartition("_")[0]  # a ratio may be a column of its own
        if quantity.jet and len(quantity.columns) > 1 and itself in there:
            quantity = replace(quantity, columns=(itself,))  # noqa: PLW2901
        missing = [name for name in quantity.needs if name not in there]
        if missing:
            where = "the jets have" if quantity.jet else "the events have"
            left_out[quantity.name] = f"{quantity.title}: {where} no {' and no '.join(missing)}"
        else:
            drawn.append(quantity)
    return drawn, left_out


def plan_edges(low: float, high: float, *, bins: int, whole: bool) -> Floats:
    """About `bins` equal bins with round edges that cover [low, high]; a count is never cut into less than ones."""
    smallest = 1.0 if whole else 1e-3
    rough = max((high - low) / bins, smallest)
    power = 10.0 ** math.floor(math.log10(rough))
    widths = [factor * power for factor in ((1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10))]
    width = min(widths, key=lambda width: abs(math.log(width / rough)))
    # A quotient may be rounded up to a whole number, and would leave an end uncovered by its last bit.
    first = math.floor(low / width)
    first -= first * width > low
    last = max(math.floor(high / width), first) + 1
    last += last * width <= high
    edges: Floats = width * np.arange(first, last + 1, dtype=np.float64)
    return edges


def read_labels(dataset_dir: Path, n_events: int) -> NDArray[np.int8]:
    """The label of each event (n_events,): 1 signal, 0 background, -1 unknown."""
    labels = np.full(n_events, -1, np.int8)
    for start, batch in _read_batches(dataset_dir, ["label"]):
        labels[start : start + len(batch)] = batch["label"].fill_null(-1).to_numpy()
    return labels


def read_values(dataset_dir: Path, quantity: Quantity, n_events: int) -> Floats:
    """The values of one quantity (n_events,), NaN where an event has none; only its own columns are read."""
    values = np.full(n_events, np.nan)
    wanted = [f"jets.list.element.{name}" if quantity.jet else name for name in quantity.needs]
    for start, batch in _read_batches(dataset_dir, wanted):
        values[start : start + len(batch)] = _compute(batch, quantity)
    return values


def _read_batches(dataset_dir: Path, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches, each with the number of events before it."""
    start = 0
    for batch in read_event_batches(dataset_dir, columns, size=_BATCH):
        yield start, batch
        start += len(batch)


def _compute(batch: pa.RecordBatch, quantity: Quantity) -> Floats:
    if quantity.jet is None:
        columns = [_to_floats(batch[name]) for name in quantity.columns]
    else:
        columns = [_of_jet(batch["jets"], name, quantity.jet) for name in quantity.columns]
    if len(columns) == 1:
        return columns[0]
    above, below = columns
    ratio: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio


def _of_jet(jets: pa.ListArray, column: str, which: WhichJet) -> Floats:
    """A column of one jet of each event (n_events,); the only jet of an event is its leading and heavier one."""
    if which in ("leading", "second"):
        return _at_rank(jets, column, 0 if which == "leading" else 1)
    one, two = (_at_rank(jets, column, rank) for rank in (0, 1))
    swapped = _at_rank(jets, "m", 1) > _at_rank(jets, "m", 0)  # False where a jet is absent
    return np.where(swapped, two, one) if which == "heavier" else np.where(swapped, one, two)


def _at_rank(jets: pa.ListArray, column: str, rank: int) -> Floats:
    offsets = jets.offsets.to_numpy()
    there = np.diff(offsets) > rank
    values = np.full(len(there), np.nan)
    values[there] = _to_floats(jets.values.field(column))[offsets[:-1][there] + rank]
    return values


def _to_floats(column: pa.Array) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
