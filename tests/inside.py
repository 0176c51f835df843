"""The program run in the test's own process: for what is refused, or read, without a process that lasts.

A process takes a second of a core to load lhcq, and a refusal then some milliseconds. That processes end with the
same line and code is tested beside, with one of a kind.
"""

import contextlib
import io
import os
import subprocess
from pathlib import Path

import pytest

from lhcq.cli.main import run


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
