"""How what is not installed gets installed, from where this lhcq was: it need not be on a package index."""

import importlib.util
import json
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

_TRAINING = ("torch", "transformers", "peft", "bitsandbytes", "gguf")


def missing_for_training() -> str | None:
    """The first package that training and scoring need and that is not installed; None where all are. Loads none.

    A torch alone says nothing: many have one without the rest.
    """
    return next((package for package in _TRAINING if importlib.util.find_spec(package) is None), None)


def command_for(extra: str) -> str:
    """The command that adds an extra, such as `train`, to this installation."""
    return f"{_installer()} {_requirement(extra)}"


def _installer() -> str:
    if {"pipx", "venvs"} <= set(Path(sys.prefix).parts):
        return "pipx install --force"
    how = _file("INSTALLER").strip()
    return f"uv pip install --python {sys.executable}" if how == "uv" else f"{sys.executable} -m pip install"


def _requirement(extra: str) -> str:
    """lhcq with an extra, as it was installed: from a checkout, a file, a repository, or by its name."""
    try:
        origin = json.loads(_file("direct_url.json"))
        url = str(origin["url"])
    except (ValueError, LookupError, TypeError):
        return f"'lhcq[{extra}]'"
    if "dir_info" in origin:
        place = unquote(urlsplit(url).path)
        return f"{'--editable ' if origin['dir_info'].get('editable') else ''}'{place}[{extra}]'"
    if "vcs_info" in origin:
        commit = origin["vcs_info"].get("commit_id")
        return f"'lhcq[{extra}] @ {origin['vcs_info']['vcs']}+{url}{f'@{commit}' if commit else ''}'"
    return f"'lhcq[{extra}] @ {url}'"


def _file(name: str) -> str:
    """A file of what the installer noted; empty where there is none."""
    try:
        return metadata.distribution("lhcq").read_text(name) or ""
    except metadata.PackageNotFoundError:
        return ""
