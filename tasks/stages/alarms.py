"""The watchdog at work: judges what was validated, watches a segment's steps, and answers alarms between segments."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lhcq.config import Act, AlarmKind, TrainConfig
from lhcq.errors import Diverged
from lhcq.records.checkpoints import training_of
from lhcq.records.jobs import Job
from lhcq.records.journal import AlarmLine, RollbackLine, write_line
from lhcq.records.run_state import (
    Alarm,
    Course,
    best_step,
    choose_act,
    current_course,
    go_back,
    read_course,
    write_alarm,
    write_answer,
)
from lhcq.records.specs import TrainSpec
from lhcq.workspace import RunPaths, Workspace

log = logging.getLogger(__name__)


def judge_validations(workspace: Workspace, job: Job, alarms: list[Alarm]) -> None:
    """Judge what has not been judged; alarms that are raised are added to `alarms`."""
    from lhcq.evaluate.checkpoint_review import judge_run

    spec, run_dir = job.spec_of(TrainSpec), workspace.run(job.name)
    judge_run(
        run_dir,
        spec.config,
        last_step=spec.checkpoint_steps[-1],
        on_alarm=lambda alarm: raise_alarm(run_dir, alarm, alarms),
    )


def raise_alarm(run_dir: Path, alarm: Alarm, alarms: list[Alarm]) -> None:
    """Tell an alarm in the run's journal and the worker's log, and add it to `alarms`."""
    write_line(run_dir, AlarmLine(**alarm.model_dump(exclude={"after", "round"})))
    log.warning("%s, step %d: %s: %s (%s)", run_dir.name, alarm.step, alarm.kind, alarm.message, alarm.act)
    alarms.append(alarm)


def begin_segment(run_dir: Path) -> Course:
    """How the segment after the newest checkpoint starts, once an alarm that asks to go back is answered."""
    course = current_course(run_dir)
    if course.demand is None or course.demand.act != "rollback":
        return course
    best = best_step(run_dir)
    answer = go_back(course, course.step if best is None else best)
    line = RollbackLine(step=course.step, origin=answer.origin, rate_factor=answer.rate_factor)
    write_line(run_dir, line)
    write_answer(run_dir, course, answer)
    return read_course(run_dir, course.step)


class SegmentWatch:
    """Watches the steps of one segment that starts from `course`."""

    def __init__(self, run_dir: Path, config: TrainConfig, course: Course, alarms: list[Alarm]) -> None:
        from lhcq.evaluate.watchdog import SegmentSummary, StepWatch

        self.alarms = alarms
        """Alarms that are raised are added to it."""
        self.failure: Diverged | None = None
        """What fails the run, where no policy can help."""
        self.ends_segment = False
        self._diverging = False
        self._run_dir = run_dir
        self._config = config
        self._course = course
        self._step = course.step
        before = None
        if course.origin:
            recorded = training_of(RunPaths(run_dir).checkpoint(course.origin))
            before = SegmentSummary.checked(**recorded) if recorded else None
        self._steps = StepWatch(before)

    def see(self, step: int, loss: float, grad_norm: float) -> None:
        """Take in a step; the first sign of divergence is an alarm, which ends the segment if the policy asks."""
        self._step = step
        fault = self._steps.see(loss, grad_norm)
        if fault is not None and not self._diverging:
            self._diverging = True
            self.ends_segment = self._raise("divergence", step, fault) != "tell"

    @contextlib.contextmanager
    def refused_numbers(self) -> Iterator[None]:
        """Turn a loss that is no number into an alarm, with the failure of the run where no act can follow."""
        try:
            yield
        except Diverged as error:
            fault, _, _ = str(error).partition(". ")  # what follows is advice to who has no policy
            if self._raise("nan", self._step + 1, fault) == "tell":
                self.failure = error

    def summary(self) -> dict[str, Any]:
        """What the checkpoint's manifest keeps of the segment's steps."""
        found = self._steps.summary()
        return {"training": found.model_dump()} if found else {}

    def _raise(self, kind: AlarmKind, step: int, message: str) -> Act:
        act = choose_act(kind, self._config, self._course)
        alarm = Alarm(
            kind=kind, step=step, after=self._course.step, round=self._course.round, message=message, act=act
        )
        raise_alarm(self._run_dir, alarm, self.alarms)
        write_alarm(self._run_dir, alarm)
        return act
