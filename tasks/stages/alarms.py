"""The watchdog at work: judges what was validated, watches a segment's steps, and answers alarms between segments."""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lhcq.config import Act, TrainConfig
from lhcq.errors import Diverged
from lhcq.records.jobs import Job
from lhcq.records.run_state import (
    Alarm,
    AlarmKind,
    Course,
    choose_act,
    go_back,
    read_course,
    write_alarm,
    write_answer,
)
from lhcq.records.specs import TrainSpec
from lhcq.storage import MANIFEST, append_line, read_json
from lhcq.workspace import Workspace

log = logging.getLogger(__name__)


def judge_validations(place: Workspace, job: Job, alarms: list[Alarm]) -> None:
    """Judge what has not been judged; alarms that are raised are added to `alarms`."""
    from lhcq.evaluate.checkpoint_review import judge_run

    spec, run_dir = job.spec_of(TrainSpec), place.run(job.name)
    judge_run(
        run_dir,
        spec.config,
        last_step=spec.checkpoint_steps[-1],
        on_alarm=lambda alarm: raise_alarm(run_dir, alarm, alarms),
    )


def raise_alarm(run_dir: Path, alarm: Alarm, alarms: list[Alarm]) -> None:
    """Tell an alarm in the run's journal and the worker's log, and add it to `alarms`."""
    line = alarm.model_dump(exclude={"after", "round"})
    append_line(run_dir / "events.jsonl", {"event": "alarm", "time": time.time(), **line})
    log.warning("%s, step %d: %s: %s (%s)", run_dir.name, alarm.step, alarm.kind, alarm.message, alarm.act)
    alarms.append(alarm)


def begin_segment(run_dir: Path, step: int) -> Course:
    """How the segment after checkpoint `step` starts, once an alarm that asks to go back is answered."""
    from lhcq.evaluate.validation import best_step

    course = read_course(run_dir, step)
    if course.demand is None or course.demand.act != "rollback":
        return course
    best = best_step(run_dir)
    answer = go_back(course, step if best is None else best)
    line = {"step": step, "origin": answer.origin, "rate_factor": answer.rate_factor}
    append_line(run_dir / "events.jsonl", {"event": "rollback", "time": time.time(), **line})
    write_answer(run_dir, course, answer)
    return read_course(run_dir, step)


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
            path = run_dir / "checkpoints" / f"{course.origin:08d}" / MANIFEST
            recorded = read_json(path).get("training")
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
