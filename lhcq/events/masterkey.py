"""The master key of a black box: the truth of each of its events, one number a line.

Published keys are written `0` and `1`, or `0.0` and `1.0`; box 3 has two kinds of signal, `1` and `2`.
Source: Zenodo record 4536624.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lhcq.errors import BadInput

_LABELS = {0.0: 0, 1.0: 1, 2.0: 1}
_BLANK, _WRONG = -1, -2
_LONGEST_LINE = 80  # what no key exceeds; a file that is no text has no lines to speak of
_SHOWN = 20


def read_master_key(path: Path, n_events: int) -> NDArray[np.int8]:
    """The labels (n_events,) in a master key: 1 where the line says 1 or 2 (signal), 0 where it says 0 (background).

    Blank lines at the end and Windows line ends are allowed. Raises `BadInput` naming the line of anything else,
    and where the key is of another length than the `n_events` of its file.
    """
    labels = np.empty(n_events, np.int8)
    known: dict[bytes, int] = {}  # few different lines, each parsed once
    found = blank = 0
    try:
        with path.open("rb") as stream:
            while line := stream.readline(_LONGEST_LINE):
                label = known.get(line)
                if label is None:
                    label = known[line] = _parse(line)
                if label == _BLANK:
                    blank += 1
                    continue
                if label == _WRONG or blank:  # a blank line may only be followed by others
                    raise BadInput(f"{path}: line {found + 1} {_describe(line if not blank else b'')}.")
                if found < n_events:
                    labels[found] = label
                found += 1
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    if found != n_events:
        raise BadInput(
            f"{path}: {found} lines for {n_events} events. Give the master key that belongs to the file."
        )
    return labels


def _parse(line: bytes) -> int:
    text = line.strip()
    if not text:
        return _BLANK
    if len(line) == _LONGEST_LINE or b"_" in text:  # Python reads 0_1 as a number
        return _WRONG
    try:
        return _LABELS.get(float(text), _WRONG)
    except ValueError:
        return _WRONG


def _describe(line: bytes) -> str:
    if not line:
        return "is blank"
    text = line.strip().decode("utf-8", errors="replace")
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f"is {shown!r}, not 0 (background), 1 or 2 (signal)"
