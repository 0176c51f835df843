"""A validation on disk: the scores of one checkpoint, the figures made of them, and the text report."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from lhcq.commits import committed_steps, read_verified
from lhcq.errors import NotThere
from lhcq.evaluate.figures import Figures, figures_of
from lhcq.evaluate.scores import write_scores
from lhcq.evaluate.text import text_report
from lhcq.storage import read_json, staged_directory, write_json, write_manifest, write_text

SCORES, FIGURES, REPORT = "scores.parquet", "figures.json", "report.txt"


def write_validation(
    final: Path,
    *,
    step: int,
    rows: ArrayLike,
    labels: ArrayLike,
    p_signal: ArrayLike,
    unknown: ArrayLike,
    **fields: Any,
) -> Figures:
    """Commit the directory `final` for the checkpoint at `step`; `fields` go into its manifest.

    If `final` is there already it stays, and this copy is discarded.
    """
    figures = figures_of(labels, p_signal, unknown)
    with staged_directory(final) as directory:
        write_scores(directory / SCORES, rows, labels, p_signal, unknown)
        write_json(directory / FIGURES, figures.model_dump())
        write_text(directory / REPORT, text_report(labels, p_signal, unknown))
        write_manifest(directory, step=step, **fields)
    return figures


def read_figures(directory: Path) -> Figures:
    """The figures of a committed validation; `NotThere` when there is none, `BadInput` when a file of it differs."""
    path = directory / FIGURES
    try:
        read_verified(directory, what=f"validation {directory.name}", remedy="Validate the checkpoint again.")
        return Figures.checked(**read_json(path))
    except FileNotFoundError:
        raise NotThere(f"{path}: there are no figures. Validate the checkpoint again.") from None


def validated_steps(run_dir: Path) -> list[int]:
    """Steps of the run whose validation is committed, ascending."""
    return committed_steps(run_dir / "validations")


def best_step(run_dir: Path) -> int | None:
    """The validated step with the best figure on the validation part; None before the first validation.

    By default the figure is the AUC, because it needs no threshold; the run's configuration may ask for the
    likelihood instead. Ties go to the higher accuracy, then to the earlier step. Where the AUC is undefined the
    accuracy alone decides. The test part has no say.
    """
    return best_of(run_dir, validated_steps(run_dir))


def best_of(run_dir: Path, steps: Iterable[int]) -> int | None:
    """The best of these validated steps, as `best_step` chooses."""
    by_nll = selection_of(run_dir) == "nll"
    return min(steps, key=lambda step: _preference(run_dir, step, by_nll=by_nll), default=None)


def selection_of(run_dir: Path) -> str:
    """By which figure the run chooses: `auc` or `nll`."""
    try:
        config = read_json(run_dir / "job.json")["spec"].get("config", {})
    except FileNotFoundError:
        return "auc"
    return str(config.get("select", "auc"))


def _preference(run_dir: Path, step: int, *, by_nll: bool) -> tuple[float, float, int]:
    """Sorts the best step first."""
    figures = read_figures(run_dir / "validations" / f"{step:08d}")
    if by_nll:
        return (figures.nll, -figures.accuracy, step)
    return (-figures.auc if figures.auc is not None else 0.0, -figures.accuracy, step)
