"""Reads what `deploy/` has to say, so that tests run the very commands of its units, images and compose files."""

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"


class Command(NamedTuple):
    """What a unit runs, and in which environment."""

    words: list[str]
    environment: dict[str, str]


def unit_settings(name: str) -> dict[str, list[str]]:
    """The values of each key of a unit file, in order."""
    text = (UNITS / name).read_text().replace("\\\n", " ")
    settings = defaultdict(list)
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            settings[key].append(value)
    return settings


def unit_command(name: str, *, places: Mapping[str, str], specifiers: Mapping[str, str]) -> Command:
    """What a unit starts, with its specifiers (`%i`) filled in and files found where they are here.

    Environment files are left out.
    """
    settings = unit_settings(name)

    def filled(text: str) -> str:
        text = re.sub("%.", lambda found: specifiers[found[0]], text)
        for installed, here in places.items():
            text = text.replace(installed, here)
        return text

    (line,) = settings["ExecStart"]
    words = [filled(word) for word in line.split()]
    pairs = (pair.partition("=") for value in settings["Environment"] for pair in filled(value).split())
    return Command(words, {key: value for key, _, value in pairs})


def image_commands(target: str) -> dict[str, list[str]]:
    """ENTRYPOINT, CMD and HEALTHCHECK of an image, with what it has from the stages below it."""
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    stages: dict[str, dict[str, list[str]]] = {}
    for line in text.splitlines():
        if begin := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            stages[begin[2]] = dict(stages.get(begin[1], {}))
        elif found := re.fullmatch(r"(ENTRYPOINT|CMD|HEALTHCHECK).*?(\[.*\])", line):
            stages[list(stages)[-1]][found[1]] = json.loads(found[2])
    return stages[target]


def compose(name: str) -> dict[str, Any]:
    """A compose file."""
    import yaml

    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return loaded


def make_secrets(directory: Path, *hosts: str) -> None:
    """Run the script of that name."""
    subprocess.run([DEPLOY / "make-secrets", directory, *hosts], check=True, capture_output=True)


def here(program: str) -> str:
    """A program of this environment; "" is their directory."""
    return f"{Path(sys.executable).parent}/{program}"


def tls_server() -> str | None:
    """A Valkey or Redis server with TLS, if one is installed; that of the wheel has none."""
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if (
            path
            and "libssl" in subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        ):
            return path
    return None
