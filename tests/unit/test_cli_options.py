"""Options whose values are more than a word or a number."""

import click
import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.cli.train import command, read_memory

OPTION = next(one for one in command.params if one.name == "max_memory")
CONTEXT = click.Context(command)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("8GiB", 8 << 30),
        ("8Gi", 8 << 30),
        ("7.5GB", 7_500_000_000),
        ("6000 MiB", 6000 << 20),
        ("8g", 8_000_000_000),
    ],
)
def test_a_size_is_bytes(text: str, n_bytes: int) -> None:
    assert read_memory(CONTEXT, OPTION, text) == n_bytes


@pytest.mark.parametrize("text", ["8", "8.5", "1e10", "", "B", "GiB", "8 parsecs", "-8GiB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size such as 8GiB"):
        read_memory(CONTEXT, OPTION, text)


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "run", "events", "--select", "nan"),
        ("cluster", "events.h5", "--name", "made", "--tolerate", "NaN"),
        ("prune", "--log-days", "nan"),
    ],
    ids=lambda words: words[0],
)
def test_nan_is_in_no_range(words: tuple[str, ...], tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(tmp_path / "workspace"))
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert f"{words[-1]!r} is not a number." in done.output
