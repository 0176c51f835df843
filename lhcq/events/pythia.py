"""Events of the LHC Olympics process, generated with Pythia 8: parts that workers make, mixed into one file.

Background: QCD dijets. Signal: W' (3.5 TeV) -> X (500 GeV) Y (100 GeV), both to two light quarks. 13 TeV, no
multiparton interactions, no pile-up, no detector; one anti-kt R=1 jet with |eta| < 2.5 and pt > 1.2 TeV required.
Source: the description of the R&D data set, Zenodo record 6466204, and the card of its mirrored sample.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.config import GenerateConfig
from lhcq.errors import BadInput, PermanentError, TransientError
from lhcq.events.layout import N_PARTICLES, UNLABELLED_WIDTH, WIDTH, write_event_file
from lhcq.events.stdout import silenced_stdout
from lhcq.workspace import staged_file

# Pythia takes 0.3 s to start and a background event 20 ms: a part costs 4 s, of which the start is 7 percent.
EVENTS_PER_PART = 200
ASSEMBLE_ROWS = 1024
"""Events held in memory while the parts are mixed: 17 MB."""

ETA_MAX = 5.0
TRIGGER_PT = 1200.0
TRIGGER_ETA = 2.5
# A jet of partons below this was never seen to become a jet of hadrons that passes; it spares the hadronization.
PARTON_PT = 1100.0
TRIES_PER_EVENT = 1000
LAST_SEED = 900_000_000

COMMON_CARD = (
    "Print:quiet = on",
    "Beams:eCM = 13000.",
    "PartonLevel:MPI = off",
    "HadronLevel:all = off",  # done by hand for the events that may pass
    "Random:setSeed = on",
)
BACKGROUND_CARD = (
    "HardQCD:all = on",
    "PhaseSpace:pTHatMin = 800.",
)
# W' -> W Z with the masses of X and Y. A top quark would decay on, so the heavy W must not make any.
SIGNAL_CARD = (
    "NewGaugeBoson:ffbar2Wprime = on",
    "Wprime:coup2WZ = 1.",
    "34:m0 = 3500.",
    "34:onMode = off",
    "34:onIfMatch = 23 24",
    "24:m0 = 500.",
    "24:onMode = off",
    "24:onIfAny = 1 2 3 4",
    "24:offIfAny = 6",
    "23:m0 = 100.",
    "23:onMode = off",
    "23:onIfAny = 1 2 3 4",
)

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
    """Pythia's, 1 to 900,000,000."""


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
                )
            )
    return parts


def require_pythia() -> Any:
    """Import Pythia 8 and give it, or raise `BadInput` saying how to install it."""
    try:
        import pythia8mc
    except ImportError as error:
        raise BadInput("Pythia 8 is not installed. Run: pip install 'lhcq[generate]'.") from error
    return pythia8mc


def generate_part(
    part: GeneratePart, *, tries_per_event: int = TRIES_PER_EVENT
) -> tuple[NDArray[np.float64], Labels]:
    """Generate the events of a part that pass the trigger: particles (n, 700, 3) and labels (n,).

    Particles are massless (pt in GeV, eta, phi), visible, within |eta| < 5, the 700 hardest ones, and float32-exact
    as in the released files. An event that fails in Pythia or at the trigger is tried again with the next random
    numbers. Raises `BadInput` without Pythia, `TransientError` when `tries_per_event` were not enough.
    """
    pythia8 = require_pythia()
    generator = _start(pythia8, part)
    trigger = _Trigger(pythia8)
    trigger.warm_up(generator.event)
    particles = np.zeros((part.n_events, N_PARTICLES, 3))
    accepted = 0
    for _ in range(part.n_events * tries_per_event):
        if _next_event(generator, trigger):
            found = _visible_particles(generator.event)
            particles[accepted, : len(found)] = found
            accepted += 1
            if accepted == part.n_events:
                return particles, np.full(part.n_events, part.label, dtype=np.int8)
    raise TransientError(
        f"part {part.index} (seed {part.seed}): only {accepted} of {part.n_events} events passed the trigger in "
        f"{part.n_events * tries_per_event} tries. Pythia does not work as it should here."
    )


def write_part(path: Path, particles: NDArray[np.float64], labels: Labels) -> None:
    """Commit a part as float32 rows of the LHC Olympics layout, in numpy's format; the first commit wins."""
    rows = np.zeros((len(labels), WIDTH), dtype=np.float32)
    rows[:, :UNLABELLED_WIDTH] = particles.reshape(len(labels), UNLABELLED_WIDTH)
    rows[:, UNLABELLED_WIDTH] = labels
    with staged_file(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)


def read_part(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The particles (n, 700, 3) and labels (n,) of a part, mapped into memory and not read.

    Raises `BadInput` when the file is not a part.
    """
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(
            f"{path}: not a part that can be read ({error}). Remove it and generate again."
        ) from error
    if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != WIDTH:
        raise BadInput(f"{path}: not a part of generated events. Remove it and generate again.")
    return rows[:, :UNLABELLED_WIDTH].reshape(-1, N_PARTICLES, 3), rows[:, UNLABELLED_WIDTH]


def assemble(config: GenerateConfig, part_paths: list[Path], out: Path) -> None:
    """Mix the parts, given in the order of `plan_parts`, into the event file `out`; the first commit wins.

    The mixing depends on the seed and the numbers of events alone. Raises `BadInput` when a part is not what was
    planned.
    """
    parts = plan_parts(config)
    if not parts:
        raise BadInput("no events to generate: give --background, --signal or both.")
    _check_parts(parts, part_paths)
    with staged_file(out) as temporary:
        write_event_file(temporary, _mixed(config, parts, part_paths), config.background + config.signal)


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
        raise BadInput(f"{len(paths)} parts were given and {len(parts)} planned.")
    for part, path in zip(parts, paths, strict=True):
        _, labels = read_part(path)
        if len(labels) != part.n_events or (labels != part.label).any():
            raise BadInput(
                f"{path}: holds {len(labels)} events and not the {part.n_events} of class {part.label} planned. "
                "Remove it and generate again."
            )


def _start(pythia8: Any, part: GeneratePart) -> Any:
    generator = pythia8.Pythia("", False)
    cards = (*COMMON_CARD, *(SIGNAL_CARD if part.label else BACKGROUND_CARD), f"Random:seed = {part.seed}")
    if not all(generator.readString(line) for line in cards) or not generator.init():
        raise PermanentError(
            "Pythia 8 does not start with lhcq's settings. Is PYTHIA8DATA set to another version's files?"
        )
    return generator


class _Trigger:
    """Pythia's own anti-kt, R=1, of massless particles, first of partons and then of what is visible."""

    def __init__(self, pythia8: Any) -> None:
        self._partons = pythia8.SlowJet(-1, 1.0, PARTON_PT, ETA_MAX, 1, 0)
        self._visible = pythia8.SlowJet(-1, 1.0, TRIGGER_PT, ETA_MAX, 2, 0)

    def warm_up(self, event: Any) -> None:
        """Cluster two photons, unheard: FastJet's core prints a banner at the first clustering of a process."""
        event.reset()
        for sign in (1.0, -1.0):
            event.append(22, 1, 0, 0, sign, 0.0, 0.0, 1.0)
        with silenced_stdout():
            self._visible.analyze(event)

    def may_pass(self, event: Any) -> bool:
        """Whether an event of partons is worth its hadronization."""
        return _has_central_jet(self._partons, event)

    def passes(self, event: Any) -> bool:
        """Whether an event of hadrons has the jet."""
        return _has_central_jet(self._visible, event)


def _has_central_jet(jets: Any, event: Any) -> bool:
    jets.analyze(event)
    return any(abs(jets.p(index).eta()) < TRIGGER_ETA for index in range(jets.sizeJet()))


def _next_event(generator: Any, trigger: _Trigger) -> bool:
    """Generate one event; False when it failed or does not pass."""
    return bool(
        generator.next()
        and trigger.may_pass(generator.event)
        and generator.forceHadronLevel()
        and trigger.passes(generator.event)
    )


def _visible_particles(event: Any) -> NDArray[np.float64]:
    """(n, 3), at most 700 rows: pt (GeV), eta, phi, each rounded to float32, in Pythia's order."""
    found = np.array(
        [
            (particle.pT(), particle.eta(), particle.phi())
            for particle in event
            if particle.isFinal() and particle.isVisible() and abs(particle.eta()) < ETA_MAX
        ]
    )
    if len(found) > N_PARTICLES:
        hardest = np.argsort(-found[:, 0], kind="stable")[:N_PARTICLES]
        found = found[np.sort(hardest)]
    return found.astype(np.float32).astype(np.float64)
