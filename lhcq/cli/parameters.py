"""Kinds of parameters, and what every verb has; light, since the program itself is made of them."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


def example(*lines: str) -> str:
    """What `--help` of a verb ends with."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


class NumberRange(click.FloatRange):
    """A number within a range; nan, which click finds in every one, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class NameOf(click.ParamType[str]):
    """The name of something that stands in the workspace, which a shell can complete.

    Where that is the name of nothing of these kinds, and of something else, it says so for all verbs alike; what has
    no name at all is left to whoever looks it up, who knows what would make it.
    """

    name = "text"

    def __init__(self, *kinds: str, instead: Mapping[str, str] | None = None) -> None:
        self.kinds = kinds
        """Directories of the workspace, such as datasets and runs; `jobs` for those of every kind."""
        self._instead = instead or {}
        """By the word for another sort of thing: a sentence on what takes it; {name} is its name."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name; raises `NotThere` where it is that of another sort of thing."""
        name = super().convert(value, param, ctx)
        if "jobs" not in self.kinds and name not in self._names():
            self._refuse_other_sort(name)
        return name

    def _refuse_other_sort(self, name: str) -> None:
        from lhcq.errors import LhcqError, NotThere
        from lhcq.workspace import Workspace
        from tasks.jobs.holdings import list_holdings
        from tasks.jobs.kinds import KINDS

        try:
            workspace = Workspace.of_environment()
            held = [one.what for one in list_holdings(workspace) if one.name == name]
        except (LhcqError, OSError):  # the verb says what is wrong with the workspace
            return
        if not held:
            return
        wanted = [
            kind.makes
            for kind in KINDS.values()
            if kind.shelf is not None and kind.shelf(workspace, name).parent.name in self.kinds
        ]
        if set(held) & set(wanted):  # one that is being made
            return
        found = next((one for one in held if one in self._instead), held[0])
        lists = " and ".join(f"`lhcq ls --kind {one}`" for one in wanted)
        remedy = self._instead.get(found, f"{lists} list{'' if len(wanted) > 1 else 's'} what there is.")
        *others, last = wanted
        kinds = f"{', '.join(others)} or {last}" if others else last
        raise NotThere(f"{name}: is a {found}, and no {kinds}. {remedy.format(name=name)}")

    def _names(self) -> set[str]:
        """Those that stand; none where the workspace cannot be read."""
        from lhcq.errors import LhcqError
        from lhcq.workspace import Workspace

        try:
            workspace = Workspace.of_environment()
            return {name for kind in self.kinds for name in workspace.names(kind)}
        except (LhcqError, OSError):
            return set()

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so; none where the workspace cannot be read."""
        return [CompletionItem(name) for name in sorted(self._names()) if name.startswith(incomplete)]


def workspace_option() -> click.Option:
    """`--workspace DIR`, which every verb takes: for this command and all that it starts."""

    def choose(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
        if value is not None:
            os.environ["LHCQ_WORKSPACE"] = str(value.absolute())

    return click.Option(
        ["--workspace"],
        type=FilePath(),
        expose_value=False,
        is_eager=True,
        callback=choose,
        metavar="DIR",
        help="Where results stand. Default: LHCQ_WORKSPACE, else ./lhcq-workspace.",
    )


class FilePath(click.Path):
    """A path, with a home directory for a leading `~` where the shell put none in, as behind `--to=`."""

    def __init__(self, *, file_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path that was meant; raises `click.BadParameter` where a user has no home."""
        try:
            return super().convert(Path(value).expanduser(), param, ctx)
        except RuntimeError:
            self.fail(f"{value}: there is no such home directory.", param, ctx)
