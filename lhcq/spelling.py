"""What may have been meant by a name that is none."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A sentence, after a blank, on which of `names` may have been meant; empty where none is like it."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f" Did you mean {near[0]}?" if near else ""
