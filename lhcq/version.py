"""Which lhcq this is: the release that is being made, and of a checkout which commit; so two builds are told apart.

Imports nothing of lhcq, since the build reads the version here.
"""

import functools
import re
import subprocess
from importlib import metadata
from pathlib import Path

RELEASE = "0.2.0"
"""The next one, unless this commit has its tag."""
_ROOT = Path(__file__).parents[1]
_DESCRIBED = re.compile(r"(?:v(?P<tag>[0-9.]+)-(?P<commits>\d+)-g)?(?P<commit>[0-9a-f]+)(?P<dirty>-dirty)?")


@functools.cache
def version() -> str:
    """The release, or `RELEASE.devN+gCOMMIT` of a checkout, N commits after the last tag; `.dirty` where it differs.

    Installed, it is what it was built as; built without git, `RELEASE.dev0`.
    """
    if (_ROOT / "pyproject.toml").is_file():
        return _of_checkout() or _of_source() or f"{RELEASE}.dev0"
    try:
        return metadata.version("lhcq")
    except metadata.PackageNotFoundError:
        return f"{RELEASE}.dev0"


def of_description(described: str) -> str | None:
    """The version that `git describe --long --always --dirty` stands for; None for what it does not write."""
    found = _DESCRIBED.fullmatch(described)
    if not found:
        return None
    if found["commits"] == "0" and not found["dirty"]:
        return found["tag"]
    return f"{RELEASE}.dev{found['commits'] or 0}+g{found['commit']}{'.dirty' if found['dirty'] else ''}"


def _of_checkout() -> str | None:
    if not (_ROOT / ".git").exists():
        return None
    command = ["git", "describe", "--tags", "--match=v[0-9]*", "--long", "--always", "--dirty", "--abbrev=9"]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return of_description(done.stdout.strip())


def _of_source() -> str | None:
    """What a source distribution was built as."""
    facts = _ROOT / "PKG-INFO"
    lines = facts.read_text("utf-8").splitlines() if facts.is_file() else []
    return next((line.removeprefix("Version: ") for line in lines if line.startswith("Version: ")), None)
