"""How a file of events is cut into chunks, one a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from lhcq.config import FeatureSet
from lhcq.errors import BadInput

# Long against a message (some ms), short against the work that a lost worker loses.
TASK_SECONDS = 3.0
# Of one core, all of a task: R=1.0, 170 particles an event (benchmarks/results/profile.json, rounded).
SECONDS_PER_EVENT: dict[FeatureSet, float] = {"jets": 150e-6, "full": 280e-6}
# A small file is cut finer, so that every core of a desktop has some of it; not into tasks that are mostly message.
FEWEST_CHUNKS = 16
FEWEST_EVENTS = 250


def events_per_chunk(n_events: int, features: FeatureSet, *, seconds: float = TASK_SECONDS) -> int:
    """Events in a chunk whose task takes about `seconds` on one core; fewer where the file is small.

    Depends on the file and the configuration alone, so that the same command finds the same chunks anywhere.
    """
    fine = max(FEWEST_EVENTS, -(-n_events // FEWEST_CHUNKS))
    return max(1, min(fine, round(seconds / SECONDS_PER_EVENT[features])))


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The rows [start, stop) of a source file; `index` counts the chunks from 0."""

    index: int
    start: int
    stop: int


class Chunks(Sequence[Chunk]):
    """The chunks of a file, each worked out when it is asked for: a task of one of a million needs one."""

    def __init__(self, n_events: int, *, storage_rows: int, target: int) -> None:
        self._n_events = n_events
        self._storage_rows = storage_rows
        self._blocks = -(-n_events // storage_rows)
        self._n_chunks = min(self._blocks, -(-n_events // target))

    def __len__(self) -> int:
        return self._n_chunks

    @overload
    def __getitem__(self, index: int) -> Chunk: ...
    @overload
    def __getitem__(self, index: slice) -> list[Chunk]: ...
    def __getitem__(self, index: int | slice) -> Chunk | list[Chunk]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return Chunk(index=index, start=self._bound(index), stop=self._bound(index + 1))

    def _bound(self, index: int) -> int:
        return min(self._n_events, index * self._blocks // self._n_chunks * self._storage_rows)


def plan_chunks(n_events: int, *, storage_rows: int, target: int) -> Chunks:
    """Cut the rows [0, n_events) into half-open chunks of about `target` rows, none of them empty.

    A boundary falls on a multiple of `storage_rows`, so that no HDF5 chunk is decompressed twice: a chunk has
    fewer than `target + storage_rows` rows, and all are alike to within two storage chunks. Opens nothing.
    """
    if n_events < 0 or storage_rows < 1 or target < 1:
        raise BadInput(
            f"cannot cut {n_events} events, stored by {storage_rows} rows, into chunks of {target}: "
            "give at least one event per chunk."
        )
    return Chunks(n_events, storage_rows=storage_rows, target=target)
