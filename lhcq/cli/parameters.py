"""Kinds of parameters, and what every verb has; light, since the program itself is made of them."""

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem


def example(*lines: str) -> str:
    """What `--help` of a verb ends with."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


class NameOf(click.ParamType[str]):
    """The name of something that stands in the workspace, which a shell can complete."""

    name = "text"

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds
        """Directories of the workspace, such as datasets and runs; `jobs` for those of every kind."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that begin so; none where the workspace cannot be read."""
        from lhcq.errors import LhcqError
        from lhcq.workspace import Workspace

        try:
            workspace = Workspace.of_environment()
            names = {name for kind in self.kinds for name in workspace.names(kind)}
        except (LhcqError, OSError):
            return []
        return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


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
