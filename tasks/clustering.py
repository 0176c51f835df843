"""Clustering: one task a chunk of events, merged by a chord into one dataset."""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.signals import worker_init

from lhcq.config import ClusterConfig
from lhcq.errors import BadInput, PermanentError, RowsMissing
from lhcq.workspace import MANIFEST, Workspace, sha256_of
from tasks.app import app, workspace
from tasks.jobs import Failure, Job, summary_of
from tasks.leases import Lease
from tasks.parts import perform_merge, perform_part
from tasks.tracing import note_span

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from lhcq.events.layout import EventFile
    from lhcq.jets.plan import Chunk


@worker_init.connect
def warm_up(sender: Any, **_: Any) -> None:
    """Before the worker of the cpu queue forks its pool: import, compile the loops, and hold them to FastJet."""
    if "cpu" not in sender.app.amqp.queues.consume_from:
        return
    import lhcq.events.blocks
    import lhcq.events.contents
    import lhcq.jets.parts  # noqa: F401
    from lhcq.jets.agreement import check_agreement
    from lhcq.jets.clustering import compile_kernels

    compile_kernels()
    try:
        check_agreement()
    except PermanentError as error:
        sys.exit(f"lhcq: {error}")  # Celery logs any other exception of a signal and goes on


@app.task(name="lhcq.cluster_part")
def cluster_part(name: str, index: int) -> str:
    """Cluster the events of one chunk."""
    return perform_part("cluster", name, index, _make)


@app.task(name="lhcq.cluster_merge")
def cluster_merge(name: str) -> str:
    """Merge all chunks into the dataset."""
    return perform_merge("cluster", name, _merge)


def _make(job: Job, index: int, path: Path, held: Lease) -> None:
    from lhcq.events.blocks import read_blocks
    from lhcq.events.contents import hash_events
    from lhcq.events.layout import EventBlock
    from lhcq.jets.clustering import cluster_events
    from lhcq.jets.parts import Gap, fingerprint, write_part
    from lhcq.jets.records import part_schema_of, with_contents

    file, chunk = open_source(job), chunks_of(job)[index]
    note_span(events=chunk.stop - chunk.start)
    config = ClusterConfig.checked(**job.spec["config"])
    gaps: list[Gap] = []

    def tables() -> "Iterator[pa.Table]":
        yield part_schema_of(config.features).empty_table()  # a part may have lost all its events
        for block in read_blocks(file, chunk.start, chunk.stop, skip_wrong=job.terms["tolerate"] > 0):
            if isinstance(block, EventBlock):
                contents = hash_events(block.particles, block.n_particles)  # while they are in the cache
                records = cluster_events(block.particles, config, rows=block.rows, labels=block.labels)
                yield with_contents(records, contents)
            else:
                gaps.append(Gap(start=block.start, stop=block.stop, reason=block.reason))
            held.check()

    write_part(path, tables(), fingerprint(), gaps)


def open_source(job: Job) -> "EventFile":
    """The job's source, or an error when it is no longer the file that was hashed."""
    source = workspace().permitted(Path(job.terms["source"]))
    known = (job.terms["bytes"], job.terms["mtime_ns"])
    file = _found(source, known).read_as(ClusterConfig.checked(**job.spec["config"]))
    status = source.stat()
    if (status.st_size, status.st_mtime_ns) != known:
        raise BadInput(f"{source}: changed since this job started. Run the same command again.")
    return file


@functools.lru_cache(maxsize=4)
def _found(source: Path, _: tuple[int, int]) -> "EventFile":
    """What the file of this size and time is: looked at once a process, since each task of a job asks."""
    from lhcq.events.layout import open_event_file

    return open_event_file(source)


def chunks_of(job: Job) -> "list[Chunk]":
    """The chunks of a clustering job, by index of part."""
    from lhcq.jets.plan import plan_chunks

    keys = ("n_events", "storage_rows")
    return plan_chunks(**{key: job.spec[key] for key in keys}, target=job.spec["events_per_chunk"])


def _merge(workspace: Workspace, job: Job, parts: dict[int, Path], lost: dict[int, Failure]) -> str:
    from lhcq.jets.merge import merge_parts, read_standing

    if (
        lost
    ):  # for want of a worker, a disk or a library: nothing is known of the events, so nothing is tolerated
        raise RowsMissing(summary_of(list(lost.values())))
    final = workspace.dataset(job.name)
    fields = {
        "name": job.name,
        "source": job.terms["source"],
        **{field: job.spec[field] for field in ("source_sha256", "labels_sha256", "config")},
    }
    if (final / MANIFEST).exists():  # the parts may be gone
        manifest = read_standing(final, fields)
    else:
        manifest = merge_parts(
            [parts[index] for index in sorted(parts)],
            final,
            n_events=job.spec["n_events"],
            manifest_fields=fields,
            features=ClusterConfig.checked(**job.spec["config"]).features,
            tolerate=job.terms["tolerate"],
            labels=key_of(job, job.spec["n_events"]),
        )
    note_span(events=manifest["rows"])
    return f"{manifest['rows']} events in {final}"


def key_of(job: Job, n_events: int) -> "NDArray[np.int8] | None":
    """The labels (n_events,) by source row in the master key that a job names, as it was hashed; None without one."""
    if job.terms["labels"] is None:
        return None
    from lhcq.events.masterkey import read_master_key

    path = workspace().permitted(Path(job.terms["labels"]))
    labels = read_master_key(path, n_events)
    if sha256_of(path) != job.spec["labels_sha256"]:
        raise BadInput(f"{path}: changed since this job started. Run the same command again.")
    return labels
