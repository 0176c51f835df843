"""Units of work: what one message asks for."""

from collections.abc import Iterable

from lhcq.errors import BadInput
from lhcq.frozen import Frozen

Caption = dict[str, str]
"""What a message is about, in words: dataset and rows, run and step."""


class Unit(Frozen):
    """One message: a task and its arguments, the job's name first."""

    task: str
    args: tuple[str | int, ...]

    @property
    def key(self) -> str:
        """Names the unit's lease, attempts and failure: `lhcq.cluster_part:NAME:3`."""
        return unit_key(self.task, self.args)

    @property
    def name(self) -> str:
        """Of the job that it is a unit of."""
        return str(self.args[0])

    @property
    def number(self) -> int | None:
        """The chunk's index, or the checkpoint's step; None where there is but one such unit in a job."""
        return int(self.args[1]) if len(self.args) > 1 else None


def unit_key(task: str, arguments: Iterable[str | int]) -> str:
    """The key of the unit that a message asks for."""
    return ":".join((task, *(str(argument) for argument in arguments)))


def unit_of_key(key: str) -> Unit:
    """The unit that has this key; names hold no colon."""
    try:
        task, name, *index = key.split(":")
        return Unit(task=task, args=(name, *map(int, index)))
    except ValueError as error:
        raise BadInput(f"{key!r} is the key of no unit.") from error
