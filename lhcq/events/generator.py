"""Pythia 8 as a source of triggered events: the cards of both classes, the trigger, the final particles.

Source: the description of the LHC Olympics R&D data set (Zenodo record 6466204) and the card of its mirrored sample.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.errors import BadInput, PermanentError
from lhcq.events.layout import N_PARTICLES
from lhcq.events.stdout import silenced_stdout

ETA_MAX = 5.0
TRIGGER_PT = 1200.0
TRIGGER_ETA = 2.5

# Two early looks spare most of the work and, measured, cost no events. Of 850 background events that passed the
# trigger, one had its hardest jet of partons below 1050 GeV when the shower had come down to 50 GeV; of 1,865 of
# both classes none had it below 1195 GeV at the end of the shower.
SHOWER_SCALE = 50.0
SHOWER_PT = 1050.0
PARTON_PT = 1150.0

COMMON_CARD = (
    "Print:quiet = on",
    "Beams:eCM = 13000.",
    "PartonLevel:MPI = off",
    "HadronLevel:all = off",  # asked for by hand, for the events that may pass
    "Random:setSeed = on",
)
# Measured: none of 100,000 events with pTHat in 500 to 600 GeV passes the trigger, so that less than 0.3 percent of
# the triggered events lie below 600 (from 700 on 1 percent would be missing, from 800 on 4).
BACKGROUND_CARD = (
    "HardQCD:all = on",
    "PhaseSpace:pTHatMin = 600.",
)
# W' -> W Z with the masses of X and Y. The heavy W must not decay to a top quark, which would decay on.
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


def require_pythia() -> Any:
    """Import Pythia 8 and give its module, or raise `BadInput` saying how to install it."""
    try:
        import pythia8mc
    except ImportError as error:
        raise BadInput("Pythia 8 is not installed. Run: pip install 'lhcq[generate]'.") from error
    return pythia8mc


class Generator:
    """Pythia, started for one class (1 signal, 0 background) with one seed."""

    def __init__(self, *, label: int, seed: int) -> None:
        pythia8 = require_pythia()
        self._pythia = pythia8.Pythia("", False)
        # Kept here because Pythia's own hold on a Python object does not keep it alive.
        self._veto = None if label else _shower_veto(pythia8)
        if self._veto:
            self._pythia.setUserHooksPtr(self._veto)
        # Anti-kt, R=1, of massless particles with |eta| < 5: all partons, then the visible hadrons.
        self._parton_jets = pythia8.SlowJet(-1, 1.0, PARTON_PT, ETA_MAX, 1, 0)
        self._visible_jets = pythia8.SlowJet(-1, 1.0, TRIGGER_PT, ETA_MAX, 2, 0)
        self._start(*COMMON_CARD, *(SIGNAL_CARD if label else BACKGROUND_CARD), f"Random:seed = {seed}")
        _hush_banner(self._pythia.event, self._visible_jets)

    def _start(self, *card: str) -> None:
        if not (all(self._pythia.readString(line) for line in card) and self._pythia.init()):
            raise PermanentError(
                "Pythia 8 does not start with lhcq's settings. Is PYTHIA8DATA set to another version's files?"
            )

    def try_event(self) -> NDArray[np.float64] | None:
        """Generate one event: its particles (n <= 700, 3), or None when it failed or does not pass the trigger."""
        event = self._pythia.event
        passed = (
            self._pythia.next()
            and _has_central_jet(self._parton_jets, event)
            and self._pythia.forceHadronLevel()
            and _has_central_jet(self._visible_jets, event)
        )
        return _visible_particles(event) if passed else None


def _shower_veto(pythia8: Any) -> Any:
    """A hook that has Pythia begin another event when a half-showered one will not make the jet."""

    class ShowerVeto(pythia8.UserHooks):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._jets = pythia8.SlowJet(-1, 1.0, SHOWER_PT, ETA_MAX, 1, 0)

        def canVetoPT(self) -> bool:  # noqa: N802 (Pythia's name)
            return True

        def scaleVetoPT(self) -> float:  # noqa: N802
            return SHOWER_SCALE

        def doVetoPT(self, _: int, event: Any) -> bool:  # noqa: N802
            self._jets.analyze(event)
            return bool(self._jets.sizeJet() == 0)

    return ShowerVeto()


def _hush_banner(event: Any, jets: Any) -> None:
    """Cluster two photons where nobody listens: FastJet's core prints a banner at a process's first clustering."""
    event.reset()
    for direction in (1.0, -1.0):
        event.append(22, 1, 0, 0, direction, 0.0, 0.0, 1.0)
    with silenced_stdout():
        jets.analyze(event)
    event.reset()


def _has_central_jet(jets: Any, event: Any) -> bool:
    jets.analyze(event)
    return any(abs(jets.p(index).eta()) < TRIGGER_ETA for index in range(jets.sizeJet()))


def _visible_particles(event: Any) -> NDArray[np.float64]:
    """(n, 3): pt (GeV), eta, phi of the 700 hardest, rounded to what float32 holds, in Pythia's order."""
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
