"""Events of the LHC Olympics process, generated with Pythia 8: parts that workers make, mixed into one file.

Background: QCD dijets. Signal: W' (3.5 TeV) -> X (500 GeV) Y (100 GeV), both to two light quarks. No multiparton
interactions, no pile-up; the particle flow of a CMS-like detector; one anti-kt R=1 jet with |eta| < 2.5 and
pt > 1.2 TeV required. The physics stands in `lhcq.events.generator` and `lhcq.events.detector`.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lhcq.config import GenerateConfig
from lhcq.errors import BadInput, DamagedChunk, TransientError
from lhcq.events.columns import N_PARTICLES, UNLABELLED_WIDTH, WIDTH
from lhcq.events.generator import Generator, require_pythia
from lhcq.events.layout import write_event_file
from lhcq.storage import staged_file

__all__ = [
    "EVENTS_PER_PART",
    "GeneratePart",
    "assemble",
    "generate_part",
    "plan_parts",
    "read_part",
    "require_pythia",
    "write_part",
]

# Measured: Pythia takes 0.3 s to start, then 11 ms for a background event and 8 ms for a signal event. A killed
# worker loses at most 3 s, and starting costs a tenth of a background part.
EVENTS_PER_PART = 200
SECONDS_PER_EVENT = 0.013
"""Of one core, starting included: what a plan is made with."""
ASSEMBLE_ROWS = 1024
"""Events held in memory while the parts are mixed: 17 MB."""

_DIGEST = hashlib.sha256().digest_size
"""Bytes at the end of a part."""
TRIES_PER_EVENT = 1000
LAST_SEED = 900_000_000

Labels = NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class GeneratePart:
    """Events of one class that one worker generates in one go."""

    index: int
    """Place among all parts of the file."""
    label: int
    """1 signal, 0 background."""
    n_events: int
    seed: int
    """Pythia's and the detector's, 1 to 900,000,000."""
    detector: bool = True
    """Whether the particles are those that a detector sees."""


def plan_parts(config: GenerateConfig) -> list[GeneratePart]:
    """Cut the events of each class into parts of at most `EVENTS_PER_PART`, background first.

    A class's parts and their seeds do not depend on how many events of the other there are, and no two parts
    of a file have the same seed.
    """
    base = int.from_bytes(hashlib.sha256(f"lhcq generate {config.seed}".encode()).digest()[:8])
    parts: list[GeneratePart] = []
    for label, n_events in ((0, config.background), (1, config.signal)):
        for ordinal, start in enumerate(range(0, n_events, EVENTS_PER_PART)):
            parts.append(
                GeneratePart(
                    index=len(parts),
                    label=label,
                    n_events=min(EVENTS_PER_PART, n_events - start),
                    seed=1 + (base + 2 * ordinal + label) % LAST_SEED,
                    detector=config.detector,
                )
            )
    return parts


def generate_part(
    part: GeneratePart,
    *,
    tries_per_event: int = TRIES_PER_EVENT,
    on_event: Callable[[], None] = lambda: None,
) -> tuple[NDArray[np.float64], Labels]:
    """Generate the events of a part that pass the trigger: particles (n, 700, 3) and labels (n,).

    Particles are massless (pt in GeV, eta, phi), visible, within |eta| < 5, the 700 hardest ones, and float32-exact
    as in the released files. An event that fails in Pythia or at the trigger is tried again with the next random
    numbers. `on_event` is called before each. Raises `BadInput` without Pythia, `TransientError` when
    `tries_per_event` are not enough.
    """
    generator = Generator(label=part.label, seed=part.seed, detector=part.detector)
    particles = np.zeros((part.n_events, N_PARTICLES, 3))
    accepted = 0
    for _ in range(part.n_events * tries_per_event):
        on_event()
        found = generator.try_event()
        if found is not None:
            particles[accepted, : len(found)] = found
            accepted += 1
            if accepted == part.n_events:
                return particles, np.full(part.n_events, part.label, dtype=np.int8)
    raise TransientError(
        f"chunk {part.index} (seed {part.seed}): only {accepted} of {part.n_events} events passed the trigger in "
        f"{part.n_events * tries_per_event} tries. Pythia does not work as it should here."
    )


def write_part(path: Path, particles: NDArray[np.float64], labels: Labels) -> None:
    """Commit a part: float32 rows of the LHC Olympics layout in numpy's format, then the sha256 of all that.

    The first commit wins.
    """
    rows = np.zeros((len(labels), WIDTH), dtype=np.float32)
    rows[:, :UNLABELLED_WIDTH] = particles.reshape(len(labels), UNLABELLED_WIDTH)
    rows[:, UNLABELLED_WIDTH] = labels
    content = io.BytesIO()  # numpy writing to a real file reports a full disk without saying that it is one
    np.save(content, rows, allow_pickle=False)
    with staged_file(path, sync_name=False) as temporary:
        digest = hashlib.sha256(content.getbuffer()).digest()
        content.write(digest)
        temporary.write_bytes(content.getbuffer())


def read_part(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The particles (n, 700, 3) and labels (n,) of a part, mapped into memory and not read.

    Raises `DamagedChunk` when the file is not a part.
    """
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DamagedChunk.at(path, f"not a chunk that can be read ({error})") from error
    if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != WIDTH:
        raise DamagedChunk.at(path, "not a chunk of generated events")
    return rows[:, :UNLABELLED_WIDTH].reshape(-1, N_PARTICLES, 3), rows[:, UNLABELLED_WIDTH]


def assemble(
    config: GenerateConfig,
    part_paths: list[Path],
    out: Path,
    *,
    on_made: Callable[[Path], None] = lambda _: None,
) -> None:
    """Mix the parts, given in the order of `plan_parts`, into the event file `out`; the first commit wins.

    The mixing depends on the seed and the numbers of events alone. `on_made` is told where the whole file is, before
    it has its name. Raises `DamagedChunk` when a part is not what was planned.
    """
    parts = plan_parts(config)
    if not parts:
        raise BadInput("no events to generate: give --background, --signal or both.")
    _check_parts(parts, part_paths)
    with staged_file(out) as temporary:
        write_event_file(temporary, _mixed(config, parts, part_paths), config.background + config.signal)
        on_made(temporary)


def _mixed(
    config: GenerateConfig, parts: list[GeneratePart], paths: list[Path]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Blocks of the permuted events; each block opens the parts it needs, so that memory and handles stay few."""
    starts = np.cumsum([0, *(part.n_events for part in parts)])
    order = np.random.Generator(np.random.PCG64(config.seed)).permutation(int(starts[-1]))
    for start in range(0, len(order), ASSEMBLE_ROWS):
        wanted = order[start : start + ASSEMBLE_ROWS]
        owner = np.searchsorted(starts, wanted, side="right") - 1
        particles = np.empty((len(wanted), N_PARTICLES, 3), dtype=np.float32)
        labels = np.empty(len(wanted), dtype=np.float32)
        for index in np.unique(owner):
            mine = owner == index
            rows = wanted[mine] - starts[index]
            part_particles, part_labels = read_part(paths[index])
            particles[mine] = part_particles[rows]
            labels[mine] = part_labels[rows]
        yield particles, labels


def _check_parts(parts: list[GeneratePart], paths: list[Path]) -> None:
    if len(parts) != len(paths):
        raise BadInput(f"{len(paths)} chunks were given and {len(parts)} planned.")
    for part, path in zip(parts, paths, strict=True):
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
            raise DamagedChunk.at(path, "a damaged chunk, or none")
        _, labels = read_part(path)
        if len(labels) != part.n_events or (labels != part.label).any():
            raise DamagedChunk.at(
                path,
                f"holds {len(labels)} events and not the {part.n_events} of class {part.label} planned",
            )
