"""A search for a resonance: a task for each region, seed and fold that trains trees, or a language model, and scores
the fold; then tasks that draw pseudo-experiments from the spectra that were selected; and a merge that says what it
amounts to."""

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lhcq.config import SearchConfig
from lhcq.errors import RowsMissing
from lhcq.records.failures import Failure
from lhcq.records.jobs import Job
from lhcq.records.searches import commit_search, read_chunk, write_chunk
from lhcq.records.specs import Beside, SearchSpec
from lhcq.requests.search import Experiments, Shuffle, Training, chunk_of
from lhcq.workspace import Workspace
from tasks.app import app, own_workspace
from tasks.engine.publish import publish_rest
from tasks.jobs.kinds import chunk_path
from tasks.jobs.leases import Lease
from tasks.jobs.store import summary_of
from tasks.jobs.turns import turns_of
from tasks.observe.tracing import note_span
from tasks.stages.fanout import chunk_work, merge_work, perform_chunk, perform_merge
from tasks.stages.searched_events import edges_of, read_searched

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lhcq.evaluate.hunt import RegionTest
    from lhcq.evaluate.weak import ScoreFold, WeakEvents

log = logging.getLogger(__name__)


def _make(workspace: Workspace, job: Job, index: int, path: Path, held: Lease) -> None:
    spec = job.spec_of(SearchSpec)
    config, chunk = spec.config, chunk_of(spec, index)
    if isinstance(chunk, Experiments):
        write_chunk(path, _draw(workspace, job, chunk, held))
        return
    events = read_searched(workspace, spec).events
    score = _learner(workspace, job, held)
    if isinstance(chunk, Shuffle):
        write_chunk(path, _shuffle(events, config, chunk, score, held))
        return
    note_span(events=int((events.folds == chunk.fold).sum()))
    region, seed = config.regions[chunk.region], config.seed + chunk.seed
    write_chunk(path, score(events, region, config.sideband, fold=chunk.fold, seed=seed))


def _learner(workspace: Workspace, job: Job, held: Lease) -> "ScoreFold":
    """What tells regions from sidebands."""
    spec = job.spec_of(SearchSpec)
    if spec.tuning is None:
        from lhcq.evaluate.weak import score_fold

        return score_fold
    from tasks.stages.fine_tuning import FineTuned

    return FineTuned(workspace, job, spec.tuning, spec.template, held)


def _shuffle(
    events: "WeakEvents", config: SearchConfig, chunk: Shuffle, score: "ScoreFold", held: Lease
) -> "NDArray[np.float64]":
    """The significance of each selection in a region of shuffled events, (n_selections,); NaN without a fit."""
    import numpy as np

    from lhcq.evaluate.hunt import hunt
    from lhcq.evaluate.weak import score_all, shuffled

    region = config.regions[chunk.region]
    mixed = shuffled(events, [config.seed, chunk.shuffle])
    seeds = [config.seed + seed for seed in range(config.seeds)]
    scores = score_all(
        mixed, region, config.sideband, n_folds=config.folds, seeds=seeds, check=held.check, score=score
    )
    tests = hunt(mixed, [scores], [region], config.selections, edges_of(config))
    return np.array([test.excess.z if test.excess else np.nan for test in tests])


def _draw(workspace: Workspace, job: Job, chunk: Experiments, held: Lease) -> "NDArray[np.float64]":
    """The significances of pseudo-experiments, one after the other."""
    import numpy as np

    from lhcq.evaluate.hunt import pseudo_experiments

    config = job.spec_of(SearchSpec).config
    _, tests = _hunted(workspace, job)
    found = []
    for experiment in range(chunk.first, chunk.end):
        held.check()
        found.append(pseudo_experiments(tests, edges_of(config), seed=[config.seed, experiment], n=1))
    return np.concatenate(found)


def _hunted(workspace: Workspace, job: Job) -> "tuple[list[NDArray[np.float64]], list[RegionTest]]":
    """The scores of each region, means over the seeds, and all tests; every training's chunk has to stand."""
    return _hunt(workspace, job.name, job.identity, job.spec_of(SearchSpec).model_dump_json())


@functools.lru_cache(maxsize=2)
def _hunt(
    workspace: Workspace, name: str, identity: str, recorded: str
) -> "tuple[list[NDArray[np.float64]], list[RegionTest]]":
    import numpy as np

    from lhcq.evaluate.hunt import hunt

    spec = SearchSpec.model_validate_json(recorded)
    config = spec.config
    events = read_searched(workspace, spec).events
    job = Job(kind=spec.kind, name=name, identity=identity, spec=spec)
    scores = [np.zeros(len(events.rows)) for _ in config.regions]
    for index in range(config.n_trainings):
        if isinstance(chunk := chunk_of(spec, index), Training):
            members = np.flatnonzero(events.folds == chunk.fold)
            found = read_chunk(chunk_path(workspace, job, index), len(members))
            scores[chunk.region][members] += found / config.seeds
    return scores, hunt(events, scores, config.regions, config.selections, edges_of(config))


def _merge(workspace: Workspace, job: Job, chunks: dict[int, Path], lost: dict[int, Failure]) -> str:
    if lost:
        raise RowsMissing(summary_of(list(lost.values())))
    import pyarrow as pa

    from lhcq.evaluate.excess import describe_excess
    from lhcq.evaluate.hunt import INCLUSIVE, hunt, summarize
    from lhcq.records.searches import read_found
    from lhcq.report.search import render_search, search_verdict
    from lhcq.storage import MANIFEST

    spec, final = job.spec_of(SearchSpec), workspace.search(job.name)
    config = spec.config
    if (final / MANIFEST).exists():
        return " ".join(search_verdict(read_found(final))[:2])
    scores, tests = _hunted(workspace, job)
    searched = read_searched(workspace, spec)
    events, looks = searched.events, searched.looks
    edges = edges_of(config)
    shuffles, pseudo = _read_chance(spec, chunks, len(tests))
    inclusive = hunt(events, scores, config.regions, (INCLUSIVE,), edges)
    fields = {"name": job.name, **spec.recorded()}
    found = {**fields, **summarize(events, tests, inclusive, shuffles, pseudo, edges)}
    found["excess"] = describe_excess(events, tests, found, looks, edges)
    found["truth"] = _truth_of(searched.labels, events, tests)
    if spec.beside is not None:
        found["beside"] = _rows_beside(workspace, spec.beside)
    table = pa.table(
        {
            "row": events.rows,
            "mjj": events.mjj,
            "fold": events.folds,
            **{
                f"score_{low:g}_{high:g}": values
                for (low, high), values in zip(config.regions, scores, strict=True)
            },
        }
    )
    names = [f"z_{test.region[0]:g}_{test.region[1]:g}_{test.share:g}" for test in tests]
    drawn = pa.table({name: pseudo[:, place] for place, name in enumerate(names)})
    commit_search(final, found, table, drawn, of=spec.identity(), page=render_search(found), fields=fields)
    return " ".join(search_verdict(found)[:2])


def _read_chance(
    spec: SearchSpec, chunks: dict[int, Path], n_tests: int
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Significances without signal: of shuffles (n_shuffles, n_tests), and of pseudo-experiments (n, n_tests)."""
    import numpy as np

    n_shares = len(spec.config.selections)
    shuffles = np.zeros((spec.config.shuffles, n_tests))
    pseudo = np.zeros((spec.config.pseudo_experiments, n_tests))
    for index, path in chunks.items():
        chunk = chunk_of(spec, index)
        if isinstance(chunk, Shuffle):
            first = chunk.region * n_shares
            shuffles[chunk.shuffle, first : first + n_shares] = read_chunk(path, n_shares)
        elif isinstance(chunk, Experiments):
            values = read_chunk(path, (chunk.end - chunk.first) * n_tests)
            pseudo[chunk.first : chunk.end] = values.reshape(-1, n_tests)
    return shuffles, pseudo


def _rows_beside(workspace: Workspace, beside: Beside) -> dict[str, Any] | None:
    """What stands of another search beside this one; None where it is gone by now, which costs nothing but that."""
    from lhcq.records.searches import find_found

    found = find_found(workspace, beside.name, beside.identity)
    if found is None:
        log.warning("the search %s is not there any more, so it is not shown beside this one", beside.name)
        return None
    kept = ("name", "tests", "spread", "best", "global", "truth")
    return {**{key: found[key] for key in kept}, "model": found["config"]["model"]}


def _truth_of(
    labels: "NDArray[np.int8]", events: "WeakEvents", tests: "list[RegionTest]"
) -> list[dict[str, float | int | None]] | None:
    """What each test would be by labels that the search did not look at; None where an event has none."""
    from lhcq.evaluate.hunt import judge_by_truth

    return None if (labels < 0).any() else judge_by_truth(labels, events.mjj, tests)


@app.task(name="lhcq.search_part", work=staticmethod(chunk_work(_make)))
def search_part(name: str, index: int) -> str:
    """Train on all folds but one and score it, or draw pseudo-experiments."""
    return perform_chunk("search", name, index, _make)


@app.task(name="lhcq.search_train", work=staticmethod(chunk_work(_make)))
def search_train(name: str, index: int) -> str:
    """Train a language model on all folds but one and score that, where models are trained."""
    return perform_chunk("search", name, index, _make)


@app.task(name="lhcq.search_merge", work=staticmethod(merge_work(_merge)))
def search_merge(name: str) -> str:
    """Say what all tests amount to; after the trainings, publish the pseudo-experiments."""
    status = perform_merge("search", name, _merge)
    if status == "waiting":
        _publish_next(own_workspace(), name)
    return status


def _publish_next(workspace: Workspace, name: str) -> None:
    """Publish the round that is to begin; while units of the one before wait or are out, nothing."""
    from lhcq.records.jobs import load_job

    job = load_job(workspace, "search", name)
    (turn,) = turns_of([job])
    if turn is not None and not (turn.waiting or turn.out):
        publish_rest(workspace, job)
