"""The chunks of a search, for `tasks.jobs.kinds`: their rounds, their tasks, and what each is about."""

from collections.abc import Sequence
from pathlib import Path

from lhcq.records.jobs import Job
from lhcq.records.specs import SearchSpec
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
    parents = [workspace.dataset(spec.dataset)]
    if spec.tuning is not None:
        parents.append(workspace.root / spec.tuning.model_dir)
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
