"""Everything a report shows of a run, read from the records in the workspace.

A run may be looked at while it is under way: what is not there yet is None, and nothing here waits for it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lhcq.commits import committed_steps, digests_of, is_commit, read_verified
from lhcq.errors import BadInput, NotThere
from lhcq.storage import MANIFEST, read_json
from lhcq.workspace import Workspace

_REPLACED = (
    "The split {!r} has been made again of other events since, so boosted trees, jet masses and whatever else is of "
    "today's split are left out here. The run's own figures are those of the events that it was made of."
)
MASSES = ("mjj", "m_heavy", "m_light")
"""Columns of a split that a report draws, GeV."""


@dataclass(frozen=True, kw_only=True)
class History:
    """What the trainer logged; arrays of shape `(n_steps,)` in order of step, NaN where nothing was logged."""

    steps: NDArray[np.int64]
    loss: NDArray[np.float64]
    learning_rate: NDArray[np.float64]
    samples_per_second: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One classifier on one part of the split."""

    step: int | None
    """The checkpoint's step; None for the boosted trees."""
    figures: dict[str, Any]
    rows: NDArray[np.int64]
    labels: NDArray[np.int8]
    p_signal: NDArray[np.float64]
    unknown: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One planned, written or validated checkpoint."""

    step: int
    written: bool
    train_loss: float | None
    """Mean training loss since the checkpoint before."""
    figures: dict[str, Any] | None
    """On the validation part; None until it is validated."""
    judgement: dict[str, Any] | None = None
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
    """The best on validation, by AUC or by NLL as the run asks; ties by accuracy, then the earlier step: the rule by
    which the tested checkpoint is chosen."""
    alarms: tuple[dict[str, Any], ...]
    """What the watchdog saw, in order of place, each with what followed."""
    validation: Evaluation | None
    """The best checkpoint on the validation part."""
    test: Evaluation | None
    """The checkpoint that was chosen when training ended, on the test part."""
    calibrated: dict[str, Any] | None
    """The tested checkpoint under temperature and thresholds of the calibration part."""
    baseline_validation: Evaluation | None
    baseline_test: Evaluation | None
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
        """What the plots of events show: the test part once it is scored, else validation."""
        return self.test or self.validation

    @property
    def shown_part(self) -> str:
        """Which part `shown` is."""
        return "test" if self.test else "validation"

    @property
    def shown_baseline(self) -> Evaluation | None:
        """The boosted trees on the part that is shown."""
        return self.baseline_test if self.test else self.baseline_validation


def collect_run(workspace: Workspace, run: str) -> RunView:
    """The view of a run; `NotThere` when there is no such run, `BadInput` when a record is damaged."""
    directory = workspace.run(run)
    try:
        job = read_json(directory / "job.json")
    except FileNotFoundError:
        raise NotThere(
            f"run {run!r} does not exist in {workspace.root}. `lhcq status` lists what does."
        ) from None
    spec: dict[str, Any] = job["spec"]
    events = read_events(directory / "events.jsonl")
    history = history_of(events)
    checkpoints = _checkpoints(directory, spec, events, history)
    best = choose_best(checkpoints, select=spec.get("config", {}).get("select", "auc"))
    test = _evaluation(directory / "test")
    validation = _evaluation(workspace.validation(run, best)) if best is not None else None
    baseline = workspace.baseline(spec["split"])
    split = workspace.split(spec["split"])
    manifest = _manifest_of(split, spec)
    replaced = manifest is None and (split / MANIFEST).is_file()
    shown = test or validation
    outcome = _optional(directory / "outcome.json")
    return RunView(
        name=run,
        state=_state(directory, outcome, history),
        message=outcome.get("message", ""),
        created=job.get("created"),
        finished=outcome.get("finished"),
        model=str(spec.get("model", "unknown")),
        split=spec["split"],
        total_steps=spec.get("total_steps"),
        config=dict(spec.get("config", {})),
        history=history,
        checkpoints=checkpoints,
        best_step=best,
        alarms=alarms_of(directory),
        calibrated=_optional(directory / "calibrated.json") or None,
        validation=validation,
        test=test,
        baseline_validation=_baseline(baseline, "validation", spec, manifest),
        baseline_test=_baseline(baseline, "test", spec, manifest),
        manifest=manifest,
        replaced=_REPLACED.format(split.name) if replaced else "",
        masses=_masses(split, "test" if test else "validation", shown) if manifest else None,
        versions=_versions(workspace, run, checkpoints),
    )


def _manifest_of(split: Path, spec: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the split that the run was made of; None where another stands under its name, or none."""
    if not (split / MANIFEST).is_file():
        return None
    manifest = read_verified(split, what=f"split {split.name!r}", remedy="Make it with `lhcq prepare`.")
    return manifest if digests_of(manifest) == spec.get("split_sha256") else None


def choose_best(checkpoints: Iterable[Checkpoint], *, select: str = "auc") -> int | None:
    """The step with the highest AUC, or the lowest NLL, on validation; ties by accuracy, then the earlier step."""
    validated = [(one.figures, one.step) for one in checkpoints if one.figures is not None]
    if not validated:
        return None
    return min(validated, key=lambda pair: _preference(pair[0], pair[1], select))[1]


def _preference(figures: dict[str, Any], step: int, select: str) -> tuple[float, float, int]:
    """Sorts the best first."""
    auc = figures["auc"]
    first = figures["nll"] if select == "nll" else -auc if auc is not None else 0.0
    return (first, -figures["accuracy"], step)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line that is still being written is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise BadInput(f"{path}: line {number} is not JSON ({error}). Remove that line.") from error
    return events


def history_of(events: Iterable[dict[str, Any]]) -> History:
    """The training by step. A step that was repeated after a crash counts as it went the last time."""
    by_step = {int(event["step"]): event for event in events if event.get("event") == "step"}
    steps = sorted(by_step)

    def column(name: str) -> NDArray[np.float64]:
        return np.array([_number(by_step[step].get(name)) for step in steps], dtype=np.float64)

    return History(
        steps=np.array(steps, dtype=np.int64),
        loss=column("loss"),
        learning_rate=column("learning_rate"),
        samples_per_second=column("samples_per_second"),
    )


def _checkpoints(
    directory: Path, spec: dict[str, Any], events: list[dict[str, Any]], history: History
) -> tuple[Checkpoint, ...]:
    written = {int(event["step"]) for event in events if event.get("event") == "checkpoint"}
    written |= set(committed_steps(directory / "checkpoints"))
    validated = set(committed_steps(directory / "validations"))
    steps = sorted({int(step) for step in spec.get("checkpoint_steps", [])} | written | validated)
    return tuple(
        Checkpoint(
            step=step,
            written=step in written | validated,
            train_loss=_mean_loss(history, before, step),
            figures=read_json(directory / "validations" / f"{step:08d}" / "figures.json")
            if step in validated
            else None,
            judgement=_optional(directory / "judgements" / f"{step:08d}.json") or None,
        )
        for before, step in zip([0, *steps], steps, strict=False)
    )


def _mean_loss(history: History, after: int, until: int) -> float | None:
    """Over the steps (after, until]; None when none of them was logged with a number."""
    there = (history.steps > after) & (history.steps <= until) & np.isfinite(history.loss)
    return float(history.loss[there].mean()) if there.any() else None


def _state(directory: Path, outcome: dict[str, Any], history: History) -> str:
    if outcome:
        return str(outcome.get("state", "ended"))
    if _optional(directory / "wish.json").get("wish") == "pause" or _held(directory):
        return "paused"
    return "training" if history.steps.size else "queued"


def alarms_of(directory: Path) -> tuple[dict[str, Any], ...]:
    """Each alarm with `answer`, the record of what followed in the end; None where nothing has."""
    return tuple(
        read_json(path) | {"answer": _optional(directory / "answers" / f"{path.stem[:11]}.json") or None}
        for path in sorted((directory / "alarms").glob("[0-9]*.json"))
    )


def _held(directory: Path) -> bool:
    """Whether the newest alarms pause the run and nobody has answered them."""
    alarms = alarms_of(directory)
    newest = max(((one["after"], one["round"]) for one in alarms), default=None)
    return any(
        one["act"] == "pause" and one["answer"] is None and (one["after"], one["round"]) == newest
        for one in alarms
    )


def _evaluation(directory: Path) -> Evaluation | None:
    """A committed validation or test; None when there is none."""
    if not is_commit(directory):
        return None
    manifest = read_verified(directory, what=directory.name, remedy="Validate the checkpoint again.")
    return Evaluation(
        step=manifest.get("step"),
        figures=read_json(directory / "figures.json"),
        **_read_scores(directory / "scores.parquet"),
    )


def _baseline(
    directory: Path, part: str, spec: dict[str, Any], split: dict[str, Any] | None
) -> Evaluation | None:
    """The boosted trees on one part; None before they are fitted, and where they were fitted on another split."""
    if not (directory / MANIFEST).is_file():
        return None
    manifest = read_verified(directory, what="baseline", remedy="Make the split again.")
    if "split_sha256" in manifest:
        if manifest["split_sha256"] != spec.get("split_sha256"):
            return None
    elif split is None:  # an older lhcq fitted them, and nothing tells on what
        return None
    figures = read_json(directory / "figures.json")[part]
    return Evaluation(step=None, figures=figures, **_read_scores(directory / f"{part}.parquet"))


def _read_scores(path: Path) -> dict[str, NDArray[Any]]:
    table = _read_columns(path, ["row", "label", "p_signal", "unknown"])
    return {
        "rows": table["row"],
        "labels": table["label"],
        "p_signal": table["p_signal"],
        "unknown": table["unknown"],
    }


def _masses(split: Path, part: str, shown: Evaluation | None) -> dict[str, NDArray[np.float64]] | None:
    """The masses of the shown events, matched by row; None without the split."""
    path = split / f"{part}.parquet"
    if shown is None or not path.is_file():
        return None
    columns = _read_columns(path, ["row", *MASSES])
    order = np.argsort(columns["row"], kind="stable")
    place = np.searchsorted(columns["row"], shown.rows, sorter=order).clip(max=max(order.size - 1, 0))
    found = order[place]
    if not np.array_equal(columns["row"][found], shown.rows):
        # The split was made again under the same name: its events are not the ones that were scored.
        return None
    return {name: columns[name][found].astype(np.float64) for name in MASSES}


def _read_columns(path: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    try:
        table = pq.read_table(path, columns=names)
        return {name: table.column(name).to_numpy() for name in names}
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise BadInput(f"{path}: not readable ({reason}). Make it again.") from error


def _versions(workspace: Workspace, run: str, checkpoints: Iterable[Checkpoint]) -> dict[str, str]:
    """Package versions from the newest checkpoint's manifest that has them."""
    versions: dict[str, str] = {}
    for checkpoint in checkpoints:
        manifest = _optional(workspace.checkpoint(run, checkpoint.step) / MANIFEST)
        versions |= {str(key): str(value) for key, value in (manifest.get("versions") or {}).items()}
    return versions


def _optional(path: Path) -> dict[str, Any]:
    """The record in `path`, empty when it is not there."""
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
