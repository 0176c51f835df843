"""Asking for the jets of a file of events."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from lhcq.config import ClusterConfig
from lhcq.errors import BadInput, LhcqError
from lhcq.events.layout import EventFile, open_event_file, read_values
from lhcq.events.masterkey import read_master_key
from lhcq.events.oddities import SAMPLE, find_oddities
from lhcq.events.sandboxed_read import read_apart
from lhcq.jets.plan import Chunks, events_per_chunk, plan_chunks
from lhcq.records.jobs import Job
from lhcq.records.specs import ClusterSpec, ClusterTerms
from lhcq.storage import check_room, sha256_of
from lhcq.workspace import Workspace

_BYTES_PER_EVENT = {"jets": 600, "full": 1000}  # a clustered event, once in a chunk and once in the dataset
_LONG_TO_HASH = 500_000_000  # bytes


def find_events(
    workspace: Workspace, file: Path, config: ClusterConfig, *, warn: Callable[[str], None] = lambda _: None
) -> EventFile:
    """What a file of events is, read as a configuration says, in a process that a damaged one may take with it.

    `warn` is told what looks as if its numbers were meant otherwise.
    """
    source = workspace.permitted(file.absolute())
    events, oddities = read_apart(source, lambda: _open_and_look(source, config))
    for sentence in cast("list[str]", oddities):
        warn(f"{source}: {sentence}")
    return cast("EventFile", events)


def _open_and_look(source: Path, config: ClusterConfig) -> Iterator[EventFile | list[str]]:
    events = open_event_file(source, config)
    yield events
    oddities: list[str] = []
    with contextlib.suppress(LhcqError):  # told, or tolerated, once they are clustered
        if events.n_events:
            oddities = find_oddities(read_values(events, 0, min(SAMPLE, events.n_events)))
    yield oddities


def cluster_request(
    workspace: Workspace,
    events: EventFile,
    name: str,
    config: ClusterConfig,
    *,
    key: Path | None = None,
    tolerate: float = 0.0,
    chunk: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Job:
    """The job that makes the dataset `name`.

    `key` is the master key of a file without labels, `tolerate` the share of the events that may be left out, `chunk`
    the events of one task (None: about three seconds of it).
    """
    workspace.dataset(name)
    if math.isnan(tolerate) or not 0 <= tolerate <= 1:
        raise BadInput(f"{tolerate} is no fraction of the events that may be left out: give one from 0 to 1.")
    check_room(workspace.root, events.n_events * _BYTES_PER_EVENT[config.features])
    if key and events.labelled:
        raise BadInput(f"{events.path}: has labels of its own. Leave --labels out.")
    if key:
        read_master_key(key, events.n_events)  # a wrong one is refused before anything starts
    if events.size > _LONG_TO_HASH:
        say(f"reading {events.path} once for its sha256 ({events.size / 1e9:.1f} GB)")
    status = events.path.stat()
    spec = ClusterSpec.resolved(
        source_sha256=sha256_of(events.path),
        labels_sha256=sha256_of(key) if key else None,
        n_events=events.n_events,
        storage_rows=events.storage_rows,
        events_per_chunk=chunk or events_per_chunk(events.n_events, config.features),
        config=config.model_dump(),
    )
    terms = ClusterTerms(
        source=str(events.path),
        bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        labels=str(key.absolute()) if key else None,
        tolerate=tolerate,
    )
    return Job(kind=spec.kind, name=name, spec=spec, terms=terms, parts=len(chunks_of(spec)))


def chunks_of(spec: ClusterSpec) -> Chunks:
    """The rows of each chunk of a clustering, by its index."""
    return plan_chunks(spec.n_events, storage_rows=spec.storage_rows, target=spec.events_per_chunk)
