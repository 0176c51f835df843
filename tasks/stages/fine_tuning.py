"""The language model of a search or a scan: trained anew for each region, seed and fold, to score the fold and be
forgotten."""

import logging
import time
from typing import TYPE_CHECKING

from lhcq.records.jobs import Job
from lhcq.records.specs import FineTuning, Template
from lhcq.workspace import Workspace
from tasks.jobs.leases import Lease
from tasks.observe.tracing import note_span
from tasks.stages.model import model_of_job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lhcq.evaluate.weak import Region, WeakEvents
    from lhcq.model.base import Base
    from lhcq.model.loop import StepRecord

log = logging.getLogger(__name__)

_TELL_EVERY_SECONDS = 30.0


class FineTuned:
    """Scores a fold by an adapter that was trained on the others: a `ScoreFold`.

    Prompts are what `lhcq prepare` would write of the same events: a template has nothing that is fitted to them, so
    there is nothing that the events of one fold could tell of another's.
    """

    def __init__(
        self, workspace: Workspace, job: Job, tuning: FineTuning, template: Template, held: Lease
    ) -> None:
        self._workspace = workspace
        self._job = job
        self._tuning = tuning
        self._template = template
        self._held = held

    def __call__(
        self, events: "WeakEvents", region: "Region", sideband: float, *, fold: int, seed: int
    ) -> "NDArray[np.float64]":
        """P(region) of the events of one fold; raises `BadInput` where there are too few to learn from."""
        with model_of_job(self._workspace, self._job, self._tuning, self._held) as base:
            return self._score(base, events, region, sideband, fold=fold, seed=seed)

    def _score(
        self, base: "Base", events: "WeakEvents", region: "Region", sideband: float, *, fold: int, seed: int
    ) -> "NDArray[np.float64]":
        import numpy as np

        from lhcq.evaluate.weak import drawn_rows
        from lhcq.model.loop import train_whole
        from lhcq.model.plan import plan_run
        from lhcq.model.ranks import ranks_here
        from lhcq.model.score import score_attached

        config = self._tuning.config.model_copy(update={"seed": seed})
        drawn, labels = drawn_rows(events, region, sideband, fold=fold, seed=seed)
        prompts = self._prompts(events, drawn)
        told = _Progress(self._held, plan_run(len(prompts), config).total_steps)
        train_whole(
            base, prompts=prompts, labels=labels, config=config, on_step=told.on_step, ranks=ranks_here()
        )
        self._held.check()
        note_span(steps=told.steps)
        base.adapter.graphs.clear()  # their memory is wanted for scoring
        scores = score_attached(
            base,
            self._prompts(events, np.flatnonzero(events.folds == fold)),
            config.max_tokens,
            batch_size=config.evaluation_batch,
            on_batch=told.on_batch,
        )
        return scores.p_signal

    def _prompts(self, events: "WeakEvents", places: "NDArray[np.int64]") -> list[str]:
        from lhcq.prompts.templates import render_features

        columns = zip(self._template.columns, events.values[places].T, strict=True)
        return render_features(self._template, dict(columns))


class _Progress:
    """Tells the log how far a training is, now and then, and notices when it is not to go on."""

    def __init__(self, held: Lease, steps: int) -> None:
        self.steps = steps
        self._held = held
        self._told = time.monotonic()

    def on_step(self, record: "StepRecord") -> bool:
        """Whether to go on; the first step and the last are told in any case."""
        if record.step in (1, self.steps) or self._is_time():
            log.info(
                "step %d of %d, loss %.4f, %.0f prompts/s",
                record.step,
                self.steps,
                record.loss,
                record.samples_per_second,
            )
        return not self._held.lost

    def on_batch(self, done: int) -> None:
        """Tell how many events are scored; raises `LeaseLost`."""
        self._held.check()
        if self._is_time():
            log.info("%d events scored", done)

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self._told < _TELL_EVERY_SECONDS:
            return False
        self._told = now
        return True
