"""A run as its page, its tables and its plots see it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.records.metrics import CalibratedMetrics, Metrics
from lhcq.records.run_state import Alarm, Answer, Judgement
from lhcq.records.validations import Baseline, Evaluation


@dataclass(frozen=True, kw_only=True)
class History:
    """What the trainer logged; arrays of shape `(n_steps,)` in order of step, NaN where nothing was logged."""

    steps: NDArray[np.int64]
    loss: NDArray[np.float64]
    learning_rate: NDArray[np.float64]
    samples_per_second: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One planned, written or validated checkpoint."""

    step: int
    written: bool
    train_loss: float | None
    """Mean training loss since the checkpoint before."""
    metrics: Metrics | None
    """On the validation subset; None until it is validated."""
    judgement: Judgement | None = None
    """McNemar's test against the best checkpoint before; None until it is judged."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as a report sees it."""

    name: str
    state: str
    """queued, training, paused, done, failed, incomplete or cancelled."""
    message: str
    created: float | None
    """Seconds since the epoch."""
    finished: float | None
    model: str
    split: str
    total_steps: int | None
    config: dict[str, Any]
    history: History
    checkpoints: tuple[Checkpoint, ...]
    best_step: int | None
    """The best on validation, by AUC or by NLL as the run asks: the rule by which the tested checkpoint is chosen."""
    alarms: tuple[tuple[Alarm, Answer | None], ...]
    """What the watchdog saw, in order of place, each with what followed in the end."""
    validation: Evaluation | None
    """The best checkpoint on the validation subset."""
    test: Evaluation | None
    """The checkpoint that was chosen when training ended, on the test subset."""
    calibrated: CalibratedMetrics | None
    """The tested checkpoint under temperature and thresholds of the calibration subset."""
    baseline: Baseline
    """The boosted trees of the split."""
    manifest: dict[str, Any] | None
    """The split's; None when the split was removed, or made again of other events."""
    replaced: str
    """What is left out since the split of that name is another by now, in a sentence; empty where it is not."""
    masses: dict[str, NDArray[np.float64]] | None
    """GeV, shape `(n,)` each, in the order of the rows of `shown`; NaN where a jet is absent."""
    versions: dict[str, str]
    """Of what trained the checkpoints, where their manifests say."""

    @property
    def shown(self) -> Evaluation | None:
        """What the plots of events show: the test subset once it is scored, else validation."""
        return self.test or self.validation

    @property
    def shown_subset(self) -> str:
        """Which subset `shown` is."""
        return "test" if self.test else "validation"
