"""HDF5: event files, features files, and what lhcq writes itself."""

import functools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

from lhcq.events.blocks import read_blocks
from lhcq.events.featurefile import OF_JETS, open_feature_file, read_features
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import open_event_file, write_event_file
from lhcq.events.pytables import write_frame
from lhcq.events.sandboxed_read import read_apart
from lhcq.jets.import_features import build_records, imported_schema
from lhcq.jets.plan import events_per_chunk, plan_chunks
from tests.fuzz.mutation import mutate_bytes, strange_value
from tests.fuzz.spoilt import refused


def _bytes_of(write: Callable[[Path], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "file")
        return (Path(place) / "file").read_bytes()


def _events(n_events: int) -> tuple[Any, Any]:
    random = np.random.Generator(np.random.PCG64(1))
    particles = np.zeros((n_events, 700, 3))
    particles[:, :20] = random.random((n_events, 20, 3))
    return particles, np.arange(n_events) % 2


def _plain_table(path: Path, **storage: Any) -> None:
    particles, labels = _events(3)
    with h5py.File(path, "w") as file:
        values = np.column_stack([particles.reshape(3, 2100), labels])
        file.create_dataset("df/block0_values", data=values, **storage)


@functools.cache
def event_seeds() -> list[bytes]:
    """Small event files: as lhcq writes them, contiguous, deflated, a black box, of the newest format."""
    return [
        _bytes_of(lambda path: write_event_file(path, [_events(6)], 6, storage_rows=2)),
        _bytes_of(lambda path: _plain_table(path, dtype="f4")),
        _bytes_of(lambda path: _plain_table(path, chunks=(1, 2101), compression="gzip", shuffle=True)),
        _bytes_of(lambda path: _plain_table(path, chunks=(2, 700), fletcher32=True, compression="gzip")),
        _bytes_of(_newest_format),
    ]


def _newest_format(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("df/block0_values", data=_events(2)[0].reshape(2, 2100), chunks=(1, 2100))


@functools.cache
def real_seed() -> bytes | None:
    """The published 1,000 events."""
    where = os.environ.get("LHCQ_TEST_DATA")
    return Path(where, "events_anomalydetection_tiny.h5").read_bytes() if where else None


@functools.cache
def _metadata_of_real() -> int:
    """Bytes at the file's beginning in which its structure stands, and that are worth most of the changes."""
    return 65_536


def make_events(random: Random) -> bytes:
    return mutate_bytes(random.choice(event_seeds()), random)


def make_real(random: Random) -> bytes:
    whole = real_seed()
    if whole is None:
        return make_events(random)
    cut = _metadata_of_real() if random.random() < 0.7 else len(whole)
    return mutate_bytes(whole[:cut], random) + whole[cut:]


def attack_events(data: bytes, place: Path) -> None:
    """Read as the commands do: in a child, which may die."""
    path = place / "events.h5"
    path.write_bytes(data)
    list(read_apart(path, lambda: _read_events(path)))


def _read_events(path: Path) -> Iterator[None]:
    with refused():
        inspect_file(path)
    file = open_event_file(path)
    plan_chunks(file.n_events, storage_rows=file.storage_rows, target=events_per_chunk(file.n_events, "jets"))
    for _ in read_blocks(file, 0, min(file.n_events, 64), skip_wrong=True):
        yield


@functools.cache
def feature_seeds() -> list[bytes]:
    """Small features files: named columns, numbered ones, two blocks."""
    values = np.random.Generator(np.random.PCG64(2)).random((5, 14)) + 1.0
    return [
        _bytes_of(lambda path: write_frame(path, [values], rows=5, columns=OF_JETS, storage_rows=2)),
        _bytes_of(lambda path: _two_blocks(path, values)),
    ]


def _two_blocks(path: Path, values: Any) -> None:
    with h5py.File(path, "w") as file:
        file["df/axis0"] = np.arange(15)
        file["df/block0_items"], file["df/block0_values"] = np.arange(14), values
        file["df/block1_items"], file["df/block1_values"] = np.array([14]), np.ones((5, 1), np.int64)


def make_features(random: Random) -> bytes:
    return mutate_bytes(random.choice(feature_seeds()), random)


def attack_features(data: bytes, place: Path) -> None:
    path = place / "features.h5"
    path.write_bytes(data)
    with refused():
        inspect_file(path)
    file = open_feature_file(path)
    schema = imported_schema(file.columns)
    for block in read_features(file, rows=16_384):
        build_records((block.rows, block.values, block.labels), schema)


def make_frame(random: Random) -> tuple[list[str], int]:
    names = [str(strange_value(random)) if random.random() < 0.2 else name for name in OF_JETS]
    return names[: random.randrange(1, 15)], random.randrange(1, 9)


def attack_frame(data: tuple[list[str], int], place: Path) -> None:
    """What `lhcq export` writes is read again, whatever the columns are called."""
    names, rows = data
    path = place / "frame.h5"
    if any("\ud800" in name or "\0" in name for name in names):
        return  # no column of lhcq's: its names are constants
    write_frame(path, [np.ones((rows, len(names)))], rows=rows, columns=names, storage_rows=2)
    file = open_feature_file(path)
    for _ in read_features(file, rows=4):
        pass
