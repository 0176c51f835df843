"""What each threshold keeps of signal and background, by counting alone.

scikit-learn's functions for a few hundred events check their arguments for ten times as long as they count.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def roc_curve(labels: NDArray[np.integer], score: Floats) -> tuple[Floats, Floats, Floats]:
    """Efficiencies of background and of signal and their thresholds, `(n_thresholds,)` each, from the highest down.

    Of `(n,)` labels (1 signal) of both classes and scores; the first threshold is infinite and keeps nothing.
    """
    order = np.argsort(-score)
    falling = score[order]
    last = np.append(np.flatnonzero(np.diff(falling)), falling.size - 1)  # of each group of equal scores
    signal = np.append(0, np.cumsum(labels[order] == 1)[last])
    background = np.append(0, last + 1) - signal
    return background / background[-1], signal / signal[-1], np.append(np.inf, falling[last])
