"""The events that every benchmark clusters: generated once and kept, repeated where more are needed."""

import hashlib
import multiprocessing
import os
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import h5py

import lhcq.events
from benchmarks.rows import say
from lhcq.config import GenerateConfig
from lhcq.events.columns import WIDTH
from lhcq.events.layout import VALUES
from lhcq.events.pytables import create_frame
from lhcq.events.pythia import GeneratePart, assemble, generate_part, plan_parts, write_part
from lhcq.events.storage import opened
from lhcq.storage import sha256_of_json, staged_file

# The released mixture, 10 to 1, in whole storage chunks.
CONFIG = GenerateConfig(background=20_480, signal=2_048, seed=4)
N_EVENTS = CONFIG.background + CONFIG.signal
STORAGE_ROWS = 64  # what `lhcq generate` writes
# What decides the events, besides their configuration and Pythia.
SOURCES = ("calorimeter", "detector", "generator", "propagation", "pytables", "pythia")


def cache_directory() -> Path:
    """Where generated events are kept, and large files while they are needed."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lhcq"
    place.mkdir(parents=True, exist_ok=True)
    return place


def generated_events() -> Path:
    """The event file of `CONFIG`, in the released layout; generated unless the cache directory has it."""
    directory = Path(lhcq.events.__file__).parent
    sources = [hashlib.sha256((directory / f"{name}.py").read_bytes()).hexdigest() for name in SOURCES]
    key = sha256_of_json([CONFIG.model_dump(), version("pythia8mc"), sources])[:12]
    path = cache_directory() / f"events-{key}.h5"
    if not path.exists():
        say(f"generating {N_EVENTS:,} events into {path}: some 5 minutes of one core, on all of them")
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            parts = plan_parts(CONFIG)
            paths = [Path(scratch) / f"{part.index}.npy" for part in parts]
            with multiprocessing.get_context("spawn").Pool() as pool:
                pool.starmap(make_part, zip(parts, paths, strict=True), chunksize=1)
            assemble(CONFIG, paths, path)
    return path


def make_part(part: GeneratePart, path: Path) -> None:
    """What one generating task does."""
    write_part(path, *generate_part(part))


def repeat_events(source: Path, out: Path, n_rows: int) -> None:
    """Write a file of `n_rows` events, those of the generated file `source` over and over."""
    with opened(source) as given:
        n_stored = len(given[VALUES]) // STORAGE_ROWS
    _copy(source, out, (place % n_stored for place in range(-(-n_rows // STORAGE_ROWS))), n_rows)


def thin_events(source: Path, out: Path, step: int) -> int:
    """Write a file of every `step`-th storage chunk of the generated file `source`, and give its events."""
    places = range(0, N_EVENTS // STORAGE_ROWS, step)
    _copy(source, out, places, len(places) * STORAGE_ROWS)
    return len(places) * STORAGE_ROWS


def _copy(source: Path, out: Path, places: Iterable[int], n_rows: int) -> None:
    """Write a file of storage chunks of another, as they stand compressed."""
    with (
        opened(source) as given,
        staged_file(out) as temporary,
        h5py.File(temporary, "w", libver="earliest") as file,
    ):
        stored = given[VALUES].id
        target = create_frame(file, rows=n_rows, width=WIDTH, storage_rows=STORAGE_ROWS).id
        for at, place in enumerate(places):
            mask, chunk = stored.read_direct_chunk((place * STORAGE_ROWS, 0))
            target.write_direct_chunk((at * STORAGE_ROWS, 0), chunk, mask)
