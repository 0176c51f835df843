"""How an optimizer step is cut into passes: nothing lost, like lengths together, the result the same."""

import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lhcq.config import TrainConfig
from lhcq.model import passes
from lhcq.model.adapter import attach_lora, load_adapter, reset_adapter
from lhcq.model.checkpoint import recorded_rows, write_checkpoint
from lhcq.model.loop import train_segment
from lhcq.model.passes import PassSize, choose_pass, cut_step, run_pass, set_checkpointing
from lhcq.model.score import score_attached

CONFIG = TrainConfig(learning_rate=1e-3, dropout=0.0, rank=4)
PROMPTS = ["357 120 447 53 10:", "1:", "88 99 7:", "2048 3 5 7 11 13:", "0 0:", "417 5 60 42:", "12 3:", "9:"]
LABELS = [0, 1, 1, 0, 0, 1, 0, 0]
WEIGHTS = [(4 / 5, 4 / 3)[label] / len(LABELS) for label in LABELS]


class Cpu:
    """As much of a base as cutting asks for."""

    device = torch.device("cpu")
    pad_id = 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(1, 50))
def test_every_prompt_is_in_one_pass_with_its_own_label_and_share(lengths, rows):
    token_ids = [[row + 1] * length for row, length in enumerate(lengths)]
    labels = [row % 2 for row in range(len(lengths))]
    batches = cut_step(token_ids, labels, [float(row) for row in range(len(lengths))], base=Cpu, rows=rows)
    seen = []
    for batch in batches:
        assert len(batch.last) <= rows
        for ids, last, label, weight in zip(
            batch.token_ids.tolist(),
            batch.last.tolist(),
            batch.labels.tolist(),
            batch.weights.tolist(),
            strict=True,
        ):
            row = int(weight)
            seen.append(row)
            assert ids[: last + 1] == token_ids[row]
            assert label == row % 2
    assert sorted(seen) == list(range(len(lengths)))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(1, 50))
def test_passes_are_sorted_by_length_and_alike_in_size(lengths, rows):
    batches = cut_step(
        [[1] * n for n in lengths], [0] * len(lengths), [1.0] * len(lengths), base=Cpu, rows=rows
    )
    ends = [end for batch in batches for end in batch.last.tolist()]
    sizes = [len(batch.last) for batch in batches]
    assert ends == sorted(ends)
    assert len(batches) == -(-len(lengths) // rows)
    assert all(batch.token_ids.shape[1] == int(batch.last.max()) + 1 for batch in batches)
    assert max(sizes) == -(-len(lengths) // len(batches))


def gradient(base, rows, *, prompts=PROMPTS, labels=LABELS, weights=WEIGHTS, checkpointing=False):
    """Loss and gradient of one step over `prompts`, `rows` at a time."""
    base.adapter.flat.grad.zero_()
    size = PassSize(rows=rows, checkpointing=checkpointing)
    losses = [
        run_pass(base, b, size) for b in cut_step(base.encode(prompts), labels, weights, base=base, rows=rows)
    ]
    return float(sum(losses)[0]), base.adapter.flat.grad.clone()


def adapted(base):
    """The base with an adapter in which nothing is zero."""
    reset_adapter(attach_lora(base, CONFIG), 1)
    noise = torch.randn(base.adapter.flat.shape, generator=torch.Generator().manual_seed(1))
    base.adapter.flat.data += 0.01 * noise.to(base.device)
    base.adapter.refresh()
    base.peft.train()
    return base


@pytest.fixture
def ready(exact):
    """The base in float32 with such an adapter."""
    return adapted(exact)


def train(base, config, until, checkpoint=None):
    """The state of a training on the prompts, from a checkpoint or the start."""
    return train_segment(
        base,
        prompts=PROMPTS,
        labels=np.array(LABELS),
        config=config,
        checkpoint=checkpoint,
        until_step=until,
        on_step=lambda record: True,
    )


def weights(state):
    return state.current_adapter().flat.detach().clone()


def close(one, other):
    return float(torch.linalg.vector_norm(one - other)) < 1e-4 * float(torch.linalg.vector_norm(other))


@given(
    room=st.integers(60, 5000),
    fixed=st.integers(10, 50),
    unpacked=st.integers(0, 40),
    slope=st.integers(1, 30),
    window=st.integers(1, 200),
)
def test_as_many_prompts_are_taken_as_leave_what_the_allocator_needs(room, fixed, unpacked, slope, window):
    """The peak of few prompts is where weights are unpacked, of many it is elsewhere: it does not rise evenly."""

    def peak(base, rows, trial):
        found = fixed + max(unpacked + rows, slope * rows)
        return found if found <= room else None

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(passes, "_peak", peak)
        rows = passes._largest(None, None, window=window, room=room)
    assert rows <= window
    if rows == 0:
        assert peak(None, 1, None) is None
    elif rows > 1:
        assert peak(None, rows, None) <= passes._ACCEPTED * room


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CPU computes in float32")
def test_a_gpus_gradient_is_as_near_to_float32s_as_transformers_in_the_same_type(ready, base, monkeypatch):
    """What bfloat16's rounding makes of a gradient is the model's business, and the same for two ways that round as
    often: of two such errors none is twice the other."""
    _, precise = gradient(ready, 8)
    ours = gradient(adapted(base), 8)[1]
    base.adapter.graphs.clear()
    monkeypatch.setattr(base.adapter, "decoder", None)
    theirs = gradient(base, 8)[1]
    base.adapter.graphs.clear()
    apart = [float(torch.linalg.vector_norm(one - precise)) for one in (ours, theirs)]
    assert 0 < apart[0] < 2 * apart[1]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_step_gives_the_same_weighted_gradient_however_it_is_cut(ready, rows):
    loss, whole = gradient(ready, 8)
    cut_loss, cut = gradient(ready, rows)
    assert cut_loss == pytest.approx(loss, rel=1e-5)
    assert close(cut, whole)


def test_padding_changes_no_gradient(ready):
    short = {"prompts": PROMPTS[1:3], "labels": LABELS[1:3], "weights": WEIGHTS[1:3]}
    _, alone = gradient(ready, 1, **short)
    _, padded = gradient(ready, 3, prompts=PROMPTS[1:4], labels=LABELS[1:4], weights=[*WEIGHTS[1:3], 0.0])
    assert close(padded, alone)


def checkpointed(model):
    """Whether every layer computes its activations again, whatever transformers calls that."""
    return all(layer.gradient_checkpointing for layer in model.model.layers)


def test_checkpointed_activations_give_the_same_gradient(ready):
    _, kept = gradient(ready, 8)
    set_checkpointing(ready, on=True)
    try:
        assert checkpointed(ready.model)
        _, again = gradient(ready, 8, checkpointing=True)
    finally:
        set_checkpointing(ready, on=False)
    assert close(again, kept)
    assert not checkpointed(ready.model)
    assert not ready.model.get_input_embeddings()._forward_hooks  # nothing of it is left


def test_the_gradient_is_that_of_the_whole_vocabulary_restricted_to_the_labels(ready):
    loss, two_rows = gradient(ready, 8)
    ready.adapter.flat.grad.zero_()
    expected = 0.0
    for ids, label, weight in zip(ready.encode(PROMPTS), LABELS, WEIGHTS, strict=True):
        logits = ready.model(input_ids=torch.tensor([ids], device=ready.device)).logits[0, -1].float()
        restricted = torch.full_like(logits, -torch.inf)
        answers = list(ready.label_ids)
        restricted[answers] = logits[answers]
        one = -weight * torch.log_softmax(restricted, dim=0)[answers[label]]
        one.backward()
        expected += float(one.detach())
    assert loss == pytest.approx(expected, rel=1e-4)
    assert close(two_rows, ready.adapter.flat.grad)


def test_a_pass_that_fails_lets_go_of_what_it_had(ready, monkeypatch):
    seen = []

    def fail(x):
        seen.append(weakref.ref(x))
        raise torch.OutOfMemoryError("no more")

    # The third layer's keys: its queries are computed, and with them what the values wait for.
    monkeypatch.setattr(ready.model.model.layers[2].self_attn.k_proj, "forward", fail)
    ready.adapter.graphs.clear()  # a recorded pass would not come there, nor does lhcq's own
    monkeypatch.setattr(ready.adapter, "decoder", None)
    with pytest.raises(torch.OutOfMemoryError):
        gradient(ready, 8)
    assert [reference() for reference in seen] == [None]


def test_a_validation_may_be_the_first_thing_that_a_base_does(ready):
    vars(ready).pop("label_rows", None)  # as in a process that has just loaded it
    ready.adapter.graphs.clear()  # they read where it was
    score_attached(ready, PROMPTS, 64, batch_size=4)
    ready.peft.train()
    loss, flat = gradient(ready, 4)
    assert np.isfinite(loss)
    assert bool(flat.any())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU finds out how many prompts fit")
def test_a_cpu_takes_the_batches_that_it_is_told(ready):
    config = CONFIG.model_copy(update={"batch_size": 3, "accumulation": 5})
    assert choose_pass(ready, config, longest=20) == PassSize(rows=3)


def test_a_run_cut_between_accumulated_steps_goes_on_exactly_and_records_its_passes(base, tmp_path):
    config = CONFIG.model_copy(update={"batch_size": 2, "accumulation": 2, "dropout": 0.1, "epochs": 2.0})
    uncut = weights(train(base, config, 3))
    write_checkpoint(tmp_path / "00000002", train(base, config, 2), config_hash="c")
    checkpoint = tmp_path / "00000002"
    assert recorded_rows(checkpoint) == (4 if base.device.type == "cuda" else 2)  # a GPU takes the whole step
    assert torch.equal(weights(train(base, config, 3, checkpoint)), uncut)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_pass_that_cannot_be_recorded_is_computed_all_the_same(base, monkeypatch):
    config = CONFIG.model_copy(update={"dropout": 0.1, "epochs": 3.0})
    monkeypatch.setattr(base, "records", False)
    expected = weights(train(base, config, 3))
    base.records, embedding = True, base.model.get_input_embeddings()
    whole = embedding.forward
    monkeypatch.setattr(
        embedding, "forward", lambda ids: whole(ids) if int(ids.sum()) >= 0 else ids
    )  # waits for the GPU
    base.adapter.graphs.clear()
    assert torch.equal(weights(train(base, config, 3)), expected)
    assert not base.records
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.equal(weights(train(base, config, 3)), expected)


def test_a_swapped_adapter_equals_a_fresh_load(ready, tmp_path):
    write_checkpoint(tmp_path / "00000001", train(ready, CONFIG, 1), config_hash="c")
    ready.adapter.refresh()
    _, first = gradient(ready, 8)
    other = CONFIG.model_copy(update={"rank": 2})
    reset_adapter(attach_lora(ready, other), 9)
    load_adapter(attach_lora(ready, CONFIG), tmp_path / "00000001")
    ready.adapter.refresh()
    ready.peft.train()
    assert torch.equal(gradient(ready, 8)[1], first)
