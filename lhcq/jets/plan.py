"""How a file of events is cut into chunks, one a task."""

from dataclasses import dataclass

from lhcq.errors import BadInput

# 2 to 3 s of one core at R=1.0 (about 250 us an event): long against a message, short against a lost worker.
DEFAULT_EVENTS_PER_CHUNK = 10_000


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The rows [start, stop) of a source file; `index` counts the chunks from 0."""

    index: int
    start: int
    stop: int


def plan_chunks(n_events: int, *, storage_rows: int, target: int = DEFAULT_EVENTS_PER_CHUNK) -> list[Chunk]:
    """Cut the rows [0, n_events) into half-open chunks of about `target` rows, none of them empty.

    A boundary falls on a multiple of `storage_rows`, so that no HDF5 chunk is decompressed twice: a chunk has
    fewer than `target + storage_rows` rows, and all are alike to within two storage chunks. Opens nothing.
    """
    if n_events < 0 or storage_rows < 1 or target < 1:
        raise BadInput(
            f"cannot cut {n_events} events, stored by {storage_rows} rows, into chunks of {target}: "
            "give at least one event per chunk."
        )
    blocks = -(-n_events // storage_rows)
    n_chunks = min(blocks, -(-n_events // target))
    bounds = [min(n_events, index * blocks // n_chunks * storage_rows) for index in range(n_chunks)] + [
        n_events
    ]
    return [Chunk(index=index, start=bounds[index], stop=bounds[index + 1]) for index in range(n_chunks)]
