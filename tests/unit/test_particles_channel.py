"""Constituents as vectors in the language model: they stand where they should, are learnt through, and come back."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.particles_channel import CHANNELS, Events, Learner, _on_device
from lhcq.model.loss import label_logits, row_losses
from lhcq.prompts.particles import Constituents
from lhcq.workspace import Workspace

PROMPTS = ["12 3:", "400 51 7:", "1:"]
MOST = 2
PLACES = 1 + 2 * MOST


@pytest.fixture(scope="module")
def learner(few_layers: Path) -> Any:
    from lhcq.model.base import load_base

    torch.set_num_threads(1)
    return Learner(load_base(few_layers), CHANNELS["channel"].config, 5)


@pytest.fixture
def events(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> Events:
    from benchmarks import particles_channel
    from benchmarks.particles_data import Subset

    random = np.random.default_rng(1)
    values = np.abs(random.normal(0, 0.2, (len(PROMPTS), 2, MOST, 3)))
    known = Subset(np.arange(3), np.array([0, 1, 0]), random.normal(size=(3, 5)), Constituents(values))
    monkeypatch.setattr(particles_channel, "read_events", lambda _root, _subset: known)
    one = dataclasses.replace(CHANNELS["channel"], most=MOST)
    return _on_device(Workspace(Path()), learner, one, {"train": PROMPTS})["train"]


def test_vectors_stand_before_the_last_token_of_a_prompt(learner: Learner, events: Events) -> None:
    base = learner.base
    for row, prompt in enumerate(PROMPTS):
        *front, end = base.encode([prompt])[0]
        assert learner.place not in (*front, end, base.pad_id, *base.label_ids)
        ids = events.token_ids[row, : events.last[row] + 1].tolist()
        assert ids == [*front, *[learner.place] * PLACES, end]


def test_logits_are_those_of_embeddings_with_the_vectors_between(learner: Learner, events: Events) -> None:
    base = learner.base
    base.peft.eval()
    learner.adapter.refresh()
    rows = torch.arange(len(PROMPTS), device=base.device)
    with torch.no_grad():
        said = learner.logits(events, rows, turned=False)
        vectors = learner.channel(*events.tensors.take(rows))
        for row, prompt in enumerate(PROMPTS):
            ids = torch.tensor(base.encode([prompt]), device=base.device)
            words = base.model.get_input_embeddings()(ids)
            between = vectors[row][None].to(words.dtype)
            embedded = torch.cat([words[:, :-1], between, words[:, -1:]], dim=1)
            hidden = base.backbone(inputs_embeds=embedded, use_cache=False).last_hidden_state
            assert torch.allclose(label_logits(base, hidden[:, -1]), said[row], atol=1e-3)


def test_the_channel_and_lora_learn_and_go_back_to_a_copy(learner: Learner, events: Events) -> None:
    base = learner.base
    rows = torch.arange(len(PROMPTS), device=base.device)
    base.peft.train()
    learner.adapter.flat.grad.zero_()
    learner.adapter.refresh()
    loss = row_losses(
        learner.logits(events, rows, turned=False), torch.tensor([0, 1, 0]).to(base.device)
    ).sum()
    loss.backward()
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in learner.own)
    assert learner.adapter.flat.grad.abs().sum() > 0
    kept = learner.weights()
    with torch.no_grad():
        for one in (learner.adapter.flat, *learner.own):
            one.add_(1.0)
    assert not torch.equal(learner.weights()["adapter"], kept["adapter"])
    learner.load(kept)
    assert all(torch.equal(one, kept[name]) for name, one in learner.weights().items())


def test_each_constituent_has_a_vector_of_its_own(learner: Learner, events: Events) -> None:
    particles, features = events.tensors.take(torch.arange(1, device=learner.base.device))
    changed = particles.clone()
    changed[0, 1, 0, 0] += 0.1
    with torch.no_grad():
        before, after = (learner.channel(some, features)[0] for some in (particles, changed))
    differs = (before != after).any(dim=-1)
    assert differs.nonzero().flatten().tolist() == [1 + MOST]
