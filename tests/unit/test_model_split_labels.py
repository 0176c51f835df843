"""A tokenizer that splits the labels: their log-likelihoods, with layers of SmolLM2 and its tokenizer less merges."""

import json

import numpy as np
import pytest
import torch

from lhcq.config import TrainConfig
from lhcq.model.adapter import attach_lora, reset_adapter
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.labels import label_ids
from lhcq.model.loop import train_segment
from lhcq.model.loss import _read_split_labels, label_scores, pad_right
from lhcq.model.score import score_attached, score_prompts
from lhcq.model.tokens import encode_prompts
from lhcq.records.labels import LABELS

PROMPTS = ["357 120 447 53 10:", "1:", "88 99 7:", "0 0:", "12 3:"]
CONFIG = TrainConfig(learning_rate=2e-3, batch_size=8, dropout=0.0, rank=8)


@pytest.fixture(scope="module")
def splitting(smollm2, tmp_path_factory):
    """The model's tokenizer as one that does not know the labels as tokens of their own."""
    tokenizer = json.loads((smollm2 / "tokenizer.json").read_text())
    merges = tokenizer["model"]["merges"]
    whole = {f"Ġ{label}" for label in LABELS}
    joined = ["".join(merge) if isinstance(merge, list) else merge.replace(" ", "") for merge in merges]
    tokenizer["model"]["merges"] = [m for m, made in zip(merges, joined, strict=True) if made not in whole]
    directory = tmp_path_factory.mktemp("tokenizer")
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return encode_prompts(directory)


@pytest.fixture
def split_base(exact, splitting, monkeypatch):
    """The small model with that tokenizer, and a fresh adapter."""
    base = exact
    assert not base.splits_labels
    labels = label_ids(splitting, PROMPTS[0])
    assert all(len(tokens) > 1 for tokens in labels)
    monkeypatch.setattr(base, "encode", splitting)
    monkeypatch.setattr(base, "label_tokens", labels)
    forget_labels(base)
    reset_adapter(attach_lora(base, CONFIG), 3)
    base.peft.eval()
    yield base
    forget_labels(base)


def forget_labels(base):
    """What it keeps of its labels, and what reads where that was."""
    for cached in ("label_table", "label_rows", "label_index"):
        vars(base).pop(cached, None)
    if base.adapter is not None:
        base.adapter.graphs.clear()


def by_hand(base, prompt):
    """The logit of P(signal) after a prompt, by the whole vocabulary's probabilities of a label's tokens in turn."""
    totals = []
    (stem,) = base.encode([prompt])
    for tokens in base.label_tokens:
        logits = base.model(input_ids=torch.tensor([[*stem, *tokens]], device=base.device)).logits[0]
        told = torch.log_softmax(logits.double(), dim=-1)
        totals.append(sum(told[len(stem) - 1 + place, token] for place, token in enumerate(tokens)))
    return float(totals[1] - totals[0])


def logits_of(scores):
    """Four layers that have learnt nothing are sure of one label: their probabilities are all but equal."""
    return np.log(scores.p_signal) - np.log1p(-scores.p_signal)


def test_the_score_of_split_labels_is_their_whole_log_likelihood(split_base) -> None:
    scores = score_attached(split_base, PROMPTS, CONFIG.max_tokens, batch_size=5)
    with torch.inference_mode():
        expected = [by_hand(split_base, prompt) for prompt in PROMPTS]
    assert logits_of(scores) == pytest.approx(expected, abs=1e-3)
    assert np.ptp(expected) > 0.5
    alone = score_attached(split_base, PROMPTS, CONFIG.max_tokens, batch_size=1)
    assert logits_of(alone) == pytest.approx(logits_of(scores), abs=1e-3)
    assert alone.answers.tolist() == scores.answers.tolist()


def test_for_single_tokens_the_log_likelihood_says_what_the_two_rows_say(exact) -> None:
    reset_adapter(attach_lora(exact, CONFIG), 3)
    exact.peft.eval()
    with torch.inference_mode():
        padded = pad_right(exact.encode(PROMPTS), exact)
        rows, ends = label_scores(exact, *padded)
        long, long_ends, _ = _read_split_labels(exact, *padded, None)
    torch.testing.assert_close(long[:, 1] - long[:, 0], rows[:, 1] - rows[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(long_ends, ends, rtol=0, atol=1e-4)


def test_split_labels_are_learned(split_base, tmp_path) -> None:
    random = np.random.default_rng(2)
    bits = random.integers(0, 2, 64)
    questions = [f"{random.integers(7, 10) if bit else random.integers(0, 3)}:" for bit in bits]
    records = []
    state = train_segment(
        split_base,
        prompts=questions,
        labels=bits,
        config=CONFIG,
        checkpoint=None,
        until_step=8,
        on_step=lambda record: records.append(record) or True,
    )
    write_checkpoint(tmp_path / "8", state, config_hash="c")
    scores = score_prompts(
        split_base, checkpoint=tmp_path / "8", config=CONFIG, prompts=["0:", "1:", "8:", "9:"], batch_size=4
    )
    assert records[-1].loss < 0.5 * records[0].loss
    assert (scores.p_signal > 0.5).tolist() == [False, False, True, True]
