"""Exports of a checkpoint, and the answers of a run that is asked: both give the scores of its validation."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import ModelCard
from safetensors.torch import save_file

import lhcq
from lhcq.cli.export_adapter import command as export_adapter
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.evaluate.metrics import metrics_of
from lhcq.manifests import write_manifest
from lhcq.prompts.numbers import values_of
from lhcq.records.commits import identity_of_run
from lhcq.records.labels import LABELS
from lhcq.records.specs import Template
from lhcq.records.validations import find_evaluation
from tests.checkpoint_used import N, told


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


ANSWERED = 12
"""Prompts whose answer is generated, one after the other."""
SCORE = f"""
if __name__ == "__main__":
    import json, sys
    prompts = json.load(open(sys.argv[1]))
    json.dump([p_signal(prompts), [answer(one) for one in prompts[:{ANSWERED}]]], open(sys.argv[2], "w"))
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
def test_the_program_of_a_card_gives_the_metrics_beside_it(model_format, trained, base, tmp_path) -> None:
    made = export("run", "best", tmp_path / "out", "--format", model_format)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    program = program_of(card, base.directory, tmp_path / "out")
    assert "lhcq" not in program.replace(str(tmp_path), "").replace(str(base.directory), "")
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
        assert words == [LABELS[int(one >= 0.5)] for one in p_signal[:ANSWERED]]
    else:
        assert [word if word in LABELS else None for word in words] == by_run[:ANSWERED]
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
