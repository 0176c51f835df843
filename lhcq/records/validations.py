"""What a classifier said of a subset, committed with its metrics: a checkpoint's validation, its test, the baseline.

A directory holds the scores of every event, the metrics made of them, a report for people, and the manifest. The
boosted trees beside a split have one directory with the scores of both subsets that they are judged on, named after
the subset: of trees on all features as it is, of trees on the prompt's numbers with `prompt-` before it.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lhcq.errors import NotThere
from lhcq.manifests import write_manifest
from lhcq.records.commits import is_commit, read_verified, require_commit
from lhcq.records.jobs import read_as
from lhcq.records.metrics import CalibratedMetrics, Metrics
from lhcq.storage import (
    MANIFEST,
    read_json,
    sha256_of,
    staged_directory,
    write_json,
    write_record,
    write_text,
)
from lhcq.workspace import RunPaths

if TYPE_CHECKING:
    from lhcq.records.scores import Scores

_SCORES, _METRICS, _REPORT = "scores.parquet", "figures.json", "report.txt"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One classifier on one subset."""

    step: int | None
    """The checkpoint's step; None for the boosted trees."""
    metrics: Metrics
    scores: "Scores"


class Scored(NamedTuple):
    """The scores of a subset and the metrics made of them, to be written."""

    scores: "Scores"
    metrics: Metrics


@dataclass(frozen=True, kw_only=True)
class Trees:
    """Boosted trees beside a split, by what they see of an event."""

    name: str
    """What people call them: the numbers that they see."""
    missing: str = ""
    """Why there are none; empty where there are."""
    validation: Evaluation | None = None
    test: Evaluation | None = None

    def on(self, subset: str) -> Evaluation | None:
        """What they are worth on validation or test; None where there are none."""
        return self.test if subset == "test" else self.validation


class Baseline(NamedTuple):
    """Both kinds of boosted trees beside a split."""

    prompt: Trees
    """They see what the language model sees: the numbers of an event's prompt, as it writes them."""
    all: Trees
    """They see all features that the dataset has, which may be more than a prompt tells."""

    def beside(self, subset: str) -> list[tuple[Trees, Metrics | None]]:
        """Each kind with its metrics on validation or test, None where it is missing; nothing where both are."""
        found = [trees.on(subset) for trees in self]
        metrics = [one.metrics if one else None for one in found]
        return list(zip(self, metrics, strict=True)) if any(found) else []


TreesSee = Literal["prompt", "all"]
_ON_PROMPT, _ON_ALL = "trees on the prompt's numbers", "trees on all features"


def commit_validation(final: Path, scored: Scored, *, step: int, report: str, **fields: Any) -> None:
    """Commit the directory `final` for the checkpoint at `step`; `fields` go into its manifest.

    If `final` is there already it stays, and this copy is discarded.
    """
    from lhcq.records.scores import write_scores

    with staged_directory(final) as directory:
        write_scores(directory / _SCORES, scored.scores)
        write_json(directory / _METRICS, scored.metrics.model_dump())
        write_text(directory / _REPORT, report)
        write_manifest(directory, step=step, **fields)


def read_metrics(directory: Path) -> Metrics:
    """The metrics of a committed validation; `NotThere` when there is none, `BadInput` when a file of it differs."""
    path = directory / _METRICS
    try:
        _verified(directory)
        return read_as(Metrics, path)
    except FileNotFoundError:
        raise NotThere(f"{path}: there are no metrics. Validate the checkpoint again.") from None


def read_validation_scores(directory: Path) -> "Scores":
    """The scores of a committed validation, as `read_metrics` its metrics."""
    from lhcq.records.scores import read_scores

    _verified(directory)
    return read_scores(directory / _SCORES)


def find_evaluation(directory: Path) -> Evaluation | None:
    """A validation or a test that is committed for the run of today; None where there is none."""
    if not is_commit(directory):
        return None
    manifest = _verified(directory)
    return Evaluation(
        step=manifest.get("step"), metrics=read_metrics(directory), scores=read_validation_scores(directory)
    )


def require_scores(directory: Path) -> "Scores":
    """The scores of a run's directory, which must be committed for the run of today."""
    require_commit(directory, what=directory.name, remedy="Move it elsewhere; it will be made again.")
    return read_validation_scores(directory)


def read_report(directory: Path) -> str:
    """The report for people of a committed validation."""
    return (directory / _REPORT).read_text("utf-8")


def loss_of_training(directory: Path) -> float | None:
    """Mean training loss of the segment before a validated checkpoint; None where an older lhcq validated it."""
    summary = read_json(directory / MANIFEST).get("training")
    return None if summary is None else float(summary["loss"])


def write_calibrated(run_dir: Path, metrics: CalibratedMetrics) -> None:
    """Keep what the calibration subset makes of the test subset."""
    write_record(RunPaths(run_dir).calibrated, metrics.model_dump())


def find_calibrated(run_dir: Path) -> CalibratedMetrics | None:
    """The tested checkpoint under temperature and thresholds of the calibration subset; None before that."""
    with contextlib.suppress(FileNotFoundError):
        return read_as(CalibratedMetrics, RunPaths(run_dir).calibrated)
    return None


def commit_baseline(
    final: Path,
    scored: Mapping[TreesSee, Mapping[str, Scored]],
    *,
    split_dir: Path,
    split_sha256: Mapping[str, str],
    **fields: Any,
) -> None:
    """Commit what boosted trees, fitted on the split in `split_dir`, said of its subsets, by name.

    `split_sha256` has the digests of the split's files; `fields` go into the manifest: `features`, those that the
    trees on all of them see, and `prompt`, which has why there are no trees on the prompt's numbers as `missing`.
    """
    from lhcq.records.scores import write_scores

    stems = {_stem(see, subset): one for see, subsets in scored.items() for subset, one in subsets.items()}
    with staged_directory(final) as directory:
        for stem, one in stems.items():
            write_scores(directory / f"{stem}.parquet", one.scores)
        write_json(directory / _METRICS, {stem: one.metrics.model_dump() for stem, one in stems.items()})
        write_manifest(
            directory,
            split=split_dir.name,
            split_manifest_sha256=sha256_of(split_dir / MANIFEST),
            split_sha256=dict(split_sha256),
            **fields,
        )


def find_baseline(directory: Path, *, split_sha256: Mapping[str, str] | None, split_stands: bool) -> Baseline:
    """The boosted trees beside a split; missing before they are fitted, and where they are of another split.

    `split_stands`: the split of these digests is the one that is there; an older lhcq did not keep which one it was.
    """
    if not (directory / MANIFEST).is_file():
        return _no_baseline("not fitted yet")
    manifest = read_verified(directory, what="baseline", remedy="Make the split again.")
    of_this = manifest["split_sha256"] == split_sha256 if "split_sha256" in manifest else split_stands
    if not of_this:
        return _no_baseline("fitted on another split of this name")
    prompt = manifest.get("prompt", {"missing": "not fitted by the earlier lhcq that made this split"})
    return Baseline(
        prompt=Trees(name=_ON_PROMPT, missing=prompt["missing"])
        if "missing" in prompt
        else _read_trees(directory, "prompt", _ON_PROMPT),
        all=_read_trees(directory, "all", f"trees on all {len(manifest['features'])} features"),
    )


def _no_baseline(missing: str) -> Baseline:
    return Baseline(*(Trees(name=name, missing=missing) for name in (_ON_PROMPT, _ON_ALL)))


def _read_trees(directory: Path, see: TreesSee, name: str) -> Trees:
    from lhcq.records.scores import read_scores

    metrics = read_json(directory / _METRICS)
    validation, test = (
        Evaluation(
            step=None,
            # Nobody asked them for words; an older lhcq counted none, which is something else.
            metrics=Metrics.checked(**{**metrics[stem], "unknown": None}),
            scores=read_scores(directory / f"{stem}.parquet"),
        )
        for stem in (_stem(see, "validation"), _stem(see, "test"))
    )
    return Trees(name=name, validation=validation, test=test)


def _stem(see: TreesSee, subset: str) -> str:
    return subset if see == "all" else f"{see}-{subset}"  # a baseline of before has the former alone


def is_of_another_split(baseline: Path, split_dir: Path) -> bool:
    """Whether the baseline was fitted on an earlier split of this name, which was removed."""
    with contextlib.suppress(FileNotFoundError):
        fitted: str = read_json(baseline / MANIFEST)["split_manifest_sha256"]
        return fitted != sha256_of(split_dir / MANIFEST)
    return False


def _verified(directory: Path) -> dict[str, Any]:
    return read_verified(
        directory, what=f"validation {directory.name}", remedy="Validate the checkpoint again."
    )
