"""What a checkpoint is for: prediction as a job in this process, and its export; with the real small model."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from safetensors.torch import save_file

import lhcq
from lhcq.cli.ask import command as ask_run
from lhcq.cli.export_adapter import command as export_adapter
from lhcq.cli.predict import command
from lhcq.config import SplitConfig, TrainConfig
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.evaluate.metrics import metrics_of
from lhcq.evaluate.validation import write_validation
from lhcq.manifests import write_manifest
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import train_segment
from lhcq.model.score import score_prompts
from lhcq.prompts.numbers import values_of
from lhcq.prompts.writing import write_split
from lhcq.records.commits import identity_of_run
from lhcq.records.events import SCHEMA
from lhcq.records.jobs import load_job, outcome_of
from lhcq.records.labels import LABELS
from lhcq.records.specs import Template
from lhcq.records.validations import find_evaluation
from lhcq.report.prediction import prediction_verdict
from lhcq.storage import read_json
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.client import do_here
from tasks.jobs.kinds import queue_of
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job
from tests.specs import job_of

N = 44
CONFIG = TrainConfig(learning_rate=3e-3, batch_size=4, dropout=0.0, rank=4, max_steps=1)


def made_up_records(n: int) -> pa.Table:
    random = np.random.default_rng(3)
    jets = [[{field.name: 1.0 for field in SCHEMA.field("jets").type.value_type}] * 2 for _ in range(n)]
    for event, (heavy, light) in zip(jets, random.integers(50, 600, (n, 2)).tolist(), strict=True):
        event[:] = [{**event[0], "m": float(heavy)}, {**event[1], "m": float(light)}]
    columns = {
        "row": np.arange(n),
        "label": np.arange(n) % 2,
        "n_particles": random.integers(50, 300, n),
        "n_jets": np.full(n, 2),
        "jets": jets,
        "mjj": [None, *random.uniform(2000, 5000, n - 1).tolist()],
        "delta_r": random.uniform(2, 4, n),
    }
    return pa.table(
        {name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}, SCHEMA
    )


def write_dataset(place: Workspace, name: str, table: pa.Table, source: str) -> None:
    final = place.dataset(name)
    final.mkdir(parents=True)
    pq.write_table(table, final / "events.parquet", row_group_size=10)
    labels = {"signal": 0, "background": 0, "unknown": 0}
    for label in table["label"].to_pylist():
        labels[{1: "signal", 0: "background", None: "unknown"}[label]] += 1
    write_manifest(
        final, name=name, rows=table.num_rows, gaps=[], labels=labels, source_sha256=source, config=None
    )


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    """A workspace with a dataset, a black box of other events, and a run of one step on the dataset."""
    place = Workspace(tmp_path_factory.mktemp("made"))
    records = made_up_records(N)
    write_dataset(place, "events", records, "known")
    blind = records.set_column(1, SCHEMA.field("label"), pa.nulls(N, pa.int8())).slice(0, 10)
    write_dataset(place, "box", blind, "other")
    split = write_split(place.dataset("events"), place.split("split"), config=SplitConfig())
    spec = {
        "split": "split",
        "split_sha256": {name: facts["sha256"] for name, facts in split["files"].items()},
        "model": "smollm2",
        "model_dir": str(base.directory),
        "base": base.identity.model_dump(),
        "config": CONFIG.model_dump(),
        "checkpoint_steps": [1],
        "total_steps": 1,
    }
    of = create_job(place, job_of("train", "run", parts=0, created=time.time(), **spec)).identity
    part = pq.read_table(place.split("split") / "train.parquet")
    state = train_segment(
        base,
        prompts=part["prompt"].to_pylist(),
        labels=part["label"].to_numpy(),
        config=CONFIG,
        checkpoint=None,
        until_step=1,
        on_step=lambda _: True,
    )
    write_checkpoint(place.checkpoint("run", 1), state, config_hash="c", extra={"of": of})
    part = pq.read_table(place.split("split") / "validation.parquet")
    scores = score_prompts(
        base,
        checkpoint=place.checkpoint("run", 1),
        config=CONFIG,
        prompts=part["prompt"].to_pylist(),
        batch_size=8,
    )
    write_validation(
        place.validation("run", 1),
        step=1,
        of=of,
        rows=part["row"].to_numpy(),
        labels=part["label"].to_numpy(),
        p_signal=scores.p_signal,
        answers=scores.answers,
    )
    return place


@pytest.fixture
def trained(here, broker, made):
    """A copy of it, which the tasks of this process work in."""
    shutil.copytree(made.root, here.root)
    return here


def ask(monkeypatch, broker_url, *arguments):
    """The command as a user gives it to workers elsewhere; raises what it refuses."""
    monkeypatch.setenv("LHCQ_BROKER_URL", broker_url)
    done = CliRunner().invoke(command, [*map(str, arguments), "--detach", "--json"], standalone_mode=False)
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


def work(place, name, *, units=None, queue="validate"):
    """Do what is left of a prediction, as its worker would."""
    app.loader.import_default_modules()
    job = load_job(place, "predict", name)
    done = []
    while outcome_of(place, job) is None and (units is None or len(done) < units):
        unit = pending_units(place, job)[0]
        assert queue_of(unit) == queue
        assert app.tasks[unit.task](*unit.args) == "done"
        done.append(unit)
    return done


def test_a_prediction_goes_on_where_it_was_stopped_and_judges_what_training_did_not_see(
    trained, broker_url, monkeypatch
) -> None:
    asked = ("run", "events", "--name", "own", "--events-per-chunk", "20")
    assert ask(monkeypatch, broker_url, *asked) == {"job": "predict own"}
    assert len(work(trained, "own", units=2)) == 2
    with pytest.raises(NameTaken, match=r"^'predict own' is under way .*largest_p_value 0.5, was 0.01"):
        ask(monkeypatch, broker_url, *asked, "--select", "0.5")
    ask(monkeypatch, broker_url, *asked)
    assert [unit.task for unit in work(trained, "own")] == ["lhcq.predict_part"] * 2 + ["lhcq.predict_merge"]
    outcome = outcome_of(trained, load_job(trained, "predict", "own"))
    assert outcome
    assert outcome.state == "done"
    assert "test subset alone" in outcome.message

    summary = read_json(trained.prediction("own") / "summary.json")
    counts = {
        part: sum(count.values())
        for part, count in read_json(trained.split("split") / "manifest.json")["counts"].items()
    }
    assert summary["parts"] == {**counts, "none": N - sum(counts.values())}
    assert summary["judged"]["n"] == summary["figures"]["n"] == counts["test"]
    assert summary["reference"]["n_background"] == counts["calibration"] // 2
    assert summary["spectrum"]["expected"] == [0.0] * (len(summary["spectrum"]["edges"]) - 1)  # none can pass
    assert summary["expectation"]["error"] > 0  # the reference has its m_jj
    assert "template compact" in prediction_verdict(summary)[-1]
    table = pq.read_table(trained.prediction("own") / "scores.parquet")
    assert table["row"].to_pylist() == list(range(N))
    # The reference is in the dataset too: the best of its background has one p-value, of itself and one.
    calibration = pq.read_table(trained.split("split") / "calibration.parquet")
    background = {
        row
        for row, label in zip(*(calibration[c].to_pylist() for c in ("row", "label")), strict=True)
        if not label
    }
    n = len(background)
    values = sorted(
        value
        for row, value in zip(*(table[c].to_pylist() for c in ("row", "p_value")), strict=True)
        if row in background
    )
    assert values == pytest.approx([(1 + rank) / (n + 1) for rank in range(1, n + 1)])


def test_a_black_box_is_scored_blind_and_opened_by_its_key(
    trained, broker_url, monkeypatch, tmp_path
) -> None:
    ask(monkeypatch, broker_url, "run", "box", "--step", "1")
    work(trained, "run-box")
    blind = read_json(trained.prediction("run-box") / "summary.json")
    assert (blind["figures"], blind["parts"]) == (None, None)
    key = tmp_path / "key.txt"
    key.write_text("".join(f"{row % 2}\n" for row in range(10)))
    ask(monkeypatch, broker_url, "run", "box", "--name", "opened", "--labels", key)
    work(trained, "opened")
    opened = read_json(trained.prediction("opened") / "summary.json")
    assert (opened["figures"]["n"], opened["figures"]["n_signal"]) == (10, 5)
    assert (
        opened["figures"]["accuracy_low"] < opened["figures"]["accuracy"] < opened["figures"]["accuracy_high"]
    )
    scores = [pq.read_table(trained.prediction(name) / "scores.parquet") for name in ("run-box", "opened")]
    assert scores[0].drop_columns("label").equals(scores[1].drop_columns("label"))
    assert scores[1]["label"].to_pylist() == [row % 2 for row in range(10)]


def files_of(prediction):
    """The bytes of a prediction's files."""
    return {file.name: file.read_bytes() for file in prediction.iterdir()}


def test_another_selection_scores_nothing_and_has_the_bytes_of_one_that_did(
    trained, broker_url, monkeypatch, tmp_path
) -> None:
    """With a queue and without, by workers that have no model."""
    other = Workspace(tmp_path / "other")
    shutil.copytree(trained.root, other.root)
    for name in ("select-0.3", "select-0.5"):
        p = float(name.removeprefix("select-"))
        lhcq.score("run", "events", f"run-events-{name}", workspace=other, largest_p_value=p)
        shutil.move(other.prediction(f"run-events-{name}"), tmp_path / name)  # where it is not found again
    first = lhcq.score("run", "events", workspace=trained)

    asked = ("run", "events", "--select", "0.5")
    for _ in range(2):  # the command was stopped, and is given again
        assert ask(monkeypatch, broker_url, *asked) == {"job": "predict run-events-select-0.5"}
    planned = lhcq.plan_score("run", "events", workspace=trained, largest_p_value=0.3)
    monkeypatch.setenv("LHCQ_BROKER_URL", "redis://127.0.0.1:1")  # who waits for it needs none
    told = CliRunner().invoke(command, ["run", "events", "--select", "0.7", "--json"], standalone_mode=False)
    answer = json.loads(told.stdout)
    assert (answer["name"], answer["scores_of"]) == ("run-events-select-0.7", "run-events")
    assert (answer["events_per_second"], answer["selection"]["largest_p_value"]) == (None, 0.7)
    assert "the scores of prediction run-events are used" in told.stderr
    assert lhcq.score("run", "events", workspace=trained, largest_p_value=0.7).name == answer["name"]
    shutil.rmtree(trained.checkpoint("run", 1))
    done = work(trained, "run-events-select-0.5", queue="cpu")
    assert [unit.task for unit in done] == ["lhcq.predict_select"]
    assert do_here(trained, planned).state == "done"
    for name in ("select-0.3", "select-0.5"):
        assert files_of(trained.prediction(f"run-events-{name}")) == files_of(tmp_path / name)
    assert set(files_of(first.path)) == set(files_of(tmp_path / "select-0.5"))


def test_scores_that_are_damaged_after_the_command_end_the_job_and_leave_nothing(
    trained, broker_url, monkeypatch
) -> None:
    first = lhcq.score("run", "box", workspace=trained, step=1)
    asked = ("run", "box", "--step", "1", "--select", "0.5")
    ask(monkeypatch, broker_url, *asked)
    damaged = first.path / "scores.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    app.loader.import_default_modules()
    job = load_job(trained, "predict", "run-box-select-0.5")
    (unit,) = pending_units(trained, job)
    assert app.tasks[unit.task](*unit.args) == "failed"
    outcome = outcome_of(trained, job)
    assert outcome
    assert outcome.state == "failed"
    assert "scores.parquet: differs from its manifest" in outcome.message
    assert not trained.prediction(job.name).exists()
    with pytest.raises(BadInput, match="differs from its manifest"):
        ask(monkeypatch, broker_url, *asked)
    shutil.rmtree(first.path)  # as the line says: it is made again
    assert ask(monkeypatch, broker_url, *asked) == {"job": "predict run-box"}


def test_what_cannot_be_predicted_is_refused_before_anything_starts(
    trained, broker_url, monkeypatch, tmp_path
) -> None:
    write_dataset(trained, "bare", made_up_records(4).drop_columns("n_particles"), "other")
    key = tmp_path / "key.txt"
    key.write_text("0\n" * 9)
    for arguments, error, message in (
        (("run", "bare"), BadInput, "^bare: its events have no n_particles"),
        (("run", "events", "--labels", key), BadInput, "has labels of its own"),
        (("run", "box", "--labels", key), BadInput, "9 lines for 10 events"),
        (("run", "box", "--step", "9"), NotThere, "no checkpoint at step 9"),
        (("run", "nothing"), NotThere, "dataset 'nothing'"),
        (("walk", "box"), NotThere, "walk"),
    ):
        with pytest.raises(error, match=message):
            ask(monkeypatch, broker_url, *arguments)
    shutil.rmtree(trained.split("split"))
    write_split(trained.dataset("events"), trained.split("split"), config=SplitConfig(seed=2))
    with pytest.raises(BadInput, match="is not the split that run 'run' began with"):
        ask(monkeypatch, broker_url, "run", "box")
    assert not list((trained.root / "jobs").glob("predict-*"))


def export(*arguments):
    done = CliRunner().invoke(export_adapter, [*map(str, arguments), "--json"], standalone_mode=False)
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


def program_of(card, base, here):
    """The program of a card, of the base model and the export in these directories."""
    program = card.text.partition("```python\n")[2].partition("```")[0]
    lines = {"BASE": base, "HERE": here}
    for name, directory in lines.items():
        program = re.sub(rf"(?m)^{name} = .*$", f"{name} = {str(directory)!r}", program)
    return program


SCORE = """
if __name__ == "__main__":
    import json, sys
    prompts = json.load(open(sys.argv[1]))
    json.dump([p_signal(prompts), [answer(one) for one in prompts]], open(sys.argv[2], "w"))
"""


def run_program(program, prompts, tmp_path):
    """What the program gives for the prompts, in an interpreter of its own, and what it prints by itself."""
    (tmp_path / "use.py").write_text(program + SCORE)
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    done = subprocess.run(
        [sys.executable, "use.py", "prompts.json", "said.json"],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        capture_output=True,
        check=True,
        text=True,
    )
    p_signal, words = json.loads((tmp_path / "said.json").read_text())
    return np.array(p_signal), words, done.stdout


@pytest.mark.parametrize(
    "model_format",
    [
        "adapter",
        # It writes and reads the whole model.
        pytest.param("merged", marks=pytest.mark.torture),
        pytest.param("classifier", marks=pytest.mark.torture),
    ],
)
def test_the_program_of_a_card_gives_the_metrics_beside_it(
    model_format, trained, smollm2, base, tmp_path
) -> None:
    made = export("run", "best", tmp_path / "out", "--format", model_format)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    program = program_of(card, smollm2, tmp_path / "out")
    assert "lhcq" not in program.replace(str(tmp_path), "").replace(str(smollm2), "")
    part = pq.read_table(trained.split("split") / "validation.parquet")
    p_signal, words, printed = run_program(program, part["prompt"].to_pylist(), tmp_path)
    found = metrics_of(part["label"].to_numpy(), p_signal)
    told = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert told == {"accuracy": round(found.accuracy, 6), "roc_auc": round(found.auc, 6)}
    assert f"| validation | this model | {part.num_rows} | {found.accuracy:.2f}" in card.text
    scores = find_evaluation(trained.validation("run", 1)).scores
    assert p_signal == pytest.approx(scores.p_signal, abs=1e-5)
    by_run = [LABELS[code] if code >= 0 else None for code in scores.answers]
    speaks = False
    if model_format == "classifier":
        assert words == [LABELS[int(one >= 0.5)] for one in p_signal]
    else:
        assert [word if word in LABELS else None for word in words] == by_run
        order = np.argsort(scores.p_signal, kind="stable")
        asked = [by_run[order[at]] for at in (0, -1)]
        speaks = None not in asked
        assert (
            f"it answered with a label for {2 - asked.count(None)} of 2{'.' if speaks else ': '}" in card.text
        )
    assert re.match(r"[\d ]+: .*P\(signal\) = 0\.\d{4}$", printed)

    assert card.data.license == "apache-2.0"
    assert card.data.datasets == ["events"]
    assert card.data.metrics == ["accuracy", "roc_auc"]
    assert card.data.base_model == made["base"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card.data.pipeline_tag == ("text-generation" if speaks else "text-classification")
    assert card.data.library_name == ("peft" if model_format == "adapter" else "transformers")
    for said in (
        "| `mjj` | 10 GeV | invariant mass of the two leading jets |",
        "compact v3",
        f"weights sha256 {base.identity.weights}",
        "not quite the hub's",
    ):
        assert said in card.text
    files = {
        "adapter": {"README.md", "adapter_config.json", "adapter_model.safetensors"},
        "merged": {
            "README.md",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "generation_config.json",
        },
        "classifier": {"README.md", "config.json", "model.safetensors", "tokenizer.json"},
    }[model_format]
    assert files <= set(made["files"])
    assert (model_format == "adapter") == any(file.startswith("adapter") for file in made["files"])
    if model_format == "adapter":
        config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == made["base"]


def test_an_export_overwrites_nothing_and_leaves_nothing_half(trained, tmp_path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(NameTaken, match="taken: exists already"):
        export("run", "best", taken)
    with pytest.raises(NotThere, match="no checkpoint at step 7"):
        export("run", "7", tmp_path / "out")
    weights = trained.checkpoint("run", 1) / "adapter_model.safetensors"
    save_file({"channel.weight": torch.zeros(2)}, weights)
    checkpoint = trained.checkpoint("run", 1)
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint, of=identity_of_run(trained.run("run")), step=1)
    with pytest.raises(BadInput, match=r"more than a LoRA adapter \(channel.weight\)"):
        export("run", "1", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "workspace"]


def told(*arguments):
    """The answer of `lhcq ask`; raises what it refuses."""
    done = CliRunner().invoke(ask_run, [*map(str, arguments)], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.stdout


def test_a_run_answers_for_a_row_its_numbers_and_its_prompt_alike(trained, made) -> None:
    run = lhcq.load("run", workspace=trained)
    part = pq.read_table(trained.split("split") / "test.parquet")
    row, prompt = part["row"][0].as_py(), part["prompt"][0].as_py()
    template = Template.checked(**lhcq.results.Split("split", trained).manifest["template"])
    answer = run.ask(row=row)
    assert (answer.prompt, answer.row, answer.subset) == (prompt, row, "test")
    assert answer.truth == LABELS[part["label"][0].as_py()]
    assert answer.label == LABELS[answer.p_signal >= 0.5]
    assert answer.p_signal == pytest.approx(float(run.predict("events").p_signal[row]), abs=1e-6)
    numbers = list(values_of(template, prompt).values())
    for other in (run.ask(prompt), run.ask(numbers=numbers)):
        assert (other.p_signal, other.label, other.prompt) == (answer.p_signal, answer.label, prompt)
        assert (other.row, other.truth, other.subset) == (None, None, None)
    blind = run.ask(row=2, dataset="box")
    assert (blind.truth, blind.subset) == (None, None)

    heard = []
    run.ask(prompt, say=heard.append)
    assert heard == ["loading the base model"]
    assert answer.generated in {*LABELS, None}
    words = f"  in words the model says {answer.generated or 'neither label'}"
    text = told("run", "--row", row)
    assert text.splitlines() == [
        f"{answer.label} (P(signal) = {answer.p_signal:.3g})",
        f"  prompt: {prompt}",
        *([] if answer.generated == answer.label else [words]),
        f"  row {row}: {answer.truth} by its label, of the test subset",
    ]
    assert (
        json.loads(told("run", "--numbers", *numbers, "--json", "--step", "1"))["p_signal"] == answer.p_signal
    )


def test_what_cannot_be_asked_is_refused_in_one_line(trained) -> None:
    n = len(pq.read_table(trained.split("split") / "test.parquet")["prompt"][0].as_py().split())
    for arguments, error, message in (
        ((), BadInput, "^give one event: a prompt, its numbers, or a row of a dataset"),
        (("--row", 3, "--prompt", "1 2:"), BadInput, "^give one event"),
        (("--prompt", "1 2:", "--dataset", "box"), BadInput, "a dataset is asked by a row"),
        (("--row", N), BadInput, rf"^events: has no row {N}; its {N} rows are between 0 and {N - 1}"),
        (("--row", 20, "--dataset", "box"), BadInput, "^box: has no row 20; its 10 rows"),
        (("--row", 3, "--dataset", "nothing"), NotThere, "dataset 'nothing'"),
        (("--numbers", 1, 2), BadInput, f"^2 numbers, not {n}: mjj \\[GeV\\]"),
        (("--numbers", *["-1"] * n), BadInput, "^mjj -1: no event has that"),
        (("--numbers", *["1"] * n), BadInput, "^mjj 1: the training's events have"),
        (("--numbers", "x", 2), BadInput, "^--numbers: .*'x'"),
        (("--prompt", "1 2 3"), BadInput, "is no prompt of template compact"),
        (("--row", 3, "--step", 9), NotThere, "no checkpoint at step 9"),
    ):
        with pytest.raises(error, match=message) as caught:
            told("run", *arguments)
        assert "\n" not in str(caught.value)
