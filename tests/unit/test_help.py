"""What `--help` says, and what is said to whom typed something else than was meant."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lhcq.cli.main import SECTIONS, VERBS, cli
from lhcq.workspace import Workspace
from tests.inside import ended

# What is asked for by them has no default: an event, or a batch system.
WITHOUT_DEFAULT = {"--row", "--numbers", "--prompt", "--slurm", "--condor"}


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by what is typed."""
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{verb} {name}", one) for name, one in command.commands.items())
        else:
            yield verb, command


COMMANDS = dict(commands())


def examples(command: click.Command) -> list[list[str]]:
    return [
        shlex.split(line)[1:] for line in (command.epilog or "").splitlines() if line.startswith("  lhcq ")
    ]


def test_verbs_stand_under_what_they_are_for_with_their_whole_first_sentence() -> None:
    text = ended("--help").stdout
    told = " ".join(text.split())
    for title, verbs in SECTIONS.items():
        assert f"{title}:" in text
        for verb in verbs:
            first = (cli.get_command(click.Context(cli), verb) or cli).get_short_help_str(1000)
            assert "..." not in first
            assert f"{verb} {first}" in told
    for promised in ("LHCQ_WORKSPACE", "LHCQ_BROKER_URL", "Exit codes"):
        assert promised in text


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_an_example_that_can_be_given(words: str) -> None:
    found = examples(COMMANDS[words])
    assert found
    for typed in found:
        assert " ".join(typed).startswith(words)
        COMMANDS[words].make_context(words, typed[len(words.split()) :])  # raises for what it does not take


@pytest.mark.parametrize("words", COMMANDS)
def test_every_default_is_shown(words: str) -> None:
    command = COMMANDS[words]
    for option in command.params:
        if not isinstance(option, click.Option) or option.required or option.is_flag or option.multiple:
            continue
        if not WITHOUT_DEFAULT & set(option.opts):
            _, text = option.get_help_record(click.Context(command)) or ("", "")
            assert "efault: " in text, option.opts


def test_the_defaults_of_a_training_are_those_of_its_presets() -> None:
    from lhcq.config import TRAIN_PRESETS

    text = " ".join(ended("train", "--help").stdout.split())
    usual, diary = TRAIN_PRESETS["default"], TRAIN_PRESETS["diary"]
    assert f"LoRA rank r. [default: ({usual.rank}; diary: {diary.rank})]" in text
    assert f"LoRA dropout. [default: ({usual.dropout}; diary: {diary.dropout})]" in text


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("cluter", "cluster"), ("stats", "status")])
def test_a_verb_that_was_meant_is_named(typed: str, meant: str) -> None:
    done = ended(typed)
    assert done.returncode == 2
    assert f"No such command {typed!r}. Did you mean {meant}?" in done.stderr


def write_manifest_of(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text("{}")


def test_a_name_that_was_meant_is_told(place: Workspace) -> None:
    for name in ("balanced", "natural"):
        write_manifest_of(place.split(name))
    done = ended("train", "blanced", "--name", "first", "--workspace", place.root)
    assert done.returncode == 1
    assert "split 'blanced' does not exist" in done.stderr
    assert "Did you mean balanced?" in done.stderr


QUESTIONS = (
    ("status",),
    ("why", "x"),
    ("logs", "x"),
    ("watch", "x", "--once"),
    ("report", "x"),
    ("compare", "x", "y"),
    ("tag", "x", "best", "v1"),
    ("pause", "x"),
    ("prepare", "x", "--split", "y"),
    ("train", "x", "--name", "y"),
    ("predict", "x", "y"),
    ("export", "x"),
    ("plot", "x"),
    ("doctor",),
    ("metrics", "--once"),
    ("workers", "pending", "cpu"),
    ("run", "demo", "--dry-run"),
)


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_a_question_makes_no_workspace(question: tuple[str, ...], tmp_path: Path) -> None:
    done = ended(*question, "--workspace", tmp_path / "none")
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["before the verb", "behind it"])
def test_the_workspace_may_be_named_on_the_command_line(where: str, place: Workspace, tmp_path: Path) -> None:
    option = ("--workspace", place.root)
    words = (*option, "status") if where == "before the verb" else ("status", *option)
    done = ended(*words, LHCQ_WORKSPACE=str(tmp_path / "another"))
    assert done.stdout == f"no jobs in {place.root}\n"


def test_a_home_directory_in_an_option_is_meant(tmp_path: Path) -> None:
    done = ended("status", "--workspace=~/lhcq", HOME=str(tmp_path))  # which no shell expands there
    assert done.stdout == f"no jobs in {tmp_path / 'lhcq'}\n"


def complete(words: str, place: Workspace) -> list[str]:
    """What bash would offer for the last word."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lhcq"))],
        env={
            **os.environ,
            "_LHCQ_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
            "LHCQ_WORKSPACE": str(place.root),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_a_shell_completes_names_of_datasets_splits_runs_and_jobs(place: Workspace) -> None:
    for made in (place.dataset("lhco"), place.dataset("box1"), place.split("balanced"), place.run("first")):
        made.mkdir(parents=True)
    place.job("cluster", "lhco").mkdir(parents=True)
    assert complete("lhcq prepare ", place) == ["box1", "lhco"]
    assert complete("lhcq train ba", place) == ["balanced"]
    assert complete("lhcq report ", place) == ["first"]
    assert complete("lhcq predict first l", place) == ["lhco"]
    assert complete("lhcq why ", place) == ["first", "lhco"]
    assert complete("lhcq clu", place) == ["cluster"]


SHELLS = {
    # How a shell without any configuration is started, and what it says of the completion that it has.
    "bash": (["--norc", "-c"], "complete -p lhcq", "-F _lhcq_completion lhcq"),
    "zsh": (["-f", "-c"], "print -r -- $_comps[lhcq]", "_lhcq_completion"),
    "fish": (["--no-config", "-c"], 'complete -C "lhcq clu"', "cluster\t"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_readme_s_line_has_a_shell_complete(shell: str, tmp_path: Path) -> None:
    start, question, answer = SHELLS[shell]
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (line,) = re.findall(rf"(?m)^    (.*_LHCQ_COMPLETE={shell}_source.*?) +# in ", readme)
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [shell, *start, f"{line}\n{question}"],
        env={**os.environ, "PATH": programs, "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer in done.stdout
    assert done.stderr == ""
