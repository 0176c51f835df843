"""A small network made for constituents, as an opponent: a particle transformer of about a million weights.

After Qu, Li and Qian, arXiv:2202.03772: attention over constituents, biased by four quantities of each pair of one
jet, pre-normed blocks, and a class token. The class token begins as the event's 34 features where the network has
them. The epoch is chosen on the validation subset.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, scaled_dot_product_attention

from benchmarks.particles_data import Subset, keep, read_events, row_path, scored_subsets
from benchmarks.rows import say
from lhcq.config import Frame
from lhcq.prompts.particles import DISTANCES, SHARES, Constituents
from lhcq.workspace import Workspace

HEADS, WIDTH, LAYERS, PAIR_WIDTH = 8, 128, 4, 32
DROPOUT, RATE, DECAY, WARM_UP = 0.1, 1e-3, 0.01, 0.05
KIND = "network of constituents"
QUANTITIES = 6
"""Of a constituent, as a network reads it (`inputs_of`)."""
_TINY = 1e-8


@dataclasses.dataclass(frozen=True)
class Network:
    """What a network sees, and for how long it learns."""

    what: str
    most: int = 40
    """Constituents of either jet."""
    features: bool = True
    frame: Frame = "detector"
    """In the detector's, each jet is turned and mirrored by chance at each step."""
    letters: bool = False
    """As a prompt has them: the middle of their bins."""
    epochs: int = 15
    batch_size: int = 512
    """At most; of few events a step takes one in 64."""


NETWORKS: dict[str, Network] = {
    "network": Network("40 constituents of either jet and 34 features"),
    "network-constituents": Network("40 constituents of either jet alone", features=False),
    "network-10": Network("10 constituents and 34 features", most=10),
    "network-10-turned": Network(
        "10 constituents on their principal axis and 34 features", 10, frame="principal-axis"
    ),
    "network-10-letters": Network("the same by their letters", 10, frame="principal-axis", letters=True),
    "network-20-turned": Network(
        "20 constituents on their principal axis and 34 features", 20, frame="principal-axis"
    ),
}


class Tensors:
    """Events as a network reads them, on its device."""

    def __init__(
        self, events: Subset, one: Network, centre: NDArray[np.float64], device: torch.device
    ) -> None:
        constituents = Constituents(events.constituents.values[:, :, : one.most]).turned(one.frame)
        values = _middles(constituents) if one.letters else constituents.values
        self.particles = torch.from_numpy(values.astype(np.float32)).to(device)
        features = np.nan_to_num((events.features - centre[0]) / centre[1]).clip(-10, 10)
        self.features = torch.from_numpy(features.astype(np.float32)).to(device) if one.features else None
        self.labels = torch.from_numpy(events.labels.astype(np.float32)).to(device)

    def take(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Constituents (n, 2, K, 3) and features (n, 34) of these events."""
        return self.particles[rows], None if self.features is None else self.features[rows]


class Block(nn.Module):
    """Attention with a bias for each pair, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.joint, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.wide = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(n, n_tokens, WIDTH), with a bias (n, HEADS, n_tokens, n_tokens)."""
        n, length, _ = tokens.shape
        parts = self.joint(self.before(tokens)).view(n, length, 3, HEADS, WIDTH // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        tokens = tokens + self.drop(self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH)))
        return tokens + self.drop(self.wide(self.after(tokens)))


def inputs_of(particles: torch.Tensor) -> torch.Tensor:
    """What a network is told of each constituent, (n, 2, K, QUANTITIES) of (n, 2, K, 3); 0 where there is none."""
    share, eta, phi = particles.unbind(-1)
    jet = torch.tensor([-1.0, 1.0], device=share.device)[None, :, None].expand_as(share)
    logs = torch.log(share.clamp(min=_TINY)) / 3 + 1
    distance = torch.log(torch.hypot(eta, phi) + 1e-3) / 2 + 1
    return torch.stack([logs, share, 3 * eta, 3 * phi, distance, jet], dim=-1) * (share > 0)[..., None]


class ParticleTransformer(nn.Module):
    """The logit of signal."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(QUANTITIES, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.pairs = nn.Sequential(
            nn.Linear(4, PAIR_WIDTH),
            nn.GELU(),
            nn.Linear(PAIR_WIDTH, PAIR_WIDTH),
            nn.GELU(),
            nn.Linear(PAIR_WIDTH, HEADS),
        )
        self.event = (
            nn.Sequential(nn.Linear(n_features, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
            if n_features
            else None
        )
        self.front = nn.Parameter(torch.randn(WIDTH) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.head = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1)
        )

    def forward(self, particles: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        """(n,) of constituents (n, 2, K, 3) and features (n, n_features)."""
        n, (share, eta, phi) = len(particles), particles.unbind(-1)
        there = share > 0
        tokens = self.embed(inputs_of(particles)).flatten(1, 2)
        front = self.front.expand(n, WIDTH)
        if self.event is not None:
            front = front + self.event(features)
        tokens = torch.cat([front[:, None], tokens.to(front.dtype)], dim=1)
        bias = self._bias(share, eta, phi, there)
        for block in self.blocks:
            tokens = block(tokens, bias)
        return self.head(tokens[:, 0]).squeeze(-1).float()

    def _bias(
        self, share: torch.Tensor, eta: torch.Tensor, phi: torch.Tensor, there: torch.Tensor
    ) -> torch.Tensor:
        n, _, most = share.shape
        apart = torch.hypot(eta[..., :, None] - eta[..., None, :], phi[..., :, None] - phi[..., None, :])
        softer = torch.minimum(share[..., :, None], share[..., None, :])
        both = share[..., :, None] + share[..., None, :]
        product = share[..., :, None] * share[..., None, :]
        logs = [
            torch.log(one.clamp(min=_TINY)) / 5
            for one in (apart, softer * apart, softer / both.clamp(min=_TINY), product * apart**2)
        ]
        within = self.pairs(torch.stack(logs, dim=-1))
        length = 1 + 2 * most
        bias = within.new_zeros(n, HEADS, length, length)
        for at in range(2):
            place = slice(1 + at * most, 1 + (at + 1) * most)
            bias[:, :, place, place] = within[:, at].permute(0, 3, 1, 2)
        hidden = torch.cat([there.new_zeros(n, 1), ~there.flatten(1)], dim=1)
        return bias.masked_fill(hidden[:, None, None, :], -torch.inf)


def train_networks(
    place: Workspace, names: list[str], sizes: list[int] | None, seeds: int, epochs: int | None
) -> None:
    """Train and score what has no row yet."""
    n_events = len(read_events(place.root, "train").rows)
    for n in sizes or [n_events]:
        for seed in range(1, seeds + 1):
            for name in names:
                if not row_path(place, name, min(n, n_events), seed).exists():
                    one = NETWORKS[name]
                    _train_one(place, name, dataclasses.replace(one, epochs=epochs or one.epochs), n, seed)


def _train_one(place: Workspace, name: str, one: Network, n: int, seed: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    events = read_events(place.root, "train").first(n)
    one = dataclasses.replace(one, batch_size=min(one.batch_size, max(len(events.rows) // 64, 1)))
    centre = np.stack([np.nanmean(events.features, 0), np.nanstd(events.features, 0) + _TINY])
    train = Tensors(events, one, centre, device)
    scored = {
        subset: Tensors(read_events(place.root, subset), one, centre, device)
        for subset in scored_subsets(place)
    }
    torch.manual_seed(seed)
    network: Any = ParticleTransformer(events.features.shape[1] if one.features else 0).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    state = Resumed(place.root / "networks" / f"{name}-{len(events.rows)}-{seed}.pt", network, optimizer)
    steps = math.ceil(len(events.rows) / one.batch_size)
    while state.epoch < one.epochs:
        began = time.perf_counter()
        loss = _epoch(network, optimizer, train, one, seed, state.epoch, steps, device)
        p_signal = _score(network, scored["validation"], device)
        state.end_epoch(p_signal, read_events(place.root, "validation").labels, time.perf_counter() - began)
        say(
            f"network: {name}, {len(events.rows):,} events, seed {seed}, epoch {state.epoch}: loss {loss:.4f}, "
            f"validation AUC {state.aucs[-1]:.5f}, {state.seconds[-1]:.0f} s"
        )
    network.load_state_dict(state.best)
    said = {subset: (_score(network, tensors, device), None) for subset, tensors in scored.items()}
    keep(
        place, name, seed, len(events.rows), said,
        what=one.what, kind=KIND, weights=sum(one.numel() for one in network.parameters()),
        validation_aucs=state.aucs, seconds=sum(state.seconds), settings=dataclasses.asdict(one), device=str(device),
    )  # fmt: skip


class Resumed:
    """A training after an epoch: kept in a file, and gone on with where that is there."""

    def __init__(self, path: Path, network: Any, optimizer: Any) -> None:
        self._path, self._network, self._optimizer = path, network, optimizer
        self.epoch, self.aucs, self.seconds = 0, [], []
        self.best: dict[str, torch.Tensor] = {}
        if path.exists():
            kept = torch.load(path, map_location="cpu", weights_only=True)  # it may have been another device
            network.load_state_dict(kept["network"])
            optimizer.load_state_dict(kept["optimizer"])
            self.aucs, self.seconds, self.best = kept["aucs"], kept["seconds"], kept["best"]
            self.epoch = len(self.aucs)

    def end_epoch(self, p_signal: NDArray[np.float64], labels: NDArray[np.int64], seconds: float) -> None:
        from sklearn.metrics import roc_auc_score

        auc = float(roc_auc_score(labels, p_signal))
        if not self.aucs or auc > max(self.aucs):
            self.best = {name: one.detach().cpu().clone() for name, one in self._network.state_dict().items()}
        self.aucs.append(auc)
        self.seconds.append(seconds)
        self.epoch += 1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        torch.save(
            {
                "network": self._network.state_dict(), "optimizer": self._optimizer.state_dict(),
                "best": self.best, "aucs": self.aucs, "seconds": self.seconds,
            },
            new,
        )  # fmt: skip
        new.rename(self._path)


def _epoch(
    network: Any,
    optimizer: Any,
    train: Tensors,
    one: Network,
    seed: int,
    epoch: int,
    steps: int,
    device: torch.device,
) -> float:
    # All of an epoch follows from its number, so that one that was cut is done again alike.
    random = torch.Generator().manual_seed(1000 * seed + epoch)
    torch.manual_seed(1000 * seed + epoch)
    order = torch.randperm(len(train.labels), generator=random).to(device)
    network.train()
    total = torch.zeros((), device=device)
    for step in range(steps):
        rows = order[step * one.batch_size : (step + 1) * one.batch_size]
        particles, features = train.take(rows)
        if one.frame == "detector":
            particles = turn_at_random(particles)
        optimizer.param_groups[0]["lr"] = _rate(epoch * steps + step, one.epochs * steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = network(particles, features)
        loss = binary_cross_entropy_with_logits(logits, train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        total += loss.detach()
    return float(total) / steps


def turn_at_random(particles: torch.Tensor) -> torch.Tensor:
    angle = 2 * math.pi * torch.rand(particles.shape[:2], device=particles.device)[..., None]
    mirror = 1 - 2 * torch.randint(0, 2, particles.shape[:2], device=particles.device)[..., None]
    share, eta, phi = particles.unbind(-1)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return torch.stack([share, eta * cosine + phi * sine, mirror * (phi * cosine - eta * sine)], dim=-1)


def _rate(step: int, steps: int) -> float:
    rising = WARM_UP * steps
    return RATE * min((step + 1) / max(rising, 1), (1 + math.cos(math.pi * step / steps)) / 2)


@torch.no_grad()
def _score(network: Any, events: Tensors, device: torch.device) -> NDArray[np.float64]:
    network.eval()
    found = []
    for rows in torch.arange(len(events.labels), device=device).split(1024):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found.append(torch.sigmoid(network(*events.take(rows)).double()).cpu())
    return torch.cat(found).numpy()


def _middles(constituents: Constituents) -> NDArray[np.float64]:
    """What the letters of constituents say of them; 0 where there is none."""
    there = constituents.values[..., :1] > 0
    middles = []
    for edges in (SHARES, DISTANCES, DISTANCES):
        inner = (np.array(edges[1:]) + edges[:-1]) / 2
        below = edges[0] - (edges[1] - edges[0]) / 2
        middles.append(np.concatenate([[below], inner, [edges[-1]]]))
    bins = constituents.bins()
    return np.stack([middles[at][bins[..., at]] for at in range(3)], axis=-1) * there
