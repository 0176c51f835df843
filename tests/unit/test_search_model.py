"""Searches by a language model: what it is given to learn, where it is trained, and what stands beside its rows."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import lhcq
from lhcq.cli.main import cli
from lhcq.config import WEAK_TRAINING, TrainConfig
from lhcq.errors import BadInput
from lhcq.evaluate.weak import WeakEvents, drawn_rows
from lhcq.prompts.features import KNOWN, compute_features
from lhcq.prompts.templates import describe_template, render_as, render_features
from lhcq.records.events import read_event_stretch, read_events, read_schema
from lhcq.records.searches import read_found
from lhcq.records.specs import ModelIdentity, SearchSpec
from lhcq.report.search import rows_of_tests, search_verdict, table_of_tests
from lhcq.requests.fine_tuning import fine_tuning, training_config
from lhcq.requests.search import default_name, in_range, rounds_of, search_config, search_request
from lhcq.results import Search
from lhcq.workspace import Workspace
from tasks.client import do_here, workers_for
from tasks.jobs.kinds import KINDS, chunk_unit, merge_unit, queue_of, queues_of_job
from tasks.jobs.store import create_job
from tests.search_events import FEW, write_events
from tests.tiny_models import write_model

ONE_REGION: dict[str, Any] = {
    **FEW,
    "regions": (3300.0, 3700.0, 400.0),
    "shuffles": None,
    "pseudo_experiments": 10,
}
STEPS = 3

pytestmark = pytest.mark.usefixtures("all_undrawn")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    place = Workspace(tmp_path_factory.mktemp("search"))
    write_events(place.dataset("mixed"), 6000, 200)
    return place


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def by_trees(place: Workspace) -> Search:
    return lhcq.search("mixed", workspace=place, **ONE_REGION)


@pytest.fixture(scope="module")
def by_model(place: Workspace, tiny: Path, by_trees: Search) -> Search:
    return lhcq.search("mixed", workspace=place, model=str(tiny), max_steps=STEPS, **ONE_REGION)


def spec_of_today(**more: Any) -> SearchSpec:
    return SearchSpec.resolved(
        dataset="box",
        dataset_sha256="0" * 64,
        duplicates_sha256=None,
        config=search_config(sideband=200.0).model_dump(),
        template={
            "name": "compact-without-mass",
            "version": 1,
            "sha256": "1" * 64,
            "columns": ["n_heavy", "n_light"],
        },
        n_events=1000,
        per_chunk=50,
        **more,
    )


def test_a_search_by_trees_is_the_one_that_it_always_was() -> None:
    spec = spec_of_today()
    assert spec.identity() == "8935e6a7625934c5"
    assert {"tuning", "beside"}.isdisjoint(spec.recorded())


def test_a_language_model_its_training_and_what_stands_beside_are_of_the_identity() -> None:
    base = ModelIdentity(weights="2" * 64, config="3" * 64, tokenizer="4" * 64)
    tuning = {"model": "m", "model_dir": "models/m", "base": base, "config": TrainConfig(learning_rate=1e-3)}
    specs = [
        spec_of_today(),
        spec_of_today(tuning=tuning),
        spec_of_today(tuning={**tuning, "config": TrainConfig(learning_rate=1e-3, epochs=2)}),
        spec_of_today(tuning=tuning, beside={"name": "box", "identity": "5" * 16}),
    ]
    assert len({spec.identity() for spec in specs}) == len(specs)
    assert SearchSpec.model_validate({"kind": "search", **specs[-1].recorded()}) == specs[-1]


def weak_events(n: int = 4000) -> WeakEvents:
    random = np.random.default_rng(3)
    return WeakEvents(
        rows=np.arange(n),
        mjj=2900 + random.exponential(450.0, n),
        folds=random.integers(0, 3, n).astype(np.int8),
        values=random.normal(size=(n, 2)),
    )


def test_both_sidebands_are_drawn_equally_often_and_no_event_is_left_out() -> None:
    events, (low, high), sideband = weak_events(), (3300.0, 3700.0), 200.0
    drawn, labels = drawn_rows(events, (low, high), sideband, fold=1, seed=7)
    mjj = events.mjj[drawn]
    seen = (events.folds != 1) & (events.mjj >= low - sideband) & (events.mjj < high + sideband)
    assert set(drawn) == set(np.flatnonzero(seen))
    assert np.array_equal(labels == 1, (mjj >= low) & (mjj < high))
    assert len(np.unique(drawn[labels == 1])) == (labels == 1).sum()
    below, above = mjj < low, mjj >= high
    assert below.sum() == above.sum()
    times = np.unique(drawn[above], return_counts=True)[1]
    assert times.min() >= 1
    assert times.max() - times.min() == 1  # the smaller one, by a part of it once more


def test_what_is_drawn_follows_from_seed_and_fold() -> None:
    events, region = weak_events(), (3300.0, 3700.0)
    first, again, other = (drawn_rows(events, region, 200.0, fold=0, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_too_few_events_to_learn_from_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"the region from 5,000 to 5,400 GeV: .* events to learn from, and 50"
    ):
        drawn_rows(weak_events(400), (5000.0, 5400.0), 200.0, fold=0, seed=1)


def test_prompts_of_features_are_those_that_a_split_has(place: Workspace) -> None:
    dataset = place.dataset("mixed")
    records = read_event_stretch(dataset, 0, 200, read_schema(dataset).names)
    template = describe_template("wide-without-mass", records.schema)
    features = compute_features(records, [one for one in KNOWN if one.name in template.columns])
    assert render_features(template, features) == render_as(template, records)


def request(place: Workspace, tiny: Path, batch_size: int | None = None, **options: Any) -> Any:
    config = search_config(**{**FEW, "shuffles": None, "model": str(tiny), **options})
    training = training_config(config, max_steps=STEPS, batch_size=batch_size)
    tuning = fine_tuning(place, "mixed", config, training, say=print)
    return search_request(place, "mixed", config, tuning=tuning)


def test_a_language_model_is_trained_on_the_gpu_queue_and_all_else_is_done_by_any_worker(
    place: Workspace, tiny: Path
) -> None:
    job = request(place, tiny, shuffles=1)
    trained, drawn = rounds_of(job.spec)
    units = [chunk_unit(job, index) for index in range(job.parts)]
    assert [(unit.task, queue_of(unit)) for unit in units] == [
        *[("lhcq.search_train", "gpu")] * trained,
        *[("lhcq.search_part", "cpu")] * drawn,
    ]
    assert queue_of(merge_unit(job)) == "cpu"
    assert queues_of_job(job) == {"gpu", "cpu"}
    assert [worker.kind for worker in workers_for(job, 2)] == ["gpu", "cpu"]
    assert job.parts > trained > 0


def test_a_search_by_trees_needs_no_worker_that_trains(place: Workspace) -> None:
    job = search_request(place, "mixed", search_config(**FEW))
    assert {queue_of(chunk_unit(job, index)) for index in range(job.parts)} == {"cpu"}
    assert [worker.kind for worker in workers_for(job, 2)] == ["cpu"]
    assert "lhcq.search_train" in KINDS["search"].queues


def test_shuffles_are_none_unless_asked_for_and_words_are_not_learnt(place: Workspace, tiny: Path) -> None:
    spec = request(place, tiny).spec
    assert spec.config.shuffles == 0
    assert (spec.tuning.config.answer_weight, spec.tuning.config.sampling) == (0.0, "balanced")
    assert spec.tuning.config.learning_rate == 1e-3
    assert request(place, tiny, shuffles=2).spec.config.shuffles == 2


def test_a_training_has_the_epochs_that_were_measured_and_of_few_events_smaller_steps(
    place: Workspace, tiny: Path
) -> None:
    config = request(place, tiny).spec.tuning.config
    assert config.epochs == WEAK_TRAINING.epochs == 3
    asked = request(place, tiny, batch_size=4).spec.tuning.config
    assert (asked.batch_size, asked.accumulation) == (4, 1)
    assert config.batch_size == TrainConfig().batch_size  # what a CPU has memory for in one pass
    assert 1 < config.accumulation < WEAK_TRAINING.accumulation
    searching = search_config(**FEW)
    mjj = read_events(place.dataset("mixed"), ["mjj"])["mjj"].to_numpy()
    mjj = mjj[in_range(mjj, searching)]
    folds = np.arange(len(mjj)) % FEW["folds"]
    events = WeakEvents(rows=np.arange(len(mjj)), mjj=mjj, folds=folds, values=np.zeros((len(mjj), 0)))
    regions, sideband = searching.regions, searching.sideband
    drawn = [len(drawn_rows(events, region, sideband, fold=0, seed=1)[0]) for region in regions]
    steps = [
        np.median(drawn) / (config.batch_size * passes)
        for passes in (config.accumulation, config.accumulation + 2)
    ]
    assert steps[0] > 64 > steps[1]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("trees", "box"),
        ("smollm2", "box-smollm2"),
        ("org/Mistral-7B v0.3", "box-Mistral-7B-v0.3"),
        ("/models/mine", "box-mine"),
    ],
)
def test_the_trees_search_keeps_the_name_of_its_dataset(model: str, name: str) -> None:
    assert default_name("box", model) == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", "2", "--batch-size", "4"), "--epochs, --batch-size: of a language model's training"),
        (("--beside", "other"), "--beside: is what a language model's search is compared with"),
        (("--model", "no/such/model"), "no/such/model: no such model directory"),
        (("--model", "TINY", "--template", "compact"), "--template: compact holds m_jj or determines it"),
        (("--model", "TINY", "--epochs", "-1"), "--epochs should be greater than 0"),
        (("--model", "TINY", "--beside", "gone"), "--beside gone: no search by trees .* it is not there"),
        (
            ("--model", "TINY", "--beside", "mixed", "--folds", "3"),
            r"--beside mixed: .* it has another low, high, .*folds",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(
    place: Workspace,
    tiny: Path,
    by_trees: Search,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    given = [str(tiny) if option == "TINY" else option for option in options]
    done = CliRunner().invoke(cli, ["search", "mixed", *given])
    assert isinstance(done.exception, BadInput)
    with pytest.raises(BadInput, match=message):
        raise done.exception
    assert "\n" not in str(done.exception)


def test_rows_of_both_stand_in_one_table_and_its_json(by_model: Search, by_trees: Search) -> None:
    assert by_model.name == "mixed-tiny"
    found = by_model.found
    assert found["tuning"]["config"]["max_steps"] == STEPS
    assert found["beside"]["name"] == "mixed"
    assert found["beside"]["tests"] == by_trees.found["tests"]
    rows = rows_of_tests(found)
    learners = [row["learner"] for row in rows]
    assert learners == ["–", "tiny", "trees"]
    assert rows[2]["seen"] == rows_of_tests(by_trees.found)[1]["seen"]
    assert "trees" in table_of_tests(found)
    assert "by" not in table_of_tests(by_trees.found).split()
    assert any(one.startswith("By trees (search mixed) the largest") for one in search_verdict(found))
    assert "as much in the one test" in " ".join(search_verdict(found))  # one region, one selection
    page = by_model.report.read_text("utf-8")
    assert "By trees (search mixed)" in page
    assert "Fine-tuning" in page


def test_scores_are_of_all_events_and_a_search_cut_off_goes_on_to_the_same_bytes(
    place: Workspace, tiny: Path, by_model: Search
) -> None:
    def stop(progress: Any) -> None:
        if progress.done == 1:
            raise KeyboardInterrupt

    asked: dict[str, Any] = {"workspace": place, "model": str(tiny), "max_steps": STEPS, **ONE_REGION}
    with pytest.raises(KeyboardInterrupt):
        lhcq.search("mixed", "again", progress=stop, **asked)
    again = lhcq.search("mixed", "again", **asked)
    assert again.to_arrow().equals(by_model.to_arrow())
    scores = again.to_arrow()["score_3300_3700"].to_numpy()
    assert len(np.unique(scores)) > len(scores) // 10
    assert ((scores > 0) & (scores < 1)).all()


def test_what_stands_beside_is_settled_when_a_search_is_asked_for(tmp_path: Path, tiny: Path) -> None:
    place = Workspace(tmp_path)
    write_events(place.dataset("mixed"), 6000, 200)
    asked: dict[str, Any] = {"workspace": place, "model": str(tiny), "max_steps": 1, **ONE_REGION}
    first = create_job(place, lhcq.plan_search("mixed", **asked))
    lhcq.search("mixed", workspace=place, **ONE_REGION)
    assert first.spec.beside is None
    assert (
        lhcq.plan_search("mixed", **asked).spec == first.spec
    )  # the same command goes on with the same search
    later = lhcq.plan_search("mixed", "later", **asked)
    assert later.spec.beside.name == "mixed"
    # Gone before the merge: the search ends all the same, and says so.
    shutil.rmtree(place.search("mixed"))
    do_here(place, later)
    found = read_found(place.search("later"))
    assert found["beside"] is None
    assert "is gone" in " ".join(search_verdict(found))
