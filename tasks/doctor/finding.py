"""One thing that `lhcq doctor` looked at."""

from typing import Literal, Self

from lhcq.frozen import Frozen

State = Literal["ok", "warning", "error"]


class Finding(Frozen):
    """What was looked at and how it is; an `error` would lose work, a `warning` would not."""

    check: str
    state: State
    found: str
    remedy: str = ""
    """What to do; empty where nothing has to be done."""

    @classmethod
    def of_error(cls, check: str, error: Exception) -> Self:
        """The finding of an error of lhcq's own: its first sentence says what is wrong, the rest what to do."""
        found, _, remedy = str(error).partition(". ")
        return cls(check=check, state="error", found=found.rstrip("."), remedy=remedy)
