"""The kinds of job, one value each: all that asks "which kind is this?" asks it here.

A new stage is one spec in `lhcq.records.specs`, one module of tasks in `tasks.stages`, one verb, and one line in
`KINDS`. Most stages are fan-outs: a task a chunk, and a merge that ends the job. What takes more than a few lines to
say of a kind stands in a module of its own: `tasks.jobs.train`, `tasks.jobs.search`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from lhcq.errors import BadInput, NotThere
from lhcq.records import predictions
from lhcq.records.jobs import Job
from lhcq.records.specs import (
    ClusterSpec,
    ClusterTerms,
    GenerateSpec,
    PredictSpec,
    PrepareSpec,
    ScanSpec,
    SearchSpec,
    Spec,
    TrainSpec,
)
from lhcq.storage import MANIFEST
from lhcq.workspace import RunPaths, Workspace
from tasks.jobs.search import (
    describe_scan,
    describe_search,
    page_of_scan,
    page_of_search,
    parents_of_scan,
    parents_of_search,
    rounds_of_search,
    task_of_scan,
    task_of_search,
)
from tasks.jobs.train import describe_run, parents_of_run, plan_run, test_unit
from tasks.jobs.units import Caption, Unit

Queue = Literal["cpu", "gpu", "validate"]
Stretch = tuple[str, int, int]
"""What a chunk is a stretch of, and its rows [start, stop)."""
_TABLE = ".arrows"
"""Of a chunk that `lhcq.records.chunks` wrote. Those of an earlier lhcq end otherwise, and count for nothing."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the engine has to know of a stage."""

    name: str
    spec: type[Spec]
    queues: Mapping[str, Queue]
    """Its tasks, by their names in messages, and the queue of each."""
    result: Callable[[Workspace, Job], Path]
    """What a finished job leaves: a file, or a directory."""
    plan: Callable[[Workspace, Job], list[Unit]]
    """What is left to do of a job and could be done now, by what stands in the workspace. Of a fan-out without the
    merge, whose turn it is when this is empty."""
    last: Callable[[Job], Unit]
    """The unit that ends a job when all goes well."""
    describe: Callable[[Workspace, Job], Callable[[Unit], Caption]]
    """Tells of each unit of a job what it is about."""
    measured_in: Literal["steps", "parts", "split"]
    """What its progress counts."""
    makes: str
    """What a finished job leaves, in a word: dataset, split, run."""
    shelf: Callable[[Workspace, str], Path] | None = None
    """Where the result of a name stands in the workspace; None where a job alone tells where its result is."""
    beside: Callable[[Workspace, str], list[Path]] = lambda *_: []
    """What belongs to the result of a name and stands elsewhere."""
    made_of: Callable[[Workspace, Job], list[Path]] = lambda *_: []
    """What a job's result was made of: it cannot be made or explained again without."""
    page: Callable[[Workspace, Job], Path | None] = lambda *_: None
    """Where the page about a job's result stands, once there is one; None where its kind has none."""
    chunk_suffix: str | None = None
    """Of the files of a fan-out's chunks; None where there is no fan-out."""
    stretch: Callable[[Job, int], Stretch] | None = None
    """What a chunk of a fan-out is a stretch of, by its index, where it is one of rows."""
    rounds: Callable[[Job], Sequence[int]] = lambda job: (job.parts,)
    """How many chunks of a fan-out come one after the other: a round is begun once all before it are done."""
    chunk_task: Callable[[Job, int], str] | None = None
    """The task that makes a chunk of a fan-out, by its index, where they differ; those of one round share a queue."""
    takes_turns: bool = False
    """Whether its units wait until it is their turn among those of all jobs; others follow each other."""

    @property
    def fans_out(self) -> bool:
        """Whether its jobs are cut into chunks that a merge ends."""
        return self.chunk_suffix is not None

    @property
    def first_queue(self) -> Queue:
        """The queue of its first task: of a fan-out's chunks."""
        return next(iter(self.queues.values()))


def fan_out(
    spec: type[Spec],
    *,
    queue: Queue,
    suffix: str,
    result: Callable[[Workspace, Job], Path],
    stretch: Callable[[Job, int], Stretch] | None = None,
    more: Mapping[str, Queue] | None = None,
    rounds: Callable[[Job], Sequence[int]] = lambda job: (job.parts,),
    chunk_task: Callable[[Job, int], str] | None = None,
    describe: Callable[[Job, Unit], Caption] | None = None,
    makes: str | None = None,
    shelf: Callable[[Workspace, str], Path] | None = None,
    made_of: Callable[[Workspace, Job], list[Path]] = lambda *_: [],
    page: Callable[[Workspace, Job], Path | None] = lambda *_: None,
) -> Kind:
    """The kind of a stage whose tasks are `lhcq.KIND_part` for each chunk and `lhcq.KIND_merge`, and `more`."""
    name: str = spec.model_fields["kind"].default
    return Kind(
        name=name,
        spec=spec,
        queues={f"lhcq.{name}_part": queue, f"lhcq.{name}_merge": queue, **(more or {})},
        result=result,
        plan=lambda workspace, job: [
            chunk_unit(job, index) for index in first_round(job, missing_chunks(workspace, job))
        ],
        last=merge_unit,
        describe=lambda _, job: (
            _describe_chunks(job, stretch) if describe is None else functools.partial(describe, job)
        ),
        measured_in="parts",
        makes=makes or name,
        shelf=shelf,
        made_of=made_of,
        page=page,
        chunk_suffix=suffix,
        stretch=stretch,
        rounds=rounds,
        chunk_task=chunk_task,
        takes_turns=True,
    )


def kind_of(job: Job) -> Kind:
    """The kind of a job."""
    return KINDS[job.kind]


def kind_of_task(task: str) -> Kind:
    """The kind whose jobs a task works for."""
    for kind in KINDS.values():
        if task in kind.queues:
            return kind
    raise BadInput(f"{task!r} is a task of no kind of job.")


def queue_of(unit: Unit) -> str:
    """Where the message of a unit goes."""
    return kind_of_task(unit.task).queues[unit.task]


def queues_of_job(job: Job) -> set[str]:
    """The queues that a job needs workers on: of the chunks of each round, and of what ends it."""
    kind = kind_of(job)
    first = [0, *accumulate(kind.rounds(job))] if kind.fans_out else []
    chunks = [chunk_unit(job, index) for index in first if index < job.parts]
    return {queue_of(unit) for unit in (*chunks, kind.last(job))}


def result_of(workspace: Workspace, job: Job) -> Path:
    """What a job leaves when it is done."""
    return kind_of(job).result(workspace, job)


def chunk_unit(job: Job, index: int) -> Unit:
    """The unit that makes chunk `index` of a fan-out."""
    chosen = kind_of(job).chunk_task
    return Unit(task=chosen(job, index) if chosen else f"lhcq.{job.kind}_part", args=(job.name, index))


def named_chunk(job: Job, index: int) -> Unit:
    """`chunk_unit` of a chunk that a person names; raises `NotThere` where the job has none of that number."""
    if index < job.parts:
        return chunk_unit(job, index)
    if not job.parts:
        raise NotThere(f"{job.title} is made of no chunks. Leave the number out, to ask for all of it.")
    counted = "1 chunk, 0" if job.parts == 1 else f"{job.parts:,} chunks, 0 to {job.parts - 1}"
    raise NotThere(f"{job.title} has {counted}, and no chunk {index}.")


def merge_unit(job: Job) -> Unit:
    """The unit that merges all chunks; of a prediction without any, the one that selects from another's scores."""
    if job.kind == "predict" and not job.parts:
        return Unit(task="lhcq.predict_select", args=(job.name,))
    return Unit(task=f"lhcq.{job.kind}_merge", args=(job.name,))


def is_chunk(unit: Unit) -> bool:
    """Whether a unit is one of the many of a fan-out, which goes on without it."""
    kind = kind_of_task(unit.task)
    return kind.fans_out and unit.number is not None


def chunk_path(workspace: Workspace, job: Job, index: int) -> Path:
    """Where the output of chunk `index` stands once it is done."""
    return chunks_of(workspace, job) / f"{index:06d}{kind_of(job).chunk_suffix}"


def finished_chunks(workspace: Workspace, job: Job) -> set[int]:
    """Indices of the chunks whose output stands."""
    suffix = str(kind_of(job).chunk_suffix)
    try:
        names = [path.name for path in chunks_of(workspace, job).iterdir()]
    except FileNotFoundError:
        return set()
    return {
        int(stem) for name in names if name.endswith(suffix) and (stem := name[: -len(suffix)]).isdecimal()
    }


def missing_chunks(workspace: Workspace, job: Job) -> list[int]:
    """Indices of the chunks whose output does not stand."""
    finished = finished_chunks(workspace, job)
    return [index for index in range(job.parts) if index not in finished]


def first_round(job: Job, missing: list[int]) -> list[int]:
    """Those of the missing chunks, ascending, that are of the first round in which any is missing."""
    end = next((end for end in accumulate(kind_of(job).rounds(job)) if missing and missing[0] < end), 0)
    return missing if missing and missing[-1] < end else [index for index in missing if index < end]


def chunks_of(workspace: Workspace, job: Job) -> Path:
    """Where the chunks of a job stand.

    Of the job as it was recorded, so that what is made for an earlier one of its name is never among them.
    """
    return workspace.inside(_chunks_below(workspace.job(job.kind, job.name), job.identity))


@functools.lru_cache(maxsize=1024)
def _chunks_below(directory: Path, identity: str) -> Path:
    return directory / "parts" / identity


def _describe_chunks(job: Job, stretch: Callable[[Job, int], Stretch] | None) -> Callable[[Unit], Caption]:
    def describe(unit: Unit) -> Caption:
        if unit.number is None:
            return {job.kind: job.name, "parts": str(job.parts)}
        if stretch is None:
            return {job.kind: job.name, "part": f"{unit.number + 1} of {job.parts}"}
        source, start, stop = stretch(job, unit.number)
        return {"dataset": source, "rows": f"{start}-{stop - 1}"}

    return describe


def _rows_of_clustering(job: Job, index: int) -> Stretch:
    from lhcq.requests.cluster import chunks_of

    chunk = chunks_of(job.spec_of(ClusterSpec))[index]
    return job.name, chunk.start, chunk.stop


def _rows_of_prediction(job: Job, index: int) -> Stretch:
    from lhcq.requests.predict import REFERENCE, stretches_of

    spec = job.spec_of(PredictSpec)
    reference, events = stretches_of(spec)
    if index < len(reference):
        return REFERENCE, reference[index].start, reference[index].stop
    chunk = events[index - len(reference)]
    return spec.dataset, chunk.start, chunk.stop


def baseline_unit(split: str) -> Unit:
    """The unit that fits trees on a split and ends its job."""
    return Unit(task="lhcq.baseline", args=(split,))


def _plan_split(workspace: Workspace, job: Job) -> list[Unit]:
    if not (workspace.split(job.name) / MANIFEST).exists():
        return [Unit(task="lhcq.prepare", args=(job.name,))]
    return [baseline_unit(job.name)]


def _describe_split(_: Workspace, job: Job) -> Callable[[Unit], Caption]:
    return lambda _: {"split": job.name, "dataset": job.spec_of(PrepareSpec).dataset}


def _parents_of_prediction(workspace: Workspace, job: Job) -> list[Path]:
    spec = job.spec_of(PredictSpec)
    return [
        workspace.run(spec.run),
        workspace.split(spec.split),
        workspace.dataset(spec.dataset),
        workspace.root / spec.model_dir,
    ]


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        fan_out(
            GenerateSpec,
            queue="cpu",
            suffix=".npy",
            result=lambda _, job: Path(job.spec_of(GenerateSpec).out),
            makes="events",
        ),
        fan_out(
            ClusterSpec,
            queue="cpu",
            suffix=_TABLE,
            result=lambda workspace, job: workspace.dataset(job.name),
            stretch=_rows_of_clustering,
            makes="dataset",
            shelf=Workspace.dataset,
            made_of=lambda _, job: [Path(job.terms_of(ClusterTerms).source)],
            page=lambda workspace, job: workspace.plots_page(job.name),
        ),
        Kind(
            name="prepare",
            spec=PrepareSpec,
            queues={"lhcq.prepare": "cpu", "lhcq.baseline": "cpu"},
            result=lambda workspace, job: workspace.split(job.name),
            plan=_plan_split,
            last=lambda job: baseline_unit(job.name),
            describe=_describe_split,
            measured_in="split",
            takes_turns=True,
            makes="split",
            shelf=Workspace.split,
            beside=lambda workspace, name: [workspace.baseline(name)],
            made_of=lambda workspace, job: [workspace.dataset(job.spec_of(PrepareSpec).dataset)],
        ),
        Kind(
            name="train",
            spec=TrainSpec,
            queues={"lhcq.train_segment": "gpu", "lhcq.validate": "validate", "lhcq.test": "validate"},
            result=lambda workspace, job: workspace.run(job.name),
            plan=plan_run,
            last=lambda job: test_unit(job.name),
            describe=describe_run,
            measured_in="steps",
            makes="run",
            shelf=Workspace.run,
            made_of=parents_of_run,
            page=lambda workspace, job: RunPaths(workspace.run(job.name)).page,
        ),
        fan_out(
            PredictSpec,
            queue="validate",
            suffix=_TABLE,
            result=lambda workspace, job: workspace.prediction(job.name),
            stretch=_rows_of_prediction,
            makes="prediction",
            shelf=Workspace.prediction,
            made_of=_parents_of_prediction,
            page=lambda workspace, job: predictions.page_file(workspace.prediction(job.name)),
            more={"lhcq.predict_select": "cpu"},  # it needs no model
        ),
        fan_out(
            SearchSpec,
            queue="cpu",
            suffix=_TABLE,
            result=lambda workspace, job: workspace.search(job.name),
            makes="search",
            shelf=Workspace.search,
            made_of=parents_of_search,
            more={"lhcq.search_train": "gpu"},
            page=page_of_search,
            rounds=rounds_of_search,
            chunk_task=task_of_search,
            describe=describe_search,
        ),
        fan_out(
            ScanSpec,
            queue="cpu",
            suffix=_TABLE,
            result=lambda workspace, job: workspace.scan(job.name),
            makes="scan",
            shelf=Workspace.scan,
            made_of=parents_of_scan,
            more={"lhcq.scan_train": "gpu"},
            page=page_of_scan,
            chunk_task=task_of_scan,
            describe=describe_scan,
        ),
    )
}
"""By name."""
