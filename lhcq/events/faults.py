"""What can be wrong with the values of an event file, found without stopping at the first one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

QUANTITIES = ("pt", "eta", "phi")
N_VALUES = 2100  # of a row: 700 particles
# Far beyond any collider's particles, and far below where momenta overflow and FastJet clusters infinities. In eta no
# farther than doubles reach: of E - pz, which is pt exp(-eta), E leaves few digits, and m_jj would err by 1e-3.
ETA_MAX = 15.0
PT_MAX = 1e9
NOT_A_NUMBER, NEGATIVE_PT = "not a number", "negative pt"
WRONG_LABEL = "a label that is neither 0 nor 1"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault in a range of rows: the first place of it, and how many rows have it."""

    kind: str
    row: int
    place: str
    value: float
    n_rows: int

    def describe(self) -> str:
        """One line for people."""
        return f"row {self.row}, {self.place}: {self.kind} ({self.value:g})."

    @property
    def remedy(self) -> str:
        """What to do about it, after `describe`; empty where there is nothing but to leave the row out."""
        if self.kind == WRONG_LABEL and float(self.value).is_integer():
            return (
                f" If {self.value:g} is a second signal, `--label-map {self.value:g}=1` reads it so "
                f"(`{self.value:g}=0`: as background)."
            )
        marks = self.kind == NOT_A_NUMBER or (self.kind == NEGATIVE_PT and float(self.value).is_integer())
        if marks and self.place.startswith("pt of "):
            return f" If that marks places without a particle, `--padding {self.value:g}` reads it so."
        return ""

    def describe_all(self) -> str:
        """One line for people that also counts the rows."""
        rows = "1 row" if self.n_rows == 1 else f"{self.n_rows} rows"
        return f"{self.describe()[:-1]}, {rows} in all.{self.remedy}"

    def joined(self, later: "Fault") -> "Fault":
        """This one, which came first, with the rows of both."""
        return replace(self, n_rows=self.n_rows + later.n_rows)


def find_faults(values: NDArray[np.float64], *, first_row: int) -> list[Fault]:
    """The faults of `values` (n, 2100 or 2101), the rows from `first_row` on, in the order of their first row."""
    from lhcq.events.soundness import count_particles

    if count_particles(values) is not None:
        return []
    return sorted(_each_fault(values, first_row), key=lambda fault: fault.row)


def _each_fault(values: NDArray[np.float64], first_row: int) -> Iterator[Fault]:
    particles = values[:, :N_VALUES]
    column = np.arange(N_VALUES) % 3
    with np.errstate(invalid="ignore"):
        masks = {
            NOT_A_NUMBER: np.isnan(particles),
            "infinite": np.isinf(particles),
            NEGATIVE_PT: (particles < 0) & np.isfinite(particles) & (column == 0),
            f"pt above {PT_MAX:g} GeV": (particles > PT_MAX) & np.isfinite(particles) & (column == 0),
            f"|eta| above {ETA_MAX:g}": (np.abs(particles) > ETA_MAX)
            & np.isfinite(particles)
            & (column == 1),
        }
    for kind, mask in masks.items():
        if mask.any():
            row, place = np.argwhere(mask)[0]
            yield Fault(
                kind=kind,
                row=first_row + int(row),
                place=f"{QUANTITIES[place % 3]} of particle {place // 3}",
                value=float(particles[row, place]),
                n_rows=int(mask.any(axis=1).sum()),
            )
    if values.shape[1] > N_VALUES:
        wrong = ~np.isin(values[:, N_VALUES], (0.0, 1.0))
        if wrong.any():
            row = int(np.argmax(wrong))
            yield Fault(
                kind=WRONG_LABEL,
                row=first_row + row,
                place=f"column {N_VALUES}",
                value=float(values[row, N_VALUES]),
                n_rows=int(wrong.sum()),
            )
