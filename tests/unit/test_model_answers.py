"""Answers in words: what is learnt of them, and what is generated, against transformers itself."""

import numpy as np
import pytest
import torch

from lhcq.config import TRAIN_PRESETS, TrainConfig
from lhcq.model import answers as answers_module
from lhcq.model.adapter import attach_lora, reset_adapter
from lhcq.model.answers import remembers, say_answers
from lhcq.model.base import load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.loop import train_segment
from lhcq.model.passes import PassSize, answers_in, cut_step, run_pass
from lhcq.model.plan import recommended_answer_weight
from lhcq.model.score import score_attached
from lhcq.model.steps import learns_end
from lhcq.records.labels import LABELS
from tests.peft_alone import load_by_peft
from tests.tiny_models import write_model

PROMPTS = ["357 120 447 53 10:", "1:", "88 99 7:", "2048 3 5 7 11 13:", "0 0:", "417 5 60 42:", "12 3:"]
BITS = [0, 1, 1, 0, 0, 1, 0]
CONFIG = TrainConfig(learning_rate=2e-3, batch_size=8, dropout=0.0, rank=8, answer_weight=0.03)
SHARES = [1 / 7] * 7


def losses_of(base, answers, *, rows=7):
    batches = cut_step(base.encode(PROMPTS), BITS, SHARES, base=base, rows=rows, answers=answers)
    base.adapter.flat.grad.zero_()
    base.adapter.refresh()
    losses = sum(run_pass(base, batch, PassSize(rows=rows)) for batch in batches)
    return losses.tolist(), base.adapter.flat.grad.clone()


def by_hand(base, weight, *, ends):
    """The losses, and the adapter's gradient, of the whole vocabulary at each place, a prompt at a time."""
    base.adapter.flat.grad.zero_()
    choice = missing = end = 0.0
    for ids, bit, share in zip(base.encode(PROMPTS), BITS, SHARES, strict=True):
        label = base.label_tokens[bit]
        logits = base.model(input_ids=torch.tensor([[*ids, *label]], device=base.device)).logits[0].float()
        told = torch.log_softmax(logits[len(ids) - 1], -1)[list(base.label_ids)]
        choice = choice - share * torch.log_softmax(told, -1)[bit]
        missing = missing - share * told.logsumexp(-1)
        end = end - share * torch.log_softmax(logits[-1], -1)[base.end_ids[0]]
    (choice + weight * (missing + (end if ends else 0.0))).backward()
    return [choice.item(), missing.item()], base.adapter.flat.grad.clone()


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("rows", [3, 7])
def test_the_losses_are_those_of_the_whole_vocabulary(exact, ends, rows) -> None:
    reset_adapter(attach_lora(exact, CONFIG), 3)
    with torch.no_grad():
        exact.adapter.flat.data += 0.01 * torch.randn_like(exact.adapter.flat.data)
    exact.peft.train()
    found, gradient = losses_of(exact, answers_in(exact, CONFIG, ends=ends), rows=rows)
    expected, by_autograd = by_hand(exact, CONFIG.answer_weight, ends=ends)
    assert found == pytest.approx(expected, abs=1e-4)
    assert expected[1] > 1.0  # it has not learnt to speak
    size = torch.linalg.vector_norm(by_autograd)
    assert torch.linalg.vector_norm(gradient - by_autograd) < 1e-3 * size


def test_without_a_weight_nothing_but_the_choice_is_learnt(exact) -> None:
    reset_adapter(attach_lora(exact, CONFIG), 3)
    exact.peft.train()
    assert answers_in(exact, TrainConfig(), ends=True) is None
    losses, alone = losses_of(exact, None)
    assert losses[1] == 0.0
    again, with_words = losses_of(exact, answers_in(exact, CONFIG, ends=True))
    assert again[0] == pytest.approx(losses[0], abs=1e-5)
    assert not torch.equal(alone, with_words)


def test_runs_of_before_say_nothing_of_a_weight_and_new_ones_do() -> None:
    assert "answer_weight" not in TrainConfig().model_dump()
    assert TrainConfig.checked(**TrainConfig().model_dump()).answer_weight == 0.0
    assert all(preset.answer_weight != 0 for preset in TRAIN_PRESETS.values())


def test_a_long_training_gives_the_words_less_and_a_short_one_what_it_needs() -> None:
    weights = [recommended_answer_weight(steps) for steps in (1, 149, 150, 300, 450, 938, 100_000)]
    assert weights == pytest.approx([0.03, 0.03, 0.03, 0.015, 0.01, 0.01, 0.01])


def test_the_end_is_learnt_at_first_often_and_then_kept() -> None:
    at = [step for step in range(1, 401) if learns_end(step)]
    assert at[:3] == [1, 5, 9]
    assert at[-9:] == [257, 273, 289, 305, 321, 337, 353, 369, 385]
    assert at[-10] == 253


def generated(model, base, token_ids):
    """What transformers generates for one prompt: 1, 0 or -1."""
    ids = torch.tensor([token_ids], device=base.device)
    with torch.inference_mode():
        said = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=16,
            eos_token_id=list(base.end_ids),
            pad_token_id=base.pad_id,
        )[0, len(token_ids) :].tolist()
    ends = [at for at, token in enumerate(said) if token in base.end_ids]
    text = base.decode(said[: ends[0]]).strip() if ends else None
    return LABELS.index(text) if text in LABELS else -1


def chosen(model, base, token_ids):
    """P(signal) after one prompt, of the two labels alone."""
    with torch.inference_mode():
        logits = model(torch.tensor([token_ids], device=base.device)).logits[0, -1].double()
    return torch.softmax(logits[list(base.label_ids)], 0)[1].item()


def test_a_trained_model_answers_in_words_and_stops(in_float32, smollm2, tmp_path) -> None:
    torch.set_num_threads(1)  # as all models here
    base = load_base(smollm2)
    random = np.random.default_rng(2)
    bits = random.integers(0, 2, 160)
    questions = [f"{random.integers(7, 10) if bit else random.integers(0, 3)}:" for bit in bits]
    records = []
    state = train_segment(
        base,
        prompts=questions,
        labels=bits,
        config=CONFIG,
        checkpoint=None,
        until_step=20,
        on_step=lambda record: records.append(record) or True,
    )
    write_checkpoint(tmp_path / "20", state, config_hash="c")
    assert records[0].answer_loss > 5.0
    assert records[-1].answer_loss < 0.1
    prompts = ["0:", "2:", "9:", "7:", "4:", "12 3:"]
    scores = score_attached(base, prompts, 64, batch_size=4)
    assert scores.answers[:4].tolist() == [0, 0, 1, 1]
    alone, asked = load_by_peft(smollm2, tmp_path / "20", base), base.encode(prompts)
    assert scores.answers.tolist() == [generated(alone, base, ids) for ids in asked]
    assert scores.p_signal == pytest.approx([chosen(alone, base, ids) for ids in asked], abs=1e-4)


def test_a_model_that_was_not_taught_answers_neither(exact) -> None:
    reset_adapter(attach_lora(exact, CONFIG), 3)
    scores = score_attached(exact, PROMPTS, 64, batch_size=4)
    assert scores.answers.tolist() == [-1] * 7
    assert scores.p_signal.std() > 1e-3


def say(base, plan, monkeypatch, *, kept):
    """The answers of a model that says what `plan` has for each prompt, token by token."""
    prompts = [[row + 1] for row in range(len(plan))]

    def outputs(rows):
        return torch.nn.functional.one_hot(torch.tensor(rows), 50_000).float()

    def read(_, token_ids):
        return outputs([plan[ids[0] - 1][len(ids) - 1] for ids in token_ids])

    monkeypatch.setattr(answers_module, "_read_ends", read)
    monkeypatch.setattr(answers_module, "vocabulary_logits", lambda _, ends: ends)
    monkeypatch.setattr(
        answers_module,
        "go_on",
        lambda _, kept, last, tokens: outputs([said[1] if len(said) > 1 else 0 for said in plan]),
    )
    last = torch.zeros(len(plan), dtype=torch.int64)
    return say_answers(base, prompts, outputs([said[0] for said in plan]), last, kept).tolist()


@pytest.mark.parametrize("kept", [None, "keys and values"])
def test_an_answer_is_a_label_and_nothing_else_but_white_space(base, monkeypatch, kept) -> None:
    end = base.end_ids[0]

    def tokens(text):
        return base.encode([text])[0]

    (background,), (signal,) = base.label_tokens
    plan = [
        [signal, end],
        [background, end],
        [background, signal, end],
        [signal, *tokens("\n"), end],
        [*tokens("\n"), signal, *tokens("\n"), end],
        [*tokens("sign"), *tokens("al"), end],
        [*tokens("sign"), end],
        [*tokens("signals"), end],
        [end],
        [*tokens("Signal"), end],
        [signal, *tokens(" ") * 40],
    ]
    assert say(base, plan, monkeypatch, kept=kept) == [1, 0, -1, 1, 1, 1, -1, -1, -1, -1, -1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("architecture", "goes_on"),
    [
        ("llama", True),
        ("phi3", True),
        ("gpt2", True),
        ("granite", True),  # which makes its own logits
        ("gemma2", False),  # it keeps a window in some layers
        ("jamba", False),  # it keeps a state, which padding would be in
    ],
)
def test_the_answers_of_all_kinds_of_models_are_what_transformers_generates(
    architecture, goes_on, tmp_path, in_float32
) -> None:
    base = load_base(write_model(tmp_path / "model", architecture))
    attach_lora(base, TrainConfig(learning_rate=1e-2, dropout=0.0, rank=4))
    base.peft.eval()
    with torch.no_grad():  # made to like the labels and the end, so that there is something to go on from
        base.head.weight[[*base.label_ids, *base.end_ids]] *= 4.0
    found = score_attached(base, PROMPTS, 64, batch_size=3).answers.tolist()
    assert remembers(base) == (goes_on and base.device.type == "cpu")
    assert found == [generated(base.model, base, ids) for ids in base.encode(PROMPTS)]
