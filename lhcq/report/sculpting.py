"""What pages and commands say of m_jj: whether a selection sculpts it, and what is seen beside what is expected."""

from typing import Any

from lhcq.config import knows_mass
from lhcq.records.metrics import Sculpting

_LEVEL = 0.05
"""P-value below which two distributions are said to differ."""
_FEW = 25
"""Selected background events below which hardly any sculpting could be seen."""


def said_sculpting(found: Sculpting, background: str) -> str:
    """One sentence on the selected and the other events of a background, called as `background` says."""
    sculpted = found.p_value < _LEVEL
    few = found.n_selected < _FEW and not sculpted
    return (
        f"Of {background}, {found.n_selected:,} selected events and {found.n_others:,} others differ in m_jj by a "
        f"Kolmogorov-Smirnov distance of {found.distance:.3f} [{found.low:.3f}, {found.high:.3f}], "
        f"p = {found.p_value:.2g}: "
        + ("the selection sculpts it" if sculpted else "no sculpting is seen")
        + (", but so few could hardly show any." if few else ".")
    )


def mass_warning(template: str) -> list[str]:
    """A sentence where a template knows the mass; none otherwise."""
    if not knows_mass(template):
        return []
    return [
        f"This run's prompts hold m_jj or determine it (template {template}), so a selection may make a bump in m_jj "
        "of background alone. To search in the spectrum, train on prompts made with `lhcq prepare --without-mass`."
    ]


def said_expectation(found: dict[str, Any]) -> list[str]:
    """Sentences on the events seen and expected of background alone, from a prediction's summary."""
    share = f"{found['expected']:,.1f} ± {found['error']:,.1f}"
    sentences = [
        f"Of those with an m_jj {found['seen']:,} are selected, where background alone would give {share} by what "
        "the same selection keeps of the calibration subset's background."
    ]
    excess = found["excess"]
    if excess is None:
        return [*sentences, "Too few events are expected to compare spectra."]
    if found["chi2"] is None:
        sentences.append(
            "So few are expected that they make one bin, and the spectrum's shape is not compared."
        )
    else:
        sentences.append(
            f"The spectrum has a chi-squared of {found['chi2']:.1f} in {found['bins']} bins "
            f"(p = {found['p_value']:.2g})."
        )
    sentences.append(
        f"The largest excess: {excess['seen']:,} events where {excess['expected']:,.1f} ± {excess['error']:,.1f} are "
        f"expected, {excess['low']:,.0f} to {excess['high']:,.0f} GeV, p = {excess['p_value']:.2g} there and "
        f"{excess['p_value_anywhere']:.2g} anywhere."
    )
    return sentences
