"""A run on prompts of particles: trained, asked, predicted and exported as any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import lhcq
from lhcq.cli.export_adapter import command as export_adapter
from lhcq.errors import BadInput
from lhcq.events.layout import write_event_file
from lhcq.workspace import Workspace

N_EVENTS = 60

pytestmark = pytest.mark.usefixtures("all_undrawn")


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jets of fifteen particles each, every other event signal."""
    path = tmp_path_factory.mktemp("events") / "events.h5"
    random = np.random.Generator(np.random.PCG64(3))
    particles = np.zeros((N_EVENTS, 700, 3))
    particles[:, :30, 0] = random.exponential(50.0, (N_EVENTS, 30)) + 1.0
    particles[:, :30, 1:] = random.normal(0.0, 0.2, (N_EVENTS, 30, 2))
    particles[:, 15:30, 2] += 3.0
    write_event_file(path, [(particles, np.arange(N_EVENTS) % 2)], N_EVENTS)
    return path


@pytest.fixture(scope="module")
def run(events: Path, few_layers: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two steps."""
    place = Workspace(tmp_path_factory.mktemp("run"))
    dataset = lhcq.cluster(events, "made", workspace=place, features="full", constituents=6)
    split = lhcq.prepare(
        dataset, "letters", template="particles", constituents=4, ratio="1:1", model=str(few_layers)
    )
    return lhcq.train(split, "run", model=str(few_layers), max_steps=2, batch_size=2, checkpoints=1)


def test_a_run_reads_a_dataset_a_row_and_a_prompt_alike(run: Any) -> None:
    scores = run.predict("made")
    asked = run.ask(row=17)
    assert asked.p_signal == pytest.approx(scores.p_signal[17], abs=1e-4)
    numbers, heavy, light = asked.prompt.split(";")
    assert len(numbers.split()) == 14
    assert len(heavy.split()) == len(light.rstrip(":").split()) == 4 * 3
    assert run.ask(asked.prompt).p_signal == pytest.approx(asked.p_signal, abs=1e-4)
    with pytest.raises(BadInput, match="hold constituents, not numbers alone"):
        run.ask(numbers=[1.0] * 14)
    assert "trees on the prompt's numbers" in run.trees


def test_events_that_keep_fewer_constituents_are_refused(run: Any, events: Path) -> None:
    fewer = lhcq.cluster(events, "fewer", workspace=run.workspace, features="full", constituents=3)
    with pytest.raises(BadInput, match=r"^fewer: keeps 3 constituents .*--constituents 4"):
        run.predict(fewer)
    none = lhcq.cluster(events, "none", workspace=run.workspace, features="full")
    with pytest.raises(BadInput, match=r"^none: its events have no constituents"):
        lhcq.score(run, none)


def test_an_export_is_held_to_the_run_and_its_card_explains_the_letters(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(run.workspace.root))
    arguments = ["run", "best", str(tmp_path / "merged"), "--format", "merged"]
    done = CliRunner().invoke(export_adapter, arguments, standalone_mode=False)
    if done.exception:
        raise done.exception
    card = (tmp_path / "merged" / "README.md").read_text()
    assert "the hardest constituents of the heavier jet" in card
    assert "4 of each" in card
    assert "distance to the jet's axis, in eta and phi, along its principal axis" in card
    assert "def write_jet(pt, constituents):" in card
    row = next(line for line in card.splitlines() if "| `share` |" in line)
    assert row.split("|")[1].strip().isalpha()
