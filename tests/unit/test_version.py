"""Two builds can be told apart, and what is not installed is had from where this lhcq was."""

import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import lhcq
from lhcq import extras
from lhcq.version import RELEASE, of_description, version


@pytest.mark.parametrize(
    ("described", "meant"),
    [
        ("v0.1.0-57-g7fdecbe12", f"{RELEASE}.dev57+g7fdecbe12"),
        ("v0.1.0-57-g7fdecbe12-dirty", f"{RELEASE}.dev57+g7fdecbe12.dirty"),
        ("7fdecbe12-dirty", f"{RELEASE}.dev0+g7fdecbe12.dirty"),
        ("v0.2.0-0-g7fdecbe12", "0.2.0"),
        ("v0.2.0-0-g7fdecbe12-dirty", f"{RELEASE}.dev0+g7fdecbe12.dirty"),
        ("fatal: not a git repository", None),
    ],
)
def test_a_version_says_which_commit_it_is_of(described: str, meant: str | None) -> None:
    assert of_description(described) == meant


def test_a_checkout_has_the_version_of_its_commit() -> None:
    root = Path(lhcq.__file__).parents[1]
    asked = ["git", "rev-parse", "--short=9", "HEAD"]
    done = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no checkout")
    assert lhcq.__version__ == version()
    assert done.stdout.strip() in version() or version() == RELEASE


@pytest.mark.parametrize(
    ("origin", "installer", "meant"),
    [
        (
            {"url": "file:///a/checkout", "dir_info": {"editable": True}},
            "pip",
            "--editable '/a/checkout[train]'",
        ),
        ({"url": "file:///a/checkout", "dir_info": {}}, "uv", "'/a/checkout[train]'"),
        ({"url": "file:///a/lhcq.whl", "archive_info": {}}, "pip", "'lhcq[train] @ file:///a/lhcq.whl'"),
        (
            {"url": "https://git.example.org/lhcq", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip",
            "'lhcq[train] @ git+https://git.example.org/lhcq@abc'",
        ),
        (None, "pip", "'lhcq[train]'"),
    ],
)
def test_an_extra_comes_from_where_lhcq_came(
    origin: Any, installer: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noted:
        def read_text(self, name: str) -> str | None:
            return {"INSTALLER": f"{installer}\n", "direct_url.json": origin and json.dumps(origin)}.get(name)

    monkeypatch.setattr(metadata, "distribution", lambda _: Noted())
    command = extras.command_for("train")
    assert command.endswith(f" {meant}")
    assert command.startswith("uv pip install --python ") == (installer == "uv")
