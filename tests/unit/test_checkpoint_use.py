"""What a checkpoint is for: prediction as a job in this process, and its export; with the real small model."""

import json
import shutil
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lhcq.cli.export_adapter import command as export_adapter
from lhcq.cli.predict import command
from lhcq.config import SplitConfig, TrainConfig
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.evaluate.validation import write_validation
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import train_segment
from lhcq.model.score import score_prompts
from lhcq.prompts.writing import write_split
from lhcq.records.commits import identity_of_run
from lhcq.records.events import SCHEMA
from lhcq.records.jobs import load_job, outcome_of
from lhcq.report.prediction import prediction_verdict
from lhcq.storage import read_json, write_manifest
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.jobs.kinds import queue_of
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job
from tests.peft_alone import load_by_peft
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
        unknown=scores.unknown,
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


def work(place, name, *, units=None):
    """Do what is left of a prediction, as its worker would."""
    app.loader.import_default_modules()
    job = load_job(place, "predict", name)
    done = []
    while outcome_of(place, job) is None and (units is None or len(done) < units):
        unit = pending_units(place, job)[0]
        assert queue_of(unit) == "validate"
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


@pytest.fixture
def spoken_for(trained, base):
    """P(signal) of three prompts of the split by lhcq."""
    prompts = pq.read_table(trained.split("split") / "test.parquet")["prompt"].to_pylist()[:3]
    scores = score_prompts(
        base, checkpoint=trained.checkpoint("run", 1), config=CONFIG, prompts=prompts, batch_size=3
    )
    return prompts, scores.p_signal


def export(*arguments):
    done = CliRunner().invoke(export_adapter, [*map(str, arguments), "--json"], standalone_mode=False)
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


def spoken_by(model, directory, prompts):
    """P(signal) by transformers alone, a prompt at a time."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    labels = [
        tokenizer(f" {label}", add_special_tokens=False).input_ids for label in ("background", "signal")
    ]
    assert [len(ids) for ids in labels] == [1, 1]
    with torch.inference_mode():
        logits = [model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1] for prompt in prompts]
    return torch.stack(
        [torch.softmax(one[torch.tensor(labels).flatten()].double(), 0)[1] for one in logits]
    ).numpy()


def test_an_exported_adapter_needs_peft_alone(trained, spoken_for, smollm2, base, tmp_path) -> None:
    answer = export("run", "best", tmp_path / "out")
    assert answer["files"] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    model = load_by_peft(smollm2, tmp_path / "out", base)
    prompts, expected = spoken_for
    assert spoken_by(model, smollm2, prompts) == pytest.approx(expected, abs=1e-5)
    with model.disable_adapter():
        assert spoken_by(model, smollm2, prompts) != pytest.approx(expected, abs=1e-3)

    card = ModelCard.load(tmp_path / "out" / "README.md")
    program = card.text.partition("```python\n")[2].partition("```")[0]
    asks = program[program.index("prompt = ") :]
    assert "[ids]" in asks  # SmolLM2 has a BOS and puts nothing before a prompt
    found = {"torch": torch, "model": model, "tokenizer": AutoTokenizer.from_pretrained(smollm2)}
    with torch.inference_mode():
        exec(asks, found)  # noqa: S102
    assert float(found["p_signal"]) == pytest.approx(
        spoken_by(model, smollm2, [found["prompt"]])[0], abs=1e-5
    )
    assert card.data.base_model == answer["base"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card.data.library_name == "peft"
    assert {result.metric_type for result in card.data.eval_results} == {"accuracy", "auc"}
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == answer["base"]
    for said in (
        "compact v3",
        "| validation | this model |",
        f"weights sha256 {base.identity.weights}",
        "not quite the hub's",
        repr(prompts[0])[1:3],
    ):
        assert said in card.text


@pytest.mark.torture  # it writes and reads the whole model
def test_a_merged_model_needs_transformers_alone(trained, spoken_for, tmp_path) -> None:
    answer = export("run", "1", tmp_path / "merged", "--merged")
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(answer["files"])
    assert not any(file.startswith("adapter") for file in answer["files"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    prompts, expected = spoken_for
    assert spoken_by(model, tmp_path / "merged", prompts) == pytest.approx(expected, abs=0.02)
    assert ModelCard.load(tmp_path / "merged" / "README.md").data.library_name == "transformers"


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
