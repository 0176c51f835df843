"""Scores and checkpoints of layers of the real 4-bit SmolLM2 against plain transformers and PEFT."""

import json
import shutil

import numpy as np
import pytest
import torch

from lhcq.config import TrainConfig
from lhcq.errors import BadInput, NotThere
from lhcq.model.adapter import attach_lora
from lhcq.model.checkpoint import verified_step, write_checkpoint
from lhcq.model.loop import train_segment
from lhcq.model.model_cache import resident_base
from lhcq.model.score import score_attached, score_prompts
from tests.peft_alone import load_by_peft

CONFIG = TrainConfig(learning_rate=3e-3, batch_size=4, dropout=0.1)
PROMPTS = ["357 120 447 53 10:", "1:", "88 99 7:", "2048 3 5 7 11 13:", "0 0:", "417 5 60 42:", "12 3:"]


@pytest.fixture(scope="module")
def checkpoint(exact, tmp_path_factory):
    """A checkpoint after two steps, so that no LoRA matrix is zero any more."""
    state = train_segment(
        exact,
        prompts=PROMPTS,
        labels=np.arange(len(PROMPTS)) % 2,
        config=CONFIG,
        checkpoint=None,
        until_step=2,
        on_step=lambda record: True,
    )
    directory = tmp_path_factory.mktemp("run") / "checkpoints" / "00000002"
    write_checkpoint(directory, state, config_hash="abc", extra={"versions": {"torch": torch.__version__}})
    return directory


@pytest.fixture(scope="module")
def whole_vocabulary(exact, model_dir, checkpoint):
    """Logits `(n, vocabulary)` after each prompt, by transformers and PEFT alone, one prompt at a time."""
    model = load_by_peft(model_dir, checkpoint, exact)
    with torch.inference_mode():
        return torch.stack(
            [
                model(torch.tensor([ids], device=exact.device)).logits[0, -1].float().cpu()
                for ids in exact.encode(PROMPTS)
            ]
        )


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_scores_equal_the_softmax_of_the_whole_model_over_the_two_labels(
    exact, checkpoint, whole_vocabulary, batch_size
):
    scores = score_prompts(
        exact, checkpoint=checkpoint, config=CONFIG, prompts=PROMPTS, batch_size=batch_size
    )
    expected = torch.softmax(whole_vocabulary[:, list(exact.label_ids)].double(), dim=1)[:, 1].numpy()
    assert scores.p_signal.dtype == np.float64
    assert np.abs(scores.p_signal - expected).max() < 1e-4
    assert expected.std() > 1e-3


def test_the_adapter_does_change_the_scores(base, checkpoint):
    with_adapter = score_prompts(base, checkpoint=checkpoint, config=CONFIG, prompts=PROMPTS, batch_size=4)
    base.adapter.flat.data.zero_()
    without = score_attached(base, PROMPTS, 512, batch_size=4)
    assert np.abs(with_adapter.p_signal - without.p_signal).max() > 0.01


def test_progress_counts_the_prompts(base, checkpoint):
    done = []
    score_prompts(
        base, checkpoint=checkpoint, config=CONFIG, prompts=PROMPTS, batch_size=3, on_batch=done.append
    )
    # A GPU would be idle with three.
    assert done == ([7] if base.device.type == "cuda" else [3, 6, 7])


def test_no_prompts_give_no_scores(base, checkpoint):
    scores = score_prompts(base, checkpoint=checkpoint, config=CONFIG, prompts=[], batch_size=3)
    assert scores.p_signal.shape == scores.answers.shape == (0,)


def test_a_long_prompt_is_not_scored(base, checkpoint):
    config = CONFIG.model_copy(update={"max_tokens": 8})
    with pytest.raises(BadInput, match="Prompt 1 has 11 tokens, allowed are 1 to 8"):
        score_prompts(base, checkpoint=checkpoint, config=config, prompts=["1:", "1234567890:"], batch_size=2)


def test_a_checkpoint_holds_adapter_optimizer_and_manifest(checkpoint):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert sorted(manifest["files"]) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert (manifest["step"], manifest["config_hash"], manifest["compute"]) == (2, "abc", "float32")
    assert manifest["versions"] == {"torch": torch.__version__}
    assert verified_step(checkpoint) == 2


def test_a_second_commit_of_a_step_changes_nothing(base, checkpoint, tmp_path):
    copy = tmp_path / "00000002"
    shutil.copytree(checkpoint, copy)
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    state = train_segment(
        base,
        prompts=PROMPTS,
        labels=np.arange(len(PROMPTS)) % 2,
        config=CONFIG.model_copy(update={"seed": 9}),
        checkpoint=None,
        until_step=1,
        on_step=lambda record: True,
    )
    write_checkpoint(copy, state, config_hash="late")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["00000002"]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.safetensors"])
def test_a_damaged_checkpoint_is_refused(base, checkpoint, tmp_path, name):
    copy = tmp_path / "2"
    shutil.copytree(checkpoint, copy)
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BadInput, match="differs from its manifest"):
        score_prompts(base, checkpoint=copy, config=CONFIG, prompts=PROMPTS, batch_size=4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may have 8 bits")
def test_what_was_trained_in_8_bits_is_scored_where_there_are_none_but_not_trained_there(base, checkpoint):
    asked = {"checkpoint": checkpoint, "prompts": PROMPTS, "batch_size": 4}
    packed = CONFIG.model_copy(update={"compute": "fp8"})
    there = score_prompts(base, config=packed, **asked)
    assert np.array_equal(there.p_signal, score_prompts(base, config=CONFIG, **asked).p_signal)
    with pytest.raises(BadInput, match=r"^8 bits \(--compute fp8\) need an NVIDIA GPU .* this is a CPU"):
        attach_lora(base, packed)
    assert np.array_equal(there.p_signal, score_prompts(base, config=CONFIG, **asked).p_signal)


def test_an_absent_checkpoint_is_said_to_be_absent(base, tmp_path):
    with pytest.raises(NotThere, match="checkpoint 00000007 does not exist"):
        score_prompts(base, checkpoint=tmp_path / "00000007", config=CONFIG, prompts=PROMPTS, batch_size=4)


def test_a_checkpoint_of_another_shape_is_refused(base, checkpoint):
    config = CONFIG.model_copy(update={"rank": 8})
    with pytest.raises(BadInput, match="another shape"):
        score_prompts(base, checkpoint=checkpoint, config=config, prompts=PROMPTS, batch_size=4)


def test_the_base_is_loaded_once(model_dir):
    assert resident_base(model_dir) is resident_base(model_dir)
