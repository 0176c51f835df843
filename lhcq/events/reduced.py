"""The arrays that CATHODE and sk_cathode make of features files: five numbers an event, and the label.

An array of shape (n, 6), in a `.npy` file: m_jj, the mass of the lighter jet, how much heavier the other is (all in
TeV), tau2/tau1 of the lighter jet, that of the heavier one, and 1 for signal or 0 for background. With (n, 7) the
distance of both jets in eta and phi stands before the label. Nothing in such a file says so, hence the checks of the
values.
Sources: run_data_preparation_LHCORD.py of github HEPML-AnomalyDetection/CATHODE, and demos/utils/data_preparation.py
of github uhh-pd-ml/sk_cathode.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lhcq.errors import BadInput

_OF_EVENT = ("mjj", "m_light", "m_apart", "tau21_light", "tau21_heavy")
REDUCED = (*_OF_EVENT, "delta_r")
"""Names of the columns, for want of any in the file; `delta_r` is not in all."""
REDUCED_WIDTHS = (6, 7)
"""Without and with `delta_r`, and the label."""
_GEV = 1000.0  # in a TeV
_WITHIN = {
    "mjj": (50.0, 100e3),
    "m_light": (0.0, 100e3),
    "m_apart": (0.0, 100e3),
    "tau21_light": (0.0, 2.0),
    "tau21_heavy": (0.0, 2.0),
    "delta_r": (0.0, 20.0),
}
"""What each can be, GeV: an order of columns, or a unit, that is another one lies outside in most events."""


def to_gev(columns: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The columns (n,) as they stand in a file, masses in GeV."""
    return {
        name: _GEV * column if name in ("mjj", "m_light", "m_apart") else column
        for name, column in columns.items()
    }


def check_reduced(values: dict[str, NDArray[np.float64]], path: Path, first_row: int) -> None:
    """Raise `BadInput` naming the first row with a value that its column cannot have; masses in GeV."""
    for name, (low, high) in _WITHIN.items():
        column = values.get(name, np.zeros(0))
        wrong = ~((column >= low) & (column <= high))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise BadInput(
                f"{path}: row {first_row + row}: {column[row]:g} is no {name}. An array of 6 or 7 columns is read as "
                "CATHODE has it: m_jj, mass of the lighter jet, difference of the masses (TeV), tau21 of the lighter "
                "and the heavier jet[, their distance], label."
            )
