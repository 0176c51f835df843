"""What each validation means among those before it: alarms, McNemar's test, whether to stop early."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lhcq.config import AlarmKind, TrainConfig
from lhcq.errors import BadInput
from lhcq.evaluate.mcnemar import compare_decisions
from lhcq.evaluate.metrics import PROBABILITY_FLOOR
from lhcq.evaluate.watchdog import find_collapse, find_overfitting, find_unknown
from lhcq.records.metrics import Metrics
from lhcq.records.run_state import (
    Alarm,
    Judgement,
    best_of,
    choose_act,
    committed_steps,
    read_course,
    read_judgement,
    validated_steps,
    write_alarm,
    write_judgement,
)
from lhcq.records.scores import Scores
from lhcq.records.validations import loss_of_training, read_metrics, read_validation_scores
from lhcq.workspace import RunPaths


def judge_run(
    run_dir: Path, config: TrainConfig, *, last_step: int, on_alarm: Callable[[Alarm], None]
) -> None:
    """Judge each validation that has not been judged, in order of step, as far as all before it are there.

    So a judgement is a function of the validations up to its step, whoever makes it and when. `on_alarm` is called
    before the record is committed: it hears of each alarm at least once. After `last_step` nothing can follow.
    """
    validated = validated_steps(run_dir)
    for step in sorted({*committed_steps(run_dir), *validated}):
        if step not in validated:
            return
        if read_judgement(run_dir, step) is None:
            judgement, alarms = judge_step(run_dir, [one for one in validated if one <= step], config)
            for found in alarms:
                alarm = found if step < last_step else found.model_copy(update={"act": "tell"})
                on_alarm(alarm)
                write_alarm(run_dir, alarm)
            write_judgement(run_dir, judgement)


def judge_step(run_dir: Path, steps: list[int], config: TrainConfig) -> tuple[Judgement, list[Alarm]]:
    """The judgement of the last of the validated `steps` (rising), and its alarms."""
    *before, step = steps
    best, previous = best_of(run_dir, steps), best_of(run_dir, before)
    found = _faults(run_dir, step, before, previous)
    alarms = [
        _alarm(run_dir, kind, step, message, best, config) for kind, message in found.items() if message
    ]
    test = None
    if previous is not None:
        this, other = _scores(run_dir, step), _scores(run_dir, previous)
        _refuse_other_events(run_dir, step, this, other)
        test = compare_decisions(this.right, other.right)
    return (
        Judgement(
            step=step,
            best=best or step,
            previous_best=previous,
            only_this_right=test.only_first if test else None,
            only_previous_right=test.only_second if test else None,
            p_value=test.p_value if test else None,
            stop=_reason_to_stop(steps, best or step, config),
        ),
        alarms,
    )


def _faults(run_dir: Path, step: int, before: list[int], previous: int | None) -> dict[AlarmKind, str | None]:
    metrics = _metrics(run_dir, step)
    lowest = min(before, key=lambda one: (_metrics(run_dir, one).nll, one), default=None)
    return {
        "collapse": find_collapse(metrics),
        "unknown": find_unknown(metrics, _metrics(run_dir, previous) if previous is not None else None),
        "overfitting": _overfitting(run_dir, step, lowest) if lowest is not None else None,
    }


def _overfitting(run_dir: Path, step: int, lowest: int) -> str | None:
    now, then = _metrics(run_dir, step), _metrics(run_dir, lowest)
    if now.nll <= then.nll:
        return None
    this, other = _scores(run_dir, step), _scores(run_dir, lowest)
    _refuse_other_events(run_dir, step, this, other)
    difference = _nll(this) - _nll(other)
    return find_overfitting(
        nll=now.nll,
        lowest_nll=then.nll,
        rise_error=float(difference.std() / math.sqrt(difference.size)),
        train_loss=_train_loss(run_dir, step),
        train_loss_then=_train_loss(run_dir, lowest),
    )


def _alarm(
    run_dir: Path, kind: AlarmKind, step: int, message: str, best: int | None, config: TrainConfig
) -> Alarm:
    act = choose_act(kind, config, read_course(run_dir, step))
    if act == "rollback" and best == step:  # nothing better to go back to
        act = "tell"
    return Alarm(kind=kind, step=step, after=step, message=message, act=act)


def _reason_to_stop(steps: list[int], best: int, config: TrainConfig) -> str:
    since = len(steps) - 1 - steps.index(best)
    if config.patience is None or since < config.patience:
        return ""
    return f"no better checkpoint by validation {config.select.upper()} in {since} after step {best}"


def _metrics(run_dir: Path, step: int) -> Metrics:
    return read_metrics(RunPaths(run_dir).validation(step))


def _scores(run_dir: Path, step: int) -> Scores:
    return read_validation_scores(RunPaths(run_dir).validation(step))


def _train_loss(run_dir: Path, step: int) -> float | None:
    return loss_of_training(RunPaths(run_dir).validation(step))


def _nll(scores: Scores) -> NDArray[np.float64]:
    clipped = np.clip(scores.p_signal, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return -np.log(np.where(scores.labels == 1, clipped, 1 - clipped))


def _refuse_other_events(run_dir: Path, step: int, this: Scores, other: Scores) -> None:
    if not np.array_equal(this.rows, other.rows):
        raise BadInput(
            f"{RunPaths(run_dir).validation(step)}: is on other events than the run's earlier validations, "
            "though on the same split. Move it elsewhere; it will be made again."
        )
