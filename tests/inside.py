"""The program run in the test's own process: for what is refused, or read, without a process that lasts.

A process takes a second of a core to load lhcq, and a refusal then some milliseconds. That processes end with the same
line and code is tested beside, with one of a kind.
"""

import contextlib
import io
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lhcq.cli.main import run
from tests.integration.conftest import Program


def ended(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """How `lhcq` with these arguments ends, and what it says."""
    from tasks.app import app, connect, own_workspace

    words = ["lhcq", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    before, variables = app.conf.broker_url, dict(os.environ)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", words)
        os.environ.update(environment)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = run()
        finally:
            os.environ.clear()  # an option may be kept there
            os.environ.update(variables)
            if app.conf.broker_url != before:  # other tests of this process have a broker of their own
                connect(before or "")
            own_workspace.cache_clear()
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


class Inside(Program):
    """`lhcq` in one workspace."""

    def start(self, *arguments: str | Path, **environment: str) -> Any:
        """Nothing that lasts can be had here."""
        raise AssertionError("a command that lasts needs a process: take `lhcq`")

    def result(self, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command, however it ends."""
        return ended(
            *arguments, **{"LHCQ_WORKSPACE": str(self.workspace), "LHCQ_BROKER_URL": "", **environment}
        )

    def run(
        self, *arguments: str | Path, code: int = 0, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command that must end with `code`."""
        done = self.result(*arguments, **environment)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done
