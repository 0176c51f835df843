"""The numbers that stand in prompts, read back: as whole rows where all have the same, or as a table with gaps."""

import re
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lhcq.records.letters import LETTERS, split_prompt

_NUMBER = re.compile(r"-?\b\d+(?:\.\d+)?")
"""A number of a prompt; that of `jet1` is a part of a name."""
_BIN = {letter: float(at) for at, letter in enumerate(LETTERS)}


def read_numbers(prompts: Sequence[str]) -> NDArray[np.int64]:
    """The whole numbers that prompts of one template begin with, (n_prompts, n_numbers), in their order."""
    words = _NUMBER.findall(" ".join(split_prompt(one)[0] for one in prompts))
    return np.array(words, dtype=np.int64).reshape(len(prompts), -1)


def read_all_numbers(prompts: Iterable[str]) -> NDArray[np.float64]:
    """All numbers of prompts of any template, (n_prompts, most numbers of one), as they are written there.

    In order, but the last one first: of four-momenta some prompts have more than others, and end in a number that
    all have. The letters of constituents are the numbers of their bins, behind all others: those of the first jet in
    any prompt, then those of the second. What a prompt does not have is NaN.
    """
    numbers, *jets = (_Rows() for _ in range(3))
    for prompt in prompts:
        written, letters = split_prompt(prompt)
        found = [float(one) for one in _NUMBER.findall(written)]
        numbers.add(found[-1:] + found[:-1])
        for at, rows in enumerate(jets):
            rows.add([_BIN[one] for one in letters[at]] if at < len(letters) else [])
    return np.hstack([one.padded() for one in (numbers, *jets)])


class _Rows:
    """Rows of numbers, some longer than others."""

    def __init__(self) -> None:
        self._counts, self._flat = array("q"), array("d")

    def add(self, row: Sequence[float]) -> None:
        self._counts.append(len(row))
        self._flat.extend(row)

    def padded(self) -> NDArray[np.float64]:
        """(n_rows, longest one), NaN behind those that end before."""
        n = np.array(self._counts, dtype=np.int64)
        values = np.full((n.size, n.max(initial=0)), np.nan)
        values[np.arange(values.shape[1]) < n[:, None]] = np.array(self._flat)
        return values
