"""The program run in the test's own process: for what is refused, or read, without a process that lasts."""

import contextlib
import io
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lhcq.cli.main import run
from tests.integration.conftest import Program


class Inside(Program):
    """`lhcq` in one workspace, without a process a command, which takes a second to load."""

    def start(self, *arguments: str | Path, **environment: str) -> Any:
        """Nothing that lasts can be had here."""
        raise AssertionError("a command that lasts needs a process: take `lhcq`")

    def result(self, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command, however it ends."""
        from tasks.app import app, connect, own_workspace

        words = ["lhcq", *map(str, arguments)]
        out, err = io.StringIO(), io.StringIO()
        before = app.conf.broker_url
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", words)
            patch.delenv("LHCQ_BROKER_URL", raising=False)
            for name, value in {"LHCQ_WORKSPACE": str(self.workspace), **environment}.items():
                patch.setenv(name, value)
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    ended = run()
            finally:
                connect(before or "")  # other tests of this process have a broker of their own
                own_workspace.cache_clear()
        return subprocess.CompletedProcess(words, ended, out.getvalue(), err.getvalue())

    def run(
        self, *arguments: str | Path, code: int = 0, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command that must end with `code`."""
        done = self.result(*arguments, **environment)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done
