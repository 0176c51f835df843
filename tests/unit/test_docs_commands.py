"""The commands of the pages are commands of this program."""

import re
import shlex

import click
import pytest

from lhcq.cli.main import cli
from tests.deployed import ROOT

PAGES = (
    *("README.md", "CONTRIBUTING.md", "deploy/README.md"),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)


def commands() -> list[str]:
    """Every `lhcq ...` of the pages' code, without what a shell does with it."""
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    blocks = (
        re.findall(r"```sh\n(.*?)```", text, re.S)
        + re.findall(r"(?m)^\$ (.*)$", text)
        + re.findall(r"(?m)^    (.*)$", text)
        + re.findall(r"`([^`\n]+)`", text)
    )
    found = re.findall(r"(?:^|[;']\s*)lhcq ([^>&;|\n]+)", "\n".join(blocks), re.M)
    said = {re.sub(r"\s#.*", "", words) for words in found}
    return sorted(
        {re.sub(r"'\s*$", "", words).strip() if words.count("'") % 2 else words.strip() for words in said}
    )


def test_the_pages_have_commands() -> None:
    verbs = {words.split()[0] for words in commands()}
    assert verbs >= {"worker", "workers", "cluster", "doctor"}


@pytest.mark.parametrize("words", commands())
def test_a_command_of_the_pages_can_be_given(words: str) -> None:
    command: click.Command = cli
    rest = shlex.split(words)
    context = click.Context(command)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        if name == "--help":
            return
        found = command.get_command(context, name)
        assert found is not None, f"there is no {name}"
        command, context = found, click.Context(found, parent=context)
        if not rest:
            return
    command.make_parser(context).parse_args(rest)  # raises for an option that is not there
