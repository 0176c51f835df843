"""Asking for trainings and predictions: what is recorded, and what is refused."""

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhcq.config import TrainConfig
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.manifests import write_manifest
from lhcq.model.tokens import encode_prompts
from lhcq.records.jobs import Job
from lhcq.records.specs import PredictSpec, PredictTerms
from lhcq.records.subsets import count_events, read_split
from lhcq.requests.predict import predict_request, stretches_of
from lhcq.requests.train import longest_prompt, train_request
from lhcq.storage import read_json, sha256_of_json
from lhcq.workspace import Workspace
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job
from tasks.jobs.units import Unit
from tests.requested import N_RECORDS, SUBSETS, TRAINING, ask_training, write_weights

SMALL, LARGE = 999_999_999, 1_000_000_000
"""Weights of a base model, on either side of where the default rate changes."""


# Training.


@pytest.mark.parametrize(("n_weights", "rate"), [(64, 1e-3), (SMALL, 1e-3), (LARGE, 2e-4)])
def test_the_default_rate_is_that_of_the_models_size(made: Workspace, n_weights: int, rate: float) -> None:
    model = write_weights(made.root / "models" / "sized", n_weights)
    request = ask_training(made, model)
    assert request.config.learning_rate == rate
    recorded = request.job.spec.recorded()
    assert recorded["config"]["learning_rate"] == rate
    assert recorded["config_sha256"] == sha256_of_json(request.config.model_dump())
    given = ask_training(made, model, TRAINING.model_copy(update={"learning_rate": 0.5}))
    assert given.job.spec.recorded()["config"]["learning_rate"] == 0.5


def lengthen(split: Path, subset: str, prompt: str) -> int:
    """Give a subset one longer prompt; its tokens."""
    table = pq.read_table(split / f"{subset}.parquet")
    prompts = [prompt, *table["prompt"].to_pylist()[1:]]
    column = table.schema.get_field_index("prompt")
    pq.write_table(table.set_column(column, "prompt", pa.array(prompts)), split / f"{subset}.parquet")
    manifest = json.loads((split / "manifest.json").read_text())
    manifest.pop("files")
    write_manifest(split, **manifest)
    return len(prompt)


@pytest.mark.parametrize("subset", SUBSETS)
def test_the_longest_prompt_is_found_in_whatever_subset_it_is(
    made: Workspace, model: Path, subset: str
) -> None:
    split, encode = made.split("split"), encode_prompts(model)
    usual = longest_prompt(split, encode, max_tokens=512)
    assert usual < 200  # each digit is a token
    length = lengthen(split, subset, "7" * (usual + 1))
    assert longest_prompt(split, encode, max_tokens=512) == length == usual + 1
    request = ask_training(made, model)
    assert request.longest == usual + 1
    assert request.job.spec.recorded()["config"]["max_tokens"] == 512
    with pytest.raises(BadInput, match=f"its prompt has {usual + 1} tokens, {usual} are allowed"):
        ask_training(made, model, TRAINING.model_copy(update={"max_tokens": usual}))
    ask_training(made, model, TRAINING.model_copy(update={"max_tokens": usual + 1}))


def test_every_subset_of_a_split_is_one_of_the_four(made: Workspace) -> None:
    assert {path.stem for path in made.split("split").glob("*.parquet")} == set(SUBSETS)


def test_a_plan_is_recorded_as_it_will_be_followed(made: Workspace, model: Path) -> None:
    config = TrainConfig(max_steps=9, checkpoint_every=4, batch_size=2, epochs=2)
    recorded = ask_training(made, model, config, preset="diary").job.spec.recorded()
    assert (recorded["total_steps"], recorded["checkpoint_steps"]) == (9, [4, 8, 9])
    assert (recorded["n_train"], recorded["preset"]) == (26, "diary")


def test_a_tracker_is_a_term(made: Workspace, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhcq.requests.train.require_tracker", lambda _: None)
    told, silent = ask_training(made, model, track="mlflow").job, ask_training(made, model).job
    assert told.terms.recorded() == {"track": "mlflow"}
    assert silent.terms.recorded() == {}
    assert told.spec == silent.spec


def test_a_model_elsewhere_is_recorded_by_its_whole_path(made: Workspace, tmp_path: Path) -> None:
    model = write_weights(tmp_path / "elsewhere", 64)
    assert ask_training(made, model).job.spec.recorded()["model_dir"] == str(model)


def test_a_training_that_cannot_be_is_refused(
    made: Workspace, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(BadInput, match="trackio"):
        ask_training(made, model, track="trackio")
    with pytest.raises(BadInput, match="cannot name a run"):
        train_request(made, "split", "a/b", TRAINING, model="tiny", model_dir=model)
    with pytest.raises(NotThere, match=r"split 'gone' .*Make it with `lhcq prepare`"):
        train_request(made, "gone", "run", TRAINING, model="tiny", model_dir=model)
    split = made.split("split")
    (split / "test.parquet").write_bytes((split / "train.parquet").read_bytes())
    with pytest.raises(BadInput, match=r"test\.parquet: differs from its manifest"):
        ask_training(made, model)


def test_a_split_without_training_prompts_is_refused(made: Workspace, model: Path) -> None:
    split = made.split("split")
    manifest = json.loads((split / "manifest.json").read_text())
    manifest.pop("files")
    manifest["counts"]["train"] = {"signal": 0, "background": 0}
    write_manifest(split, **manifest)
    with pytest.raises(BadInput, match="split 'split' has no training prompts"):
        ask_training(made, model)


# Prediction.


@pytest.mark.parametrize(
    ("chunk", "reference", "events"),
    [(None, [4], [44]), (20, [4], [14, 29, 44]), (30, [4], [22, 44]), (3, [2, 4], None)],
)
def test_a_prediction_scores_its_reference_and_every_event_once(
    trained: Workspace, chunk: int | None, reference: list[int], events: list[int] | None
) -> None:
    job = predict_request(trained, "run", "events", step="2", chunk=chunk)
    cut = stretches_of(job.spec_of(PredictSpec))
    for found, stops, n_rows in ((cut.reference, reference, 4), (cut.events, events, N_RECORDS)):
        assert stops is None or [one.stop for one in found] == stops
        assert [one.start for one in found] == [0, *(one.stop for one in found[:-1])]
        assert found[-1].stop == n_rows
        assert max(one.stop - one.start for one in found) <= (chunk or n_rows)
    assert job.parts == len(cut.reference) + len(cut.events)
    assert job.name == "run-events"


def test_events_of_the_run_s_split_are_counted_by_the_request_alone(trained: Workspace) -> None:
    assert predict_request(trained, "run", "events", step="2").terms_of(PredictTerms).shared is None
    shutil.copytree(trained.dataset("events"), trained.dataset("copied"))
    path = trained.dataset("copied") / "manifest.json"
    path.write_text(json.dumps({**read_json(path), "source_sha256": "0" * 64}))
    said: list[str] = []
    shared = (
        predict_request(trained, "run", "copied", step="2", say=said.append).terms_of(PredictTerms).shared
    )
    assert shared is not None
    assert sum(shared.values()) == sum(
        count_events(read_split(trained.split("split"), remedy=""), name) for name in SUBSETS
    )
    assert said[0].startswith(
        f"Beware: {sum(shared.values()) - shared['test']} of these events stand in the split"
    )


@pytest.mark.parametrize(("largest", "hopeless"), [(0.01, True), (0.5, False)])
def test_a_prediction_says_before_it_begins_what_can_be_selected(
    trained: Workspace, largest: float, hopeless: bool
) -> None:
    said: list[str] = []
    predict_request(trained, "run", "events", step="2", largest_p_value=largest, say=said.append)
    counts = read_json(trained.split("split") / "manifest.json")["counts"]["calibration"]
    smallest = 1 / (counts["background"] + 1)
    assert smallest > 0.01
    (line,) = said
    assert f"none is below {smallest:.3g}" in line
    assert ("no event will be selected" in line) == hopeless


def finish(place: Workspace, job: Job, **fields: Any) -> Path:
    """What the job leaves, as far as requests look at it."""
    final = place.prediction(job.name)
    final.mkdir(parents=True)
    (final / "scores.parquet").write_bytes(b"scores")
    of = {"of": job.spec.identity(), "name": job.name, **job.spec.recorded(), **fields}
    write_manifest(final, **{name: value for name, value in of.items() if value is not None})
    return final


def test_another_selection_uses_the_scores_of_a_finished_prediction(trained: Workspace) -> None:
    finish(trained, predict_request(trained, "run", "events", step="2"))
    for name, expected in ((None, "run-events-select-0.5"), ("loose", "loose")):
        said: list[str] = []
        job = predict_request(
            trained, "run", "events", step="2", largest_p_value=0.5, name=name, say=said.append
        )
        assert (job.name, job.parts) == (expected, 0)
        assert job.terms.recorded() == {"labels": None, "scores_of": "run-events"}
        assert said[-1] == "the scores of prediction run-events are used: nothing is scored again."
    assert job.spec.recorded() == {
        **predict_request(trained, "run", "events", step="2").spec.recorded(),
        "largest_p_value": 0.5,
    }


def test_what_differs_in_more_than_the_selection_is_scored(trained: Workspace) -> None:
    finish(trained, predict_request(trained, "run", "events", step="2"))
    for changed in ({}, {"chunk": 3}, {"chunk": 3, "largest_p_value": 0.5}):
        job = predict_request(trained, "run", "events", step="2", **changed)
        assert job.name == "run-events"  # which is taken: whoever asks is told
        assert job.parts > 0
        assert job.terms.recorded() == {"labels": None}


def test_a_prediction_that_an_earlier_lhcq_finished_is_not_selected_from(trained: Workspace) -> None:
    finish(trained, predict_request(trained, "run", "events", step="2"), of=None)
    (trained.root / "predictions" / "half").mkdir()
    broken = trained.root / "predictions" / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    job = predict_request(trained, "run", "events", step="2", largest_p_value=0.5)
    assert job.name == "run-events"
    assert job.parts > 0
    with pytest.raises(NameTaken, match="run-events exists already"):
        create_job(trained, job)


def test_damaged_scores_are_refused_before_anything_starts(trained: Workspace) -> None:
    final = finish(trained, predict_request(trained, "run", "events", step="2"))
    (final / "scores.parquet").write_bytes(b"scorez")
    with pytest.raises(BadInput, match=r"scores.parquet: differs from its manifest .*Make run-events again"):
        predict_request(trained, "run", "events", step="2", largest_p_value=0.5)


def test_a_prediction_that_was_begun_goes_on_whether_or_not_its_scores_stand_elsewhere(
    trained: Workspace,
) -> None:
    def ask() -> Job:
        job = predict_request(trained, "run", "events", step="2", largest_p_value=0.5, name="loose")
        return create_job(trained, job)

    assert ask().parts > 0
    final = finish(trained, predict_request(trained, "run", "events", step="2"))
    joined = ask()
    assert joined.parts == 0
    assert pending_units(trained, joined) == [Unit(task="lhcq.predict_select", args=("loose",))]
    shutil.rmtree(final)
    assert ask().parts > 0
    assert pending_units(trained, ask())[0].task == "lhcq.predict_part"


def test_a_prediction_that_cannot_be_is_refused(trained: Workspace, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0\n" * N_RECORDS)
    with pytest.raises(BadInput, match=r"events: has labels of its own. Leave --labels out"):
        predict_request(trained, "run", "events", step="2", key=key)
    with pytest.raises(NotThere, match="dataset 'gone'"):
        predict_request(trained, "run", "gone", step="2")
    with pytest.raises(NotThere, match="train 'walk' does not exist"):
        predict_request(trained, "walk", "events", step="2")
    with pytest.raises(NotThere, match="no checkpoint at step 1"):
        predict_request(trained, "run", "events", step="1")
    for p_value in (0.0, 1.5, math.nan):
        with pytest.raises(BadInput, match="largest_p_value"):
            predict_request(trained, "run", "events", step="2", largest_p_value=p_value)
    with pytest.raises(BadInput, match="cannot name a prediction"):
        predict_request(trained, "run", "events", step="2", name="..")
