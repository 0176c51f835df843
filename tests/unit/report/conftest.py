"""A finished run to report."""

import pytest

from lhcq.evaluate.baseline import fit_baseline
from lhcq.report.style import Plot
from lhcq.workspace import Workspace
from tests.reported import write_run, write_split


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    write_split(workspace.split("half"))
    fit_baseline(workspace.split("half"), workspace.baseline("half"))
    write_run(workspace, "demo")
    return workspace


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages have empty pictures, for tests of words: nine pictures take a second and a half to draw."""
    monkeypatch.setattr(Plot, "svg", lambda _: "<svg/>")
