"""The language model with constituents as vectors in place of words: what a coding costs, and what pretraining gives.

Behind the numbers of `wide` stand one token of the event's features and one of each constituent. What the layers see
of them is made by a small network of its own, trained beside LoRA, of the very quantities that the particle
transformer sees. A prompt is no text any more then, so lhcq has nothing of the kind: this is for the table alone. The
epoch is chosen on the validation subset.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import nn

from benchmarks.particles_data import keep, read_events, read_prompts, row_path, scored_subsets
from benchmarks.particles_model import Pace, random_model
from benchmarks.particles_network import QUANTITIES, Network, Tensors, inputs_of, turn_at_random
from benchmarks.quality_variants import RECIPE_CONFIG
from benchmarks.rows import say
from lhcq.config import TrainConfig
from lhcq.model.adapter import attach_lora, reset_adapter
from lhcq.model.base import Base, load_base
from lhcq.model.loss import label_logits, pad_right, read_at, row_losses
from lhcq.model.optimizer import make_optimizer
from lhcq.model.plan import learning_rate_at, plan_run, step_rows
from lhcq.workspace import Workspace

WIDTH = 256
DECAY = 0.01
PASS_ROWS = 512
WATCHED = 20_000
"""Events of the validation subset that are scored after each epoch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Channelled:
    """One training."""

    what: str
    most: int = 40
    """Constituents of either jet."""
    weights: Literal["pretrained", "random"] = "pretrained"
    epochs: int = 5

    @property
    def kind(self) -> str:
        """What is chosen among."""
        weights = "pretrained" if self.weights == "pretrained" else "of random weights"
        return f"language model {weights}, constituents as vectors"

    @property
    def config(self) -> TrainConfig:
        """The recipe of the other prompts; nothing is dropped, since jets are turned by chance at each step."""
        return RECIPE_CONFIG.model_copy(update={"dropout": 0.0, "epochs": float(self.epochs)})


CHANNELS: dict[str, Channelled] = {
    "channel": Channelled(what="14 numbers, 34 features and 40 constituents of either jet"),
    "channel-random": Channelled(what="the same, of random weights", weights="random"),
    "channel-20": Channelled(what="14 numbers, 34 features and 20 constituents of either jet", most=20),
}


class Channel(nn.Module):
    """Vectors of the size of embeddings, of an event's features and of its constituents."""

    def __init__(self, n_features: int, hidden: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.event, self.constituent = (
            nn.Sequential(nn.Linear(n, WIDTH), nn.GELU(), nn.Linear(WIDTH, hidden), nn.LayerNorm(hidden))
            for n in (n_features, QUANTITIES)
        )

    def forward(self, particles: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(n, 1 + 2 K, hidden) of constituents (n, 2, K, 3) and features (n, n_features)."""
        constituents = self.constituent(inputs_of(particles)).flatten(1, 2)
        return self.scale * torch.cat([self.event(features)[:, None], constituents], dim=1)


class Learner:
    """The model with LoRA and the channel, whose vectors take the places of one token that no prompt has."""

    def __init__(self, base: Base, config: TrainConfig, n_features: int) -> None:
        self.base = base
        self.adapter = attach_lora(base, config)
        reset_adapter(self.adapter, config.seed)
        embedding = base.model.get_input_embeddings()
        torch.manual_seed(config.seed)
        self.channel = Channel(n_features, embedding.weight.shape[1], float(embedding.weight.float().std()))
        self.channel.to(base.device)
        self.place = -1
        self._vectors: torch.Tensor | None = None
        self._hook = embedding.register_forward_hook(self._put)
        self.own = list(self.channel.parameters())
        self.optimizers = [
            make_optimizer(self.adapter, config),
            torch.optim.AdamW(self.own, weight_decay=DECAY),
        ]

    def close(self) -> None:
        """Leave the model as it was."""
        self._hook.remove()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of what is trained."""
        kept = {"adapter": self.adapter.flat, **self.channel.state_dict()}
        return {name: one.detach().clone() for name, one in kept.items()}

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Go back to such a copy."""
        self.adapter.flat.data.copy_(weights["adapter"])
        self.channel.load_state_dict({name: one for name, one in weights.items() if name != "adapter"})

    def _put(self, _module: Any, given: tuple[torch.Tensor, ...], embedded: torch.Tensor) -> torch.Tensor:
        if self._vectors is None:
            return embedded
        places = (given[0] == self.place)[..., None].expand_as(embedded)
        return embedded.masked_scatter(places, self._vectors.to(embedded.dtype))

    def logits(self, events: "Events", rows: torch.Tensor, *, turned: bool) -> torch.Tensor:
        """Logits of background and signal, (n, 2)."""
        particles, features = events.tensors.take(rows)
        assert features is not None
        self._vectors = self.channel(turn_at_random(particles) if turned else particles, features)
        try:
            ends = read_at(self.base, events.token_ids[rows], events.last[rows, None])[:, 0]
        finally:
            self._vectors = None
        return label_logits(self.base, ends)


@dataclasses.dataclass
class Events:
    """A subset on the device."""

    token_ids: torch.Tensor
    """(n, longest), padded to the right."""
    last: torch.Tensor
    """(n,)"""
    tensors: Tensors


def train_channels(place: Workspace, model: Path, names: list[str], seeds: int, epochs: int | None) -> None:
    """Train and score what has no row yet."""
    n = len(read_events(place.root, "train").rows)
    for seed in range(1, seeds + 1):
        for name in names:
            if not row_path(place, name, n, seed).exists():
                one = CHANNELS[name]
                directory = model if one.weights == "pretrained" else random_model(place, model)
                one = dataclasses.replace(one, epochs=epochs or one.epochs)
                prompts = {one: read_prompts(place, one) for one in ("train", *scored_subsets(place))}
                train_one(place, load_base(directory), name, one, seed, prompts)


def train_one(
    place: Workspace, base: Base, name: str, one: Channelled, seed: int, prompts: dict[str, list[str]]
) -> None:
    """Train with the `prompts` of `wide` of each subset, score what is scored, and keep both."""
    events = read_events(place.root, "train")
    n = len(events.rows)
    config = one.config.model_copy(
        update={"seed": seed, "batch_size": min(one.config.batch_size, max(n // 64, 1))}
    )
    learner = Learner(base, config, events.features.shape[1])
    subsets = _on_device(place, learner, one, prompts)
    pace, watched, best = _train(
        learner, config, subsets, events.labels, read_events(place.root, "validation").labels
    )
    learner.load(best)
    began = time.perf_counter()
    scored = {subset: some for subset, some in subsets.items() if subset != "train"}
    said = {subset: (_score(learner, some), None) for subset, some in scored.items()}
    tokens = sum(int(some.last.sum()) + len(some.last) for some in scored.values())
    auc = keep(
        place, name, seed, n, said,
        what=f"{one.what}, the best of {one.epochs} epochs", kind=one.kind,
        weights=sum(p.numel() for p in learner.own),
        tokens=float(subsets["train"].last.float().mean()) + 1, constituents=one.most, coding="vectors",
        config=config.model_dump(mode="json"), steps=len(pace.losses), watched_aucs=watched,
        loss_of_last_tenth=float(np.mean(pace.losses[-max(1, len(pace.losses) // 10) :])),
        training_tokens_per_second=pace.tokens_per_second(),
        scoring_tokens_per_second=tokens / (time.perf_counter() - began), device=str(base.device),
    )  # fmt: skip
    learner.close()
    say(
        f"channel: {name}, seed {seed}: validation AUC {auc:.5f}, {pace.tokens_per_second() or 0:,.0f} tokens/s"
    )


def _on_device(
    place: Workspace, learner: Learner, one: Channelled, prompts: dict[str, list[str]]
) -> dict[str, Events]:
    base = learner.base
    encoded = {subset: base.encode(some) for subset, some in prompts.items()}
    used = {token for some in encoded.values() for ids in some for token in ids}
    used |= {base.pad_id, *base.label_ids, *base.end_ids}
    learner.place = next(token for token in range(len(used) + 1) if token not in used)
    inner = [learner.place] * (1 + 2 * one.most)
    train = read_events(place.root, "train").features
    centre = np.stack([np.nanmean(train, 0), np.nanstd(train, 0) + 1e-8])
    network = Network(one.what, most=one.most)
    found = {}
    for subset, some in encoded.items():
        token_ids, last = pad_right([[*ids[:-1], *inner, ids[-1]] for ids in some], base)
        tensors = Tensors(read_events(place.root, subset), network, centre, base.device)
        found[subset] = Events(token_ids, last, tensors)
    return found


def _train(
    learner: Learner,
    config: TrainConfig,
    subsets: dict[str, Events],
    labels: NDArray[np.int64],
    validation: NDArray[np.int64],
) -> tuple[Pace, list[float], dict[str, torch.Tensor]]:
    base, train = learner.base, subsets["train"]
    plan, pace = plan_run(len(labels), config), Pace()
    watched: list[float] = []
    best: dict[str, torch.Tensor] = {}
    each = -(-plan.total_steps // round(config.epochs))
    bits = torch.from_numpy(labels).to(base.device)
    base.peft.train()
    for step in range(1, plan.total_steps + 1):
        rows = torch.from_numpy(step_rows(step, len(labels), config)).to(base.device)
        learner.adapter.flat.grad.zero_()
        learner.adapter.refresh()
        learner.optimizers[1].zero_grad()
        total = torch.zeros((), device=base.device)
        for some in rows.split(PASS_ROWS):
            loss = row_losses(learner.logits(train, some, turned=True), bits[some]).sum() / len(rows)
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_([learner.adapter.flat, *learner.own], config.max_grad_norm)
        for optimizer in learner.optimizers:
            assert config.learning_rate is not None
            optimizer.param_groups[0]["lr"] = learning_rate_at(step, plan, config, config.learning_rate)
            optimizer.step()
        pace.note(float(total), int(train.last[rows].sum()) + len(rows))
        if step % each == 0 or step == plan.total_steps:
            scores = _score(learner, subsets["validation"], WATCHED)
            watched.append(float(roc_auc_score(validation[: len(scores)], scores)))
            say(f"channel: step {step} of {plan.total_steps}, loss {np.mean(pace.losses[-50:]):.4f}, "
                f"AUC {watched[-1]:.5f}, {pace.tokens_per_second() or 0:,.0f} tokens/s")  # fmt: skip
            if watched[-1] == max(watched):
                best = learner.weights()
            base.peft.train()
            pace.pause()
    return pace, watched, best


@torch.no_grad()
def _score(learner: Learner, events: Events, most: int | None = None) -> NDArray[np.float64]:
    learner.base.peft.eval()
    learner.adapter.refresh()
    found = []
    for rows in torch.arange(len(events.last), device=events.last.device)[:most].split(2 * PASS_ROWS):
        found.append(torch.softmax(learner.logits(events, rows, turned=False).double(), dim=1)[:, 1].cpu())
    return torch.cat(found).numpy()
