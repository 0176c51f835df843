"""Runs the commands of `docs/tutorial.md` and writes what they print below: python docs/make_tutorial.py --events D.

A block of `console` has commands, which begin with `$ `, and what each printed. They are run one after the other in
one empty directory, in which the small published file lies already, so that no network is needed. How far a job is,
and how the model was come by, is left out: that differs from time to time.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "tutorial.md"
EVENTS = "events_anomalydetection_tiny.h5"
HERE = "/home/you/lhco"
"""Where the reader is said to be."""

_BLOCK = re.compile(r"(?ms)^```console\n(.*?)^```$")
_PASSING = re.compile(
    r"\w+ \S+: (?:[\d,]+/[\d,]+ |waiting|queued)|lhcq: (?:the model hub|converting|loading) "
)
"""Lines that say how far something is, or where the model comes from."""
_NUMBER = re.compile(r"\b[0-9a-f]{7,}\b|[-+]?\d[\d,.]*(?:e[-+]?\d+)?")


def commands(text: str) -> list[str]:
    """The commands of a page, in their order."""
    return [
        line[2:] for block in _BLOCK.findall(text) for line in block.splitlines() if line.startswith("$ ")
    ]


def remade(text: str, place: Path, events: Path, model: Path | None = None) -> str:
    """The page with what its commands print in the empty directory `place`.

    `events` is the directory of the small published file, `model` that of SmolLM2, converted, where it is at hand.
    Raises `CalledProcessError` for a command that fails.
    """
    (place / "data").mkdir()
    shutil.copy(events / EVENTS, place / "data")
    if model is not None:
        shutil.copytree(model, place / "lhcq-workspace" / "models" / model.name)

    def run_again(block: re.Match[str]) -> str:
        printed = "".join(f"$ {command}\n{_print_of(command, place)}" for command in commands(block[0]))
        return f"```console\n{printed}```"

    return _BLOCK.sub(run_again, text)


def without_numbers(text: str) -> str:
    """A page whose numbers and columns do not count: they are of a machine."""
    return re.sub(r"[ \t]+", " ", _NUMBER.sub("N", text))


def _print_of(command: str, place: Path) -> str:
    """What a command prints, as a reader in `HERE` would see it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LHCQ_")}
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=place,
        env={**kept, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout)
    lines = done.stdout.replace(str(place.resolve()), HERE).splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines if line.strip() and not _PASSING.match(line))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=Path, required=True, help=f"Directory with {EVENTS}.")
    parser.add_argument("--model", type=Path, help="Directory of SmolLM2, converted.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        PAGE.write_text(remade(PAGE.read_text("utf-8"), Path(directory), asked.events, asked.model), "utf-8")
