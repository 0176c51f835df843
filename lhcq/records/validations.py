"""What a classifier said of a subset, committed with its metrics: a checkpoint's validation, its test, the baseline.

A directory holds the scores of every event, the metrics made of them, a report for people, and the manifest. The
boosted trees beside a split have one directory with the scores of both subsets that they are judged on.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lhcq.errors import NotThere
from lhcq.records.commits import is_commit, read_verified, require_commit
from lhcq.records.metrics import CalibratedMetrics, Metrics
from lhcq.storage import (
    MANIFEST,
    read_json,
    sha256_of,
    staged_directory,
    write_json,
    write_manifest,
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
        return Metrics.checked(**read_json(path))
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
    require_commit(directory, what=directory.name, remedy="Remove it; it will be made again.")
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
    write_json(RunPaths(run_dir).calibrated, metrics.model_dump())


def find_calibrated(run_dir: Path) -> CalibratedMetrics | None:
    """The tested checkpoint under temperature and thresholds of the calibration subset; None before that."""
    with contextlib.suppress(FileNotFoundError):
        return CalibratedMetrics.checked(**read_json(RunPaths(run_dir).calibrated))
    return None


def commit_baseline(
    final: Path,
    scored: Mapping[str, Scored],
    *,
    split_dir: Path,
    split_sha256: Mapping[str, str],
    **fields: Any,
) -> None:
    """Commit what boosted trees, fitted on the split in `split_dir`, said of its subsets, by name.

    `split_sha256` has the digests of the split's files; `fields` go into the manifest.
    """
    from lhcq.records.scores import write_scores

    with staged_directory(final) as directory:
        for subset, one in scored.items():
            write_scores(directory / f"{subset}.parquet", one.scores)
        write_json(directory / _METRICS, {subset: one.metrics.model_dump() for subset, one in scored.items()})
        write_manifest(
            directory,
            split=split_dir.name,
            split_manifest_sha256=sha256_of(split_dir / MANIFEST),
            split_sha256=dict(split_sha256),
            **fields,
        )


def find_baseline(
    directory: Path, subset: str, *, split_sha256: Mapping[str, str] | None, split_stands: bool
) -> Evaluation | None:
    """The boosted trees on one subset; None before they are fitted, and where they were fitted on another split.

    `split_stands`: the split of these digests is the one that is there; an older lhcq did not keep which one it was.
    """
    from lhcq.records.scores import read_scores

    if not (directory / MANIFEST).is_file():
        return None
    manifest = read_verified(directory, what="baseline", remedy="Make the split again.")
    if "split_sha256" in manifest:
        if manifest["split_sha256"] != split_sha256:
            return None
    elif not split_stands:
        return None
    return Evaluation(
        step=None,
        metrics=Metrics.checked(**read_json(directory / _METRICS)[subset]),
        scores=read_scores(directory / f"{subset}.parquet"),
    )


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
