"""What the columns of a features file and that of the label are called, by lhcq and by others."""

LABEL = "label"
NEAR_LABELS = ("labels", "is_signal", "issignal", "is_sig", "signal", "truth", "target", "class", "y")
"""What others call it, in small letters."""
MOMENTA = ("px", "py", "pz", "m")
TAUS = ("tau1", "tau2", "tau3")
OF_JETS = tuple(f"{name}j{rank}" for rank in (1, 2) for name in (*MOMENTA, *TAUS))
"""The columns of the released features files, in their order; the label comes last, where there is one."""
NEEDED = tuple(f"{name}j{rank}" for rank in (1, 2) for name in MOMENTA)
"""Without these there is no jet; N-subjettiness and the label may be absent."""


FEATURE_WIDTHS = (14, 15)
"""Columns of a features file: without the label, and with it."""


def means_label(name: str) -> bool:
    """Whether a name is one that a label has."""
    return name.lower() in (LABEL, *NEAR_LABELS)
