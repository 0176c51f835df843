"""A finished run to report."""

import pytest

from lhcq.evaluate.baseline import fit_baseline
from lhcq.workspace import Workspace
from tests.reported import write_run, write_split


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    write_split(workspace.split("half"))
    fit_baseline(workspace.split("half"), workspace.baseline("half"))
    write_run(workspace, "demo")
    return workspace
