"""A scan: a task for each number of signal events, seed and fold that puts them among background and scores the fold
by every learner; and a merge that selects, fits, and says what each of them found."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lhcq.config import TREES
from lhcq.errors import RowsMissing
from lhcq.records.failures import Failure
from lhcq.records.jobs import Job
from lhcq.records.searches import read_chunk, write_chunk
from lhcq.records.specs import ScanSpec
from lhcq.requests.scan import IDEALISED, SUPERVISED, Injection, chunk_of, learners_of
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.jobs.leases import Lease
from tasks.jobs.store import summary_of
from tasks.observe.tracing import note_span
from tasks.stages.fanout import chunk_work, merge_work, perform_chunk, perform_merge
from tasks.stages.searched_events import edges_of, read_searched

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lhcq.evaluate.injection import Injected


def _make(workspace: Workspace, job: Job, index: int, path: Path, held: Lease) -> None:
    """Scores (n_learners, n_events of the fold), one learner after the other."""
    import numpy as np

    spec = job.spec_of(ScanSpec)
    chunk = chunk_of(spec, index)
    put = _put(workspace, spec, chunk.n_signal, chunk.seed)
    note_span(events=int((put.events.folds == chunk.fold).sum()))
    found = []
    for learner in learners_of(spec):
        held.check()
        found.append(_score(workspace, job, learner, put, chunk, held))
    write_chunk(path, np.stack(found))


def _put(workspace: Workspace, spec: ScanSpec, n_signal: int, seed: int) -> "Injected":
    from lhcq.evaluate.injection import inject

    searched = read_searched(workspace, spec)
    return inject(
        searched.events,
        searched.labels,
        searched.firsts,
        n_signal=n_signal,
        seed=seed,
        n_folds=spec.config.folds,
        key=f"{searched.key} {seed}",
    )


def _score(
    workspace: Workspace, job: Job, learner: str, put: "Injected", chunk: Injection, held: Lease
) -> "NDArray[np.float64]":
    from lhcq.evaluate.injection import idealised_fold, supervised_fold
    from lhcq.evaluate.weak import score_fold

    spec = job.spec_of(ScanSpec)
    if learner == IDEALISED:
        return idealised_fold(put, spec.region, fold=chunk.fold, seed=chunk.seed)
    if learner == SUPERVISED:
        return supervised_fold(put, fold=chunk.fold, seed=chunk.seed)
    score: Any = score_fold
    if learner != TREES and spec.tuning is not None:
        from tasks.stages.fine_tuning import FineTuned

        score = FineTuned(workspace, job, spec.tuning, spec.template, held)
    found: NDArray[np.float64] = score(
        put.events, spec.region, spec.config.sideband, fold=chunk.fold, seed=chunk.seed
    )
    return found


def _merge(workspace: Workspace, job: Job, chunks: dict[int, Path], lost: dict[int, Failure]) -> str:
    if lost:
        raise RowsMissing(summary_of(list(lost.values())))
    from lhcq.evaluate.scan import judge_point
    from lhcq.records.scans import commit_scan, read_found
    from lhcq.report.scan import render_scan, scan_verdict
    from lhcq.storage import MANIFEST

    spec, final = job.spec_of(ScanSpec), workspace.scan(job.name)
    if (final / MANIFEST).exists():
        return scan_verdict(read_found(final))[0]
    config, edges = spec.config, edges_of(spec.config)
    points = []
    for place, (n_signal, seed) in enumerate(config.points):
        put = _put(workspace, spec, n_signal, seed)
        of_point = range(place * config.folds, (place + 1) * config.folds)
        scores = _joined(spec, put, {fold: chunks[index] for fold, index in enumerate(of_point)})
        judged = judge_point(put, scores, spec.region, config.selections, edges)
        points.append({"put_in": n_signal, "seed": seed, **judged})
    fields = {"name": job.name, **spec.recorded()}
    found = {**fields, "edges": edges.tolist(), "learners": learners_of(spec), "points": points}
    commit_scan(final, found, of=spec.identity(), page=render_scan(found), fields=fields)
    return scan_verdict(found)[0]


def _joined(spec: ScanSpec, put: "Injected", folds: dict[int, Path]) -> "dict[str, NDArray[np.float64]]":
    """The scores (n_events,) of every learner, of the chunks of all folds."""
    import numpy as np

    learners = learners_of(spec)
    scores = np.zeros((len(learners), len(put.events.rows)))
    for fold, path in folds.items():
        members = np.flatnonzero(put.events.folds == fold)
        found = read_chunk(path, len(learners) * len(members))
        scores[:, members] = found.reshape(len(learners), -1)
    return dict(zip(learners, scores, strict=True))


@app.task(name="lhcq.scan_part", work=staticmethod(chunk_work(_make)))
def scan_part(name: str, index: int) -> str:
    """Put signal among background, train on all folds but one, and score that by every learner."""
    return perform_chunk("scan", name, index, _make)


@app.task(name="lhcq.scan_train", work=staticmethod(chunk_work(_make)))
def scan_train(name: str, index: int) -> str:
    """The same with a language model among the learners, where models are trained."""
    return perform_chunk("scan", name, index, _make)


@app.task(name="lhcq.scan_merge", work=staticmethod(merge_work(_merge)))
def scan_merge(name: str) -> str:
    """Say what every learner found."""
    return perform_merge("scan", name, _merge)
