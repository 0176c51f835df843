"""Clustering: one task a chunk of events, merged by a chord into one dataset."""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.signals import worker_init

from lhcq.errors import BadInput, PermanentError, RowsMissing
from lhcq.records.failures import Failure
from lhcq.records.jobs import Job
from lhcq.records.specs import ClusterSpec, ClusterTerms
from lhcq.requests.cluster import chunks_of
from lhcq.storage import MANIFEST, sha256_of
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.jobs.leases import Lease
from tasks.jobs.store import summary_of
from tasks.observe.tracing import note_span
from tasks.stages.fanout import chunk_work, merge_work, perform_chunk, perform_merge

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from lhcq.events.layout import EventFile


@worker_init.connect
def warm_up(sender: Any, **_: Any) -> None:
    """Before the worker of the cpu queue forks its pool: import, compile the loops, and hold them to FastJet."""
    if "cpu" not in sender.app.amqp.queues.consume_from:
        return
    import pyarrow as pa

    import lhcq.events.blocks
    import lhcq.events.contents
    import lhcq.jets.parts  # noqa: F401
    from lhcq.jets.agreement import check_agreement
    from lhcq.jets.clustering import compile_kernels

    # Arrow's own keeps what it freed beside the holes in malloc's heap: 10 to 25 MB of a process, at the same speed.
    pa.set_memory_pool(pa.system_memory_pool())
    compile_kernels()
    try:
        check_agreement()
    except PermanentError as error:
        sys.exit(f"lhcq: {error}")  # Celery logs any other exception of a signal and goes on


def _make(workspace: Workspace, job: Job, index: int, path: Path, held: Lease) -> None:
    from lhcq.events.blocks import read_blocks
    from lhcq.events.contents import hash_events
    from lhcq.events.layout import EventBlock
    from lhcq.jets.clustering import cluster_and_count
    from lhcq.jets.parts import Gap, fingerprint, part_schema_of, with_contents, write_part

    spec, terms = job.spec_of(ClusterSpec), job.terms_of(ClusterTerms)
    file, chunk = open_source(workspace, spec, terms), chunks_of(spec)[index]
    note_span(events=chunk.stop - chunk.start)
    gaps: list[Gap] = []
    ties: list[int] = []

    def tables() -> "Iterator[pa.Table]":
        schema = part_schema_of(spec.config.features, constituents=spec.config.constituents > 0)
        yield schema.empty_table()  # a chunk may have lost all its events
        for block in read_blocks(file, chunk.start, chunk.stop, skip_wrong=terms.tolerate > 0):
            if isinstance(block, EventBlock):
                contents = hash_events(block.particles, block.n_particles)  # while they are in the cache
                records, n_tied = cluster_and_count(
                    block.particles,
                    spec.config,
                    rows=block.rows,
                    labels=block.labels,
                    n_particles=block.n_particles,
                )
                ties.append(n_tied)
                yield with_contents(records, contents)
            else:
                gaps.append(Gap(start=block.start, stop=block.stop, reason=block.reason))
            held.check()

    write_part(path, tables(), fingerprint(), gaps, ties)


def open_source(workspace: Workspace, spec: ClusterSpec, terms: ClusterTerms) -> "EventFile":
    """A job's source, or an error when it is no longer the file that was hashed."""
    source = workspace.permitted(Path(terms.source))
    known = (terms.bytes, terms.mtime_ns)
    file = _found(source, known).read_as(spec.config)
    status = source.stat()
    if (status.st_size, status.st_mtime_ns) != known:
        raise BadInput(f"{source}: changed since this job started. Run the same command again.")
    return file


@functools.lru_cache(maxsize=4)
def _found(source: Path, _: tuple[int, int]) -> "EventFile":
    """What the file of this size and time is: looked at once a process, since each task of a job asks."""
    from lhcq.events.layout import open_event_file

    return open_event_file(source)


def _merge(workspace: Workspace, job: Job, chunks: dict[int, Path], lost: dict[int, Failure]) -> str:
    from lhcq.jets.merge import merge_parts, read_standing

    if lost:  # for want of a worker, a disk or a library: what is not known of the events is not tolerated
        raise RowsMissing(summary_of(list(lost.values())))
    spec, terms = job.spec_of(ClusterSpec), job.terms_of(ClusterTerms)
    final = workspace.dataset(job.name)
    fields = {
        "name": job.name,
        "source": terms.source,
        "source_sha256": spec.source_sha256,
        "labels_sha256": spec.labels_sha256,
        "config": spec.recorded()["config"],
    }
    if (final / MANIFEST).exists():  # the chunks may be gone
        manifest = read_standing(final, fields)
    else:
        manifest = merge_parts(
            [chunks[index] for index in sorted(chunks)],
            final,
            n_events=spec.n_events,
            manifest_fields=fields,
            features=spec.config.features,
            axes=spec.config.axes,
            constituents=spec.config.constituents > 0,
            tolerate=terms.tolerate,
            labels=read_key(workspace, terms.labels, spec.labels_sha256, spec.n_events),
        )
    note_span(events=manifest["rows"])
    return f"{manifest['rows']} events in {workspace.relative(final)}"


def read_key(
    workspace: Workspace, key: str | None, sha256: str | None, n_events: int
) -> "NDArray[np.int8] | None":
    """The labels (n_events,) by source row in the master key that a job names, as it was hashed; None without one."""
    if key is None:
        return None
    from lhcq.events.masterkey import read_master_key

    path = workspace.permitted(Path(key))
    labels = read_master_key(path, n_events)
    if sha256_of(path) != sha256:
        raise BadInput(f"{path}: changed since this job started. Run the same command again.")
    return labels


@app.task(name="lhcq.cluster_part", work=staticmethod(chunk_work(_make)))
def cluster_part(name: str, index: int) -> str:
    """Cluster the events of one chunk."""
    return perform_chunk("cluster", name, index, _make)


@app.task(name="lhcq.cluster_merge", work=staticmethod(merge_work(_merge)))
def cluster_merge(name: str) -> str:
    """Merge all chunks into the dataset."""
    return perform_merge("cluster", name, _merge)
