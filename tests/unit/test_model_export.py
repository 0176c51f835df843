"""An export is loaded by PEFT or transformers alone, and gives the run's own scores before anybody sees it."""

import json
import shutil
from functools import partial
from typing import get_args

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lhcq.config import ModelFormat, TrainConfig
from lhcq.errors import BadInput
from lhcq.manifests import write_manifest
from lhcq.model import export, model_cache
from lhcq.model.base import load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.export import BaseName, Said, export_checkpoint, label_tokens
from lhcq.model.loop import train_segment
from lhcq.model.score import score_prompts
from lhcq.model.tokens import encode_prompts, end_tokens, tokens_before
from lhcq.records.labels import LABELS
from lhcq.report.card import card_program
from tests.peft_alone import load_by_peft
from tests.tiny_models import WORDS, write_model, write_tokenizer

PROMPTS = ["12 3 4:", "7:", "357 120 447 53 10:", "1 2 1 2 1 2 1 2 99 12 3 4 5 6:", "0 0:", "48 2:"]
CONFIG = TrainConfig(learning_rate=2e-2, dropout=0.0, epochs=4, batch_size=6, rank=4)


@pytest.fixture(autouse=True)
def resident_alone(monkeypatch):
    """Whatever this process had loaded, it has again afterwards."""
    monkeypatch.setattr(model_cache, "_resident", None)


def train(directory, checkpoint, config=CONFIG):
    """A run of some steps: its base, and the scores of its validation."""
    base = load_base(directory)
    state = train_segment(
        base,
        prompts=PROMPTS,
        labels=np.arange(6) % 2,
        config=config,
        checkpoint=None,
        until_step=4,
        on_step=lambda _: True,
    )
    write_checkpoint(checkpoint, state, config_hash="c")
    scores = score_prompts(base, checkpoint=checkpoint, config=config, prompts=PROMPTS, batch_size=6)
    return base, [float(one) for one in scores.p_signal]


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


def write_out(model_format, tmp_path, model, said):
    """Export the checkpoint; gives what came of the card's program."""
    program = partial(
        card_program,
        model_format,
        dtype=export.precision(),
        writer="def write_prompt(): ...",
        prompt=said.prompts[0],
        values=None,
        labels=label_tokens(model, said.prompts[0]),
        front=tokens_before(model, said.prompts[0]),
        ends=end_tokens(model),
    )
    found = []
    export_checkpoint(
        model_format,
        tmp_path / "checkpoint",
        tmp_path / "out",
        model_dir=model,
        base=BaseName("owner/model", False, None, ""),
        program=lambda base, here: program(base=base, revision=None, here=here),
        card=lambda tried: found.append(tried) or "card",
        said=said,
        config=CONFIG,
    )
    (tried,) = found
    return tried


def forget_base(checkpoint):
    """As checkpoints were that knew nothing of their base."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["base"], manifest["files"]
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint, **manifest)


FORMATS = pytest.mark.parametrize("model_format", get_args(ModelFormat))


@FORMATS
@pytest.mark.parametrize("validated", [True, False])
def test_an_export_is_written_once_it_gives_the_runs_own_scores(model_format, validated, model, tmp_path):
    _, scores = train(model, tmp_path / "checkpoint")
    write_out(model_format, tmp_path, model, Said(PROMPTS, scores if validated else None))
    assert (tmp_path / "out" / "README.md").is_file()


@FORMATS
def test_an_export_onto_weights_that_were_replaced_is_refused_and_leaves_nothing(
    model_format, model, tmp_path
):
    _, scores = train(model, tmp_path / "checkpoint")
    forget_base(tmp_path / "checkpoint")
    write_model(model, seed=2)
    with pytest.raises(BadInput, match="others would not get this run's scores from it") as caught:
        write_out(model_format, tmp_path, model, Said(PROMPTS, scores))
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "model"]


def test_scores_of_another_machine_are_taken_to_its_rounding_and_made_anew_here(model, tmp_path):
    _, scores = train(model, tmp_path / "checkpoint")
    elsewhere = [one + 0.01 * (1 - 2 * (at % 2)) * one * (1 - one) for at, one in enumerate(scores)]
    write_out("adapter", tmp_path, model, Said(PROMPTS, elsewhere))
    assert (tmp_path / "out").is_dir()


def test_an_adapter_that_peft_understands_otherwise_is_refused(model, tmp_path):
    _, scores = train(model, tmp_path / "checkpoint")
    config = json.loads((tmp_path / "checkpoint" / "adapter_config.json").read_text())
    manifest = json.loads((tmp_path / "checkpoint" / "manifest.json").read_text())
    (tmp_path / "checkpoint" / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 1}))
    (tmp_path / "checkpoint" / "manifest.json").unlink()
    del manifest["files"]
    write_manifest(tmp_path / "checkpoint", **manifest)
    with pytest.raises(BadInput, match="others would not get this run's scores"):
        write_out("adapter", tmp_path, model, Said(PROMPTS, scores))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize(
    "frame", [{"behind": "</s>"}, {"before": "</s> <s>", "behind": "</s>"}, {"before": "<s>"}]
)
def test_what_frames_a_text_is_fed_as_the_card_feeds_it(frame, model, tmp_path):
    write_tokenizer(model, **frame)
    base, scores = train(model, tmp_path / "checkpoint")
    front = [WORDS.index(word) for word in frame.get("before", "").split()]
    write_out("adapter", tmp_path, model, Said(PROMPTS, scores))
    alone = load_by_peft(model, tmp_path / "out", base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    for prompt, expected in zip(PROMPTS, scores, strict=True):
        ids = [*front, *tokenizer(prompt, add_special_tokens=False).input_ids]
        with torch.no_grad():
            logits = alone(torch.tensor([ids], device=base.device)).logits[0, -1, list(base.label_ids)]
        assert float(torch.softmax(logits.double(), 0)[1]) == pytest.approx(expected, abs=1e-5)


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(model, tmp_path):
    _, scores = train(model, tmp_path / "checkpoint")
    settings = json.loads((model / "tokenizer_config.json").read_text())
    added = {
        "21": {"content": "12", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    }
    added["21"]["special"] = True
    (model / "tokenizer_config.json").write_text(json.dumps({**settings, "added_tokens_decoder": added}))
    with pytest.raises(BadInput, match="transformers' tokenizer gives other tokens"):
        write_out("adapter", tmp_path, model, Said(PROMPTS, scores))
    assert not (tmp_path / "out").exists()


def test_what_was_learnt_does_not_vanish_in_the_rounding_of_a_merged_model(tmp_path, monkeypatch):
    """As PEFT merges it in bfloat16, most of it does: a small step from a rounded value is rounded back."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    monkeypatch.setattr(export, "precision", lambda: "bfloat16")  # as where a GPU computes in it
    directory = write_model(tmp_path / "model", dtype=torch.bfloat16)
    _, scores = train(directory, tmp_path / "checkpoint", CONFIG.model_copy(update={"learning_rate": 1e-3}))
    write_out("merged", tmp_path, directory, Said(PROMPTS, scores))
    name = "model.layers.1.mlp.gate_proj"
    base, merged = (
        load_file(place / "model.safetensors")[f"{name}.weight"] for place in (directory, tmp_path / "out")
    )
    adapter = load_file(tmp_path / "checkpoint" / "adapter_model.safetensors")
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    learnt = b @ a * (CONFIG.alpha / CONFIG.rank)
    found = merged.float() - dequantize_4bit(
        *quantize_4bit(base.float(), quant_type="nf4", compress_statistics=True)
    )
    assert merged.dtype == torch.bfloat16
    assert float((found * learnt).sum() / learnt.square().sum()) == pytest.approx(1.0, abs=0.2)


def test_a_merged_model_of_transposed_layers_holds_what_was_trained(tmp_path):
    directory = write_model(tmp_path / "model", "gpt2")
    _, scores = train(directory, tmp_path / "checkpoint")
    write_out("merged", tmp_path, directory, Said(PROMPTS, scores))
    weights, before = (load_file(place / "model.safetensors") for place in (tmp_path / "out", directory))
    assert weights.keys() == before.keys()


def test_a_tied_table_that_the_file_repeats_is_no_hindrance(tmp_path):
    directory = write_model(tmp_path / "model", "llama tied")
    weights = load_file(directory / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    _, scores = train(directory, tmp_path / "checkpoint")
    write_out("merged", tmp_path, directory, Said(PROMPTS, scores))


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    """A model that says a label after a prompt, and stops: what a run is that learnt to answer in words."""
    directory = write_model(tmp_path_factory.mktemp("speaker") / "model")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    rows = [
        encode_prompts(directory)([f"{prompt} {LABELS[at % 2]}"])[0] + [WORDS.index("</s>")]
        for at, prompt in enumerate(PROMPTS)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        losses = [
            torch.nn.functional.cross_entropy(
                model(torch.tensor([ids])).logits[0, -3:-1], torch.tensor(ids[-2:])
            )
            for ids in rows
        ]
        torch.stack(losses).mean().backward()
        optimizer.step()
    model.save_pretrained(directory)
    return directory


SPOKEN = TrainConfig(learning_rate=1e-4, dropout=0.0, epochs=4, batch_size=6, rank=4)


@pytest.mark.parametrize("frame", [{}, {"before": "<s>", "behind": "</s>"}])
def test_a_pipeline_of_a_merged_export_answers_the_label_and_stops(frame, speaker, tmp_path):
    directory = shutil.copytree(speaker, tmp_path / "model")
    write_tokenizer(directory, **frame)
    _, scores = train(directory, tmp_path / "checkpoint", SPOKEN)
    tried = write_out("merged", tmp_path, directory, Said(PROMPTS, scores))
    generator = transformers.pipeline("text-generation", str(tmp_path / "out"), dtype=torch.float32)
    said = generator(PROMPTS, return_full_text=False, batch_size=4)
    told = [LABELS[one >= 0.5] for one in scores]
    if not frame:  # what it learnt was without
        assert (tried.asked, tried.in_words) == (2, 2)
        assert len(set(told)) == 2
        assert [one[0]["generated_text"].strip() for one in said] == told
    (ids,) = generator(PROMPTS[0], return_tensors=True)
    assert len(ids["generated_token_ids"]) <= len(encode_prompts(directory)([PROMPTS[0]])[0]) + 2


def test_an_adapter_of_a_model_that_speaks_is_tried_in_words(speaker, tmp_path):
    _, scores = train(speaker, tmp_path / "checkpoint", SPOKEN)
    tried = write_out("adapter", tmp_path, speaker, Said(PROMPTS, scores))
    assert (tried.n, tried.asked, tried.in_words) == (6, 2, 2)


def test_a_model_that_does_not_speak_is_exported_and_that_is_known(model, tmp_path):
    _, scores = train(model, tmp_path / "checkpoint", SPOKEN)
    assert write_out("merged", tmp_path, model, Said(PROMPTS, scores)).in_words == 0


@pytest.mark.parametrize("architecture", ["llama", "llama tied", "gpt2", "qwen3_moe", "gemma", "opt"])
def test_a_classifier_needs_transformers_alone(architecture, tmp_path):
    directory = write_model(tmp_path / "model", architecture)
    _, scores = train(directory, tmp_path / "checkpoint")
    write_out("classifier", tmp_path, directory, Said(PROMPTS, scores))
    out = tmp_path / "out"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out, dtype=torch.float32).eval()
    assert model.config.id2label == {0: "background", 1: "signal"}
    classify = transformers.pipeline(
        "text-classification",
        model=model,
        tokenizer=transformers.AutoTokenizer.from_pretrained(out),
        top_k=None,
    )
    found = [{one["label"]: one["score"] for one in told} for told in classify(PROMPTS, batch_size=6)]
    # A GPU scored in bfloat16: each of two logits, at most 5 apart, is off by 2^-9 of that, p by a quarter.
    tolerance = 2 * 5 * 2**-9 / 4 if torch.cuda.is_available() else 1e-4
    assert [one["signal"] for one in found] == pytest.approx(scores, abs=tolerance)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("olmoe", "transformers has no classifier that looks at the last token of a olmoe"),
        ("granite", "transformers has no classifier"),
        ("phi", "its output layer has a bias"),
    ],
)
def test_a_model_that_is_no_classifier_is_refused_in_one_line(architecture, message, tmp_path):
    directory = write_model(tmp_path / "model", architecture)
    _, scores = train(directory, tmp_path / "checkpoint")
    with pytest.raises(BadInput, match=message) as caught:
        write_out("classifier", tmp_path, directory, Said(PROMPTS, scores))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_labels_of_several_tokens_are_spelled_out_or_refused(model, tmp_path):
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    spelled = {"signal": "= =", "background": "= -"}
    tokenizer["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Replace", "pattern": {"String": label}, "content": text}
            for label, text in spelled.items()
        ],
    }
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    _, scores = train(model, tmp_path / "checkpoint")
    with pytest.raises(BadInput, match="a label is several tokens of this model"):
        write_out("classifier", tmp_path, model, Said(PROMPTS, scores))
    write_out("adapter", tmp_path, model, Said(PROMPTS, scores))


def test_a_card_whose_program_fails_is_no_card(model, tmp_path, monkeypatch):
    _, scores = train(model, tmp_path / "checkpoint")
    monkeypatch.setitem(write_out.__globals__, "card_program", lambda *_, **__: "import nothing_there")
    with pytest.raises(BadInput, match="others could not use it by transformers alone"):
        write_out("adapter", tmp_path, model, Said(PROMPTS, scores))
    assert not (tmp_path / "out").exists()
