"""The chunks of searches and scans, for `tasks.jobs.kinds`: their rounds, their tasks, and what each is about."""

from collections.abc import Sequence
from pathlib import Path

from lhcq.records.jobs import Job
from lhcq.records.specs import ScanSpec, SearchSpec
from lhcq.workspace import Workspace
from tasks.jobs.units import Caption, Unit


def rounds_of_search(job: Job) -> Sequence[int]:
    """How many chunks each round has."""
    from lhcq.requests.search import rounds_of

    return rounds_of(job.spec_of(SearchSpec))


def task_of_search(job: Job, index: int) -> str:
    """Trainings of a language model, those of shuffles too, go where models are trained; all else to any worker."""
    trained = job.spec_of(SearchSpec).tuning is not None and index < rounds_of_search(job)[0]
    return "lhcq.search_train" if trained else "lhcq.search_part"


def parents_of_search(workspace: Workspace, job: Job) -> list[Path]:
    """The dataset that is searched, and the model and the search beside it where there are any."""
    spec = job.spec_of(SearchSpec)
    parents = _dataset_and_model(workspace, spec)
    if spec.beside is not None:
        parents.append(workspace.search(spec.beside.name))
    return parents


def describe_search(job: Job, unit: Unit) -> Caption:
    """The region, and which training of it; or the pseudo-experiments."""
    from lhcq.requests.search import Experiments, Shuffle, chunk_of

    spec = job.spec_of(SearchSpec)
    caption = {"search": job.name, "dataset": spec.dataset}
    if unit.number is None:
        return {**caption, "parts": str(job.parts)}
    chunk = chunk_of(spec, unit.number)
    if isinstance(chunk, Experiments):
        return {**caption, "pseudo-experiments": f"{chunk.first}-{chunk.end - 1}"}
    low, high = spec.config.regions[chunk.region]
    caption["region"] = f"{low:g}-{high:g} GeV"
    if isinstance(chunk, Shuffle):
        return {**caption, "shuffle": str(chunk.shuffle)}
    return {**caption, "seed": str(chunk.seed), "fold": str(chunk.fold)}


def page_of_search(workspace: Workspace, job: Job) -> Path:
    """Where the page about its result stands."""
    from lhcq.records.searches import page_file

    return page_file(workspace.search(job.name))


def task_of_scan(job: Job, _: int) -> str:
    """Where a language model is trained, all chunks go to workers that train: trees take a second beside it."""
    return "lhcq.scan_part" if job.spec_of(ScanSpec).tuning is None else "lhcq.scan_train"


def parents_of_scan(workspace: Workspace, job: Job) -> list[Path]:
    """The dataset, and the model where there is one."""
    return _dataset_and_model(workspace, job.spec_of(ScanSpec))


def describe_scan(job: Job, unit: Unit) -> Caption:
    """How many signal events there are, and which training of them."""
    from lhcq.requests.scan import chunk_of

    spec = job.spec_of(ScanSpec)
    caption = {"scan": job.name, "dataset": spec.dataset}
    if unit.number is None:
        return {**caption, "parts": str(job.parts)}
    chunk = chunk_of(spec, unit.number)
    return {**caption, "signal events": str(chunk.n_signal), "seed": str(chunk.seed), "fold": str(chunk.fold)}


def page_of_scan(workspace: Workspace, job: Job) -> Path:
    """Where the page about its result stands."""
    from lhcq.records.scans import page_file

    return page_file(workspace.scan(job.name))


def _dataset_and_model(workspace: Workspace, spec: SearchSpec | ScanSpec) -> list[Path]:
    parents = [workspace.dataset(spec.dataset)]
    return parents if spec.tuning is None else [*parents, workspace.root / spec.tuning.model_dir]
