"""The examples run as they stand, from another directory than the project's."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def real_events(test_data: Path) -> Path:
    """A thousand real events."""
    return test_data / "events_anomalydetection_tiny.h5"


def run(name: str, *arguments: Path, at: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
        cwd=at,
        env={**os.environ, "LHCQ_WORKSPACE": str(at / "workspace")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_events_become_an_auc(real_events: Path, few_layers: Path, tmp_path: Path) -> None:
    said = run("01_events_to_auc.py", real_events, few_layers, at=tmp_path)
    assert "AUC 0." in said
    assert (tmp_path / "workspace" / "runs" / "first" / "report.html").is_file()


def test_a_queue_gives_the_same_events(real_events: Path, tmp_path: Path) -> None:
    assert "1000 events, jets above 1200 GeV: {'0': 101, '1': 455, '2': 444}" in run(
        "02_on_a_queue.py", real_events, at=tmp_path
    )


def test_a_feature_of_one_s_own_is_judged(real_events: Path, tmp_path: Path) -> None:
    assert "AUC 0.9" in run("03_own_feature.py", real_events, at=tmp_path)


@pytest.mark.torture  # two minutes of two cores; the page and the program beside it run the same calls
def test_the_notebook_runs_and_holds_its_pictures(
    few_layers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pythia8mc")
    notebook = nbformat.read(EXAMPLES / "04_notebook.ipynb", as_version=4)
    kept = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in kept) == 2
    (settings,) = (cell for cell in notebook.cells if cell.source.startswith("MODEL, N_EVENTS, STEPS ="))
    settings.source = f"MODEL, N_EVENTS, STEPS = {str(few_layers)!r}, 60, 2"
    monkeypatch.setenv("LHCQ_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    NotebookClient(notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "workspace" / "runs" / "first" / "report.html").is_file()
