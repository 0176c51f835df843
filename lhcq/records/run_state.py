"""How a run goes on from its newest checkpoint: alarms, and what was answered to them, as records in the workspace.

An act on an alarm is taken between segments, and must come out the same whoever takes it, however often its message
is delivered and wherever a trainer dies. So each is a record that the first commit decides, named after the place
where it holds: the newest checkpoint, and the round there, which is the number of answers given there before.

    alarms/00000400-00-collapse.json    at checkpoint 400, round 0: what was seen, and what follows by policy
    answers/00000400-00.json            what did follow: back to which checkpoint, and the learning rate from there

The count of steps never goes back. Going back to checkpoint 200 at step 400 means that the segment from 400 to 600
starts with the weights and the optimizer of 200, at a lower rate, on the rows of steps 401 to 600. So no checkpoint
or validation is ever superseded, a name keeps its meaning, and what a late trainer commits is at worst one more
candidate. Everything that a segment depends on is a function of its first step and of the answers up to there.

Between an alarm and its answer a death costs nothing: the alarm stands without an answer, and the next segment starts
by answering it. Between the answer and the next checkpoint neither: the segment is begun again with the same answer.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from lhcq.config import Act, AlarmKind, TrainConfig
from lhcq.frozen import Frozen, Kept
from lhcq.records.commits import steps_under
from lhcq.records.jobs import read_as, read_record
from lhcq.records.specs import TrainSpec
from lhcq.records.validations import read_metrics
from lhcq.storage import staged_file, to_record
from lhcq.workspace import RunPaths, round_of, step_of

MAX_ROLLBACKS = 3
"""A run that has gone back so often is not saved by a fourth time: its training ends."""

RATE_FACTOR = 0.3
"""Each going back multiplies the learning rate by this: three of them cover a rate that is 37 times too high."""

_SEVERITY: dict[Act, int] = {"stop": 0, "pause": 1, "rollback": 2, "tell": 3}


class Alarm(Kept):
    """Something about a run that people should know."""

    kind: AlarmKind
    step: int
    """The optimizer step, or the validated checkpoint, where it was seen."""
    after: int
    """The newest checkpoint then, where the act takes hold; 0 before the first."""
    round: int = 0
    message: str
    act: Act
    """What follows."""


class Answer(Frozen):
    """What followed an alarm: `resume` goes on as before, `rollback` goes back."""

    answer: Literal["resume", "rollback"]
    origin: int
    """The checkpoint with whose state the next segment starts."""
    rate_factor: float = Field(gt=0, le=1)
    """Of the learning rate from there on, all earlier answers included."""
    rollbacks: int = 0
    """How often the run has gone back, this time included."""


class Judgement(Kept):
    """What a validation means among those before it. A pure function of the validations up to its step."""

    step: int
    best: int
    """The best checkpoint so far."""
    previous_best: int | None
    """The best of those before; None for the first."""
    only_this_right: int | None
    only_previous_right: int | None
    """Events on which one of the two was right and the other was not."""
    p_value: float | None
    """McNemar's test of the two on the same events."""
    stop: str
    """Why training should end early; empty where it should not."""


class Course(Frozen):
    """How the segment after the checkpoint `step` starts, or why there is none."""

    step: int
    round: int
    origin: int
    rate_factor: float
    rollbacks: int
    resumed: bool
    """A person has let the run go on from here, whatever was seen."""
    demand: Alarm | None
    """The gravest alarm here that has no answer yet and asks for an act."""
    stop: str
    """Why training ends here; empty where it does not."""

    @property
    def paused(self) -> bool:
        """Whether a person has to say how it goes on; not where training ends here, whatever else was seen."""
        return self.demand is not None and self.demand.act == "pause" and not self.stop

    def ends(self, last_step: int) -> bool:
        """Whether no segment follows, in a run whose last planned step is `last_step`."""
        return bool(self.stop) or self.step >= last_step


def committed_steps(run_dir: Path) -> list[int]:
    """Steps of the run whose checkpoint is committed and was not removed, ascending."""
    return steps_under(RunPaths(run_dir).checkpoints)


def validated_steps(run_dir: Path) -> list[int]:
    """Steps of the run whose validation is committed, ascending."""
    return steps_under(RunPaths(run_dir).validations)


def reached_step(run_dir: Path) -> int:
    """The newest checkpoint that a run has committed; 0 before the first."""
    return max(committed_steps(run_dir), default=0)


def best_step(run_dir: Path) -> int | None:
    """The validated step with the best metric on the validation subset; None before the first validation.

    By default that is the AUC, because it needs no threshold; the run's configuration may ask for the likelihood
    instead. Ties go to the higher accuracy, then to the earlier step. Where the AUC is undefined the accuracy alone
    decides. The test subset has no say.
    """
    return best_of(run_dir, validated_steps(run_dir))


def best_of(run_dir: Path, steps: Iterable[int]) -> int | None:
    """The best of these validated steps, as `best_step` chooses."""
    by_nll = selection_of(run_dir) == "nll"
    return min(steps, key=lambda step: _preference(run_dir, step, by_nll=by_nll), default=None)


def selection_of(run_dir: Path) -> str:
    """By which metric the run chooses: `auc` or `nll`."""
    try:
        return read_record(run_dir).spec_of(TrainSpec).config.select
    except FileNotFoundError:
        return "auc"


def _preference(run_dir: Path, step: int, *, by_nll: bool) -> tuple[float, float, int]:
    """Sorts the best step first."""
    metrics = read_metrics(RunPaths(run_dir).validation(step))
    if by_nll:
        return (metrics.nll, -metrics.accuracy, step)
    return (-metrics.auc if metrics.auc is not None else 0.0, -metrics.accuracy, step)


def current_course(run_dir: Path) -> Course:
    """The course after the newest checkpoint that the run has."""
    return read_course(run_dir, reached_step(run_dir))


def read_course(run_dir: Path, step: int) -> Course:
    """The course after the newest checkpoint `step` (0: none), from a few small files."""
    answers = [path for path in _records(RunPaths(run_dir).answers) if step_of(path) <= step]
    last = read_as(Answer, answers[-1]) if answers else None
    here = sum(step_of(path) == step for path in answers)
    demand = _gravest(_alarms_at(run_dir, step, here))
    judgement = read_judgement(run_dir, step)
    stop = judgement.stop if judgement else ""
    if demand is not None and demand.act == "stop":
        stop = demand.message
    return Course(
        step=step,
        round=here,
        origin=last.origin if last is not None and here else step,
        rate_factor=last.rate_factor if last else 1.0,
        rollbacks=last.rollbacks if last else 0,
        resumed=bool(last and here and last.answer == "resume"),
        demand=demand,
        stop=stop,
    )


def choose_act(kind: AlarmKind, config: TrainConfig, course: Course) -> Act:
    """What follows an alarm in a segment from `course`, by the run's policy.

    Without a checkpoint there is nothing to go back to or to end with, so training goes on, unless it cannot.
    """
    wanted: Act = getattr(config, f"on_{kind}")
    if course.resumed or (course.step == 0 and wanted in ("rollback", "stop")):
        return "tell"
    return "stop" if wanted == "rollback" and course.rollbacks >= MAX_ROLLBACKS else wanted


def go_back(course: Course, best: int) -> Answer:
    """The answer to an alarm that asks to go back: the best checkpoint, at a lower rate."""
    return Answer(
        answer="rollback",
        origin=best,
        rate_factor=course.rate_factor * RATE_FACTOR,
        rollbacks=course.rollbacks + 1,
    )


def go_on(course: Course) -> Answer:
    """The answer of a person who resumes a run that an alarm has paused."""
    return Answer(
        answer="resume", origin=course.origin, rate_factor=course.rate_factor, rollbacks=course.rollbacks
    )


def write_alarm(run_dir: Path, alarm: Alarm) -> None:
    """Record an alarm; the first one of its kind at its place stands."""
    _commit(RunPaths(run_dir).alarm(alarm.after, alarm.round, alarm.kind), alarm)


def write_answer(run_dir: Path, course: Course, answer: Answer) -> None:
    """Record what follows the open alarm of `course`; the first answer stands."""
    _commit(RunPaths(run_dir).answer(course.step, course.round), answer)


def write_judgement(run_dir: Path, judgement: Judgement) -> None:
    """Record a judgement; the first one stands, and equals any other."""
    _commit(RunPaths(run_dir).judgement(judgement.step), judgement)


def read_judgement(run_dir: Path, step: int) -> Judgement | None:
    """The judgement of a checkpoint's validation; None before it was made."""
    path = RunPaths(run_dir).judgement(step)
    return read_as(Judgement, path) if path.exists() else None


def alarms_of(run_dir: Path) -> list[Alarm]:
    """All alarms of a run, in order of place."""
    return [read_as(Alarm, path) for path in _records(RunPaths(run_dir).alarms)]


def answer_to(run_dir: Path, alarm: Alarm) -> Answer | None:
    """What followed an alarm in the end; None where nothing has."""
    path = RunPaths(run_dir).answer(alarm.after, alarm.round)
    return read_as(Answer, path) if path.exists() else None


def open_pause(run_dir: Path) -> Alarm | None:
    """The alarm for which a run is paused; None where a person has answered it, or there is none.

    Cheap enough for each step: the checkpoints are looked at only while an alarm of the last place may ask for it.
    """
    paths = _records(RunPaths(run_dir).alarms)
    if not paths:
        return None
    step, at_round = step_of(paths[-1]), round_of(paths[-1])
    demand = _gravest(_alarms_at(run_dir, step, at_round))
    if demand is None or demand.act != "pause" or RunPaths(run_dir).answer(step, at_round).exists():
        return None
    course = current_course(run_dir)
    return course.demand if course.paused else None


def _alarms_at(run_dir: Path, step: int, at_round: int) -> list[Alarm]:
    start = RunPaths(run_dir).alarm(step, at_round, "").stem
    return [read_as(Alarm, path) for path in _records(RunPaths(run_dir).alarms, start)]


def _gravest(alarms: list[Alarm]) -> Alarm | None:
    asking = [alarm for alarm in alarms if alarm.act != "tell"]
    return min(asking, key=lambda alarm: _SEVERITY[alarm.act], default=None)


def _records(directory: Path, start: str = "[0-9]") -> list[Path]:
    return sorted(directory.glob(f"{start}*.json"))


def _commit(path: Path, record: Frozen) -> None:
    with staged_file(path) as temporary:
        temporary.write_text(to_record(record.model_dump()), encoding="utf-8")
