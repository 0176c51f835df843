"""What the column of the label is called, by lhcq and by others."""

LABEL = "label"
NEAR_LABELS = ("labels", "is_signal", "issignal", "is_sig", "signal", "truth", "target", "class", "y")
"""What others call it, in small letters."""
