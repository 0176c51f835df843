"""Pythia 8 as a source of triggered events: the cards of both classes, the detector, the trigger.

Source: the description of the LHC Olympics R&D data set (Zenodo record 6466204) and the card of its mirrored sample.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.errors import BadInput, PermanentError
from lhcq.events.detector import Truth, respond
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
    # What lives longer than 10 mm/c meets the detector, as in the examples that Delphes brings for Pythia 8.
    "ParticleDecays:limitTau0 = on",
    "ParticleDecays:tau0Max = 10.",
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
    """Pythia, started for one class (1 signal, 0 background) with one seed, and the detector behind it."""

    def __init__(self, *, label: int, seed: int, detector: bool = True) -> None:
        pythia8 = require_pythia()
        self._pythia = pythia8.Pythia("", False)
        # Kept here because Pythia's own hold on a Python object does not keep it alive.
        self._veto = None if label else _shower_veto(pythia8)
        if self._veto:
            self._pythia.setUserHooksPtr(self._veto)
        # Anti-kt, R=1, of massless particles with |eta| < 5: all partons, then the visible particles.
        self._parton_jets = pythia8.SlowJet(-1, 1.0, PARTON_PT, ETA_MAX, 1, 0)
        self._visible_jets = pythia8.SlowJet(-1, 1.0, TRIGGER_PT, ETA_MAX, 2, 0)
        # Of its own, so that an event does not depend on how Pythia uses random numbers.
        self._rng = np.random.Generator(np.random.PCG64(seed)) if detector else None
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
        made = (
            self._pythia.next()
            and _has_central_jet(self._parton_jets, event)
            and self._pythia.forceHadronLevel()
        )
        if not made:
            return None
        truth = _read_visible(event)
        found = _hardest(_seen(truth) if self._rng is None else respond(truth, self._rng))
        # The trigger looks at what will be written.
        _fill(event, found)
        return found if _has_central_jet(self._visible_jets, event) else None


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
    """Cluster two particles where nobody listens: FastJet's core prints a banner at a process's first clustering."""
    _fill(event, np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 3.0]]))
    with silenced_stdout():
        jets.analyze(event)
    event.reset()


def _has_central_jet(jets: Any, event: Any) -> bool:
    jets.analyze(event)
    return any(abs(jets.p(index).eta()) < TRIGGER_ETA for index in range(jets.sizeJet()))


def _read_visible(event: Any) -> Truth:
    """The final visible particles."""
    rows = np.array(
        [
            (
                particle.id(),
                particle.charge(),
                particle.px(),
                particle.py(),
                particle.pz(),
                particle.e(),
                particle.xProd(),
                particle.yProd(),
                particle.zProd(),
            )
            for particle in event
            if particle.isFinal() and particle.isVisible()
        ]
    ).reshape(-1, 9)
    return Truth(
        pdg=rows[:, 0].astype(np.int64), charge=rows[:, 1], momentum=rows[:, 2:6], origin=rows[:, 6:]
    )


def _seen(truth: Truth) -> NDArray[np.float64]:
    """The particles themselves, (n, 3): pt (GeV), eta, phi."""
    px, py, pz, _ = truth.momentum.T
    pt = np.hypot(px, py)
    flat = pt > 0
    return np.column_stack([pt[flat], np.arcsinh(pz[flat] / pt[flat]), np.arctan2(py[flat], px[flat])])


def _hardest(particles: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most 700, those within |eta| < 5, in their order, rounded to what float32 holds."""
    rounded = particles.astype(np.float32).astype(np.float64)
    found = rounded[(np.abs(rounded[:, 1]) < ETA_MAX) & (rounded[:, 0] > 0)]
    if len(found) > N_PARTICLES:
        hardest = np.argsort(-found[:, 0], kind="stable")[:N_PARTICLES]
        found = found[np.sort(hardest)]
    return found


def _fill(event: Any, particles: NDArray[np.float64]) -> None:
    """Make `event` one of these particles, massless, for a jet finder."""
    event.reset()
    pt, eta, phi = particles.T
    momenta = np.column_stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)])
    for px, py, pz, energy in momenta.tolist():
        event.append(22, 1, 0, 0, px, py, pz, energy)
