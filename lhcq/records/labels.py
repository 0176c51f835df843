"""The names of the two classes, and of events of which it is not known."""

from collections.abc import Mapping

LABELS = ("background", "signal")
"""The index is the label bit of the LHC Olympics files."""

UNLABELLED = "unknown"
"""Where there is no label: what is null in a table, and -1 in an array."""

KNOWN_LABELS = frozenset({0, 1, None})
"""What may stand in the column of labels."""


def count_labels(counts: Mapping[int | None, int]) -> dict[str, int]:
    """What a manifest says of the labels of its events, from how many there are of each."""
    return {
        LABELS[1]: counts.get(1, 0),
        LABELS[0]: counts.get(0, 0),
        UNLABELLED: counts.get(None, 0),
    }
