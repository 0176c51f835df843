"""Two levers that lhcq itself does not have: DoRA, and a numeric channel. A plain loop, on lhcq's plan and passes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lhcq.config import TrainConfig
from lhcq.model.adapter import attach_lora, reset_adapter
from lhcq.model.base import Base
from lhcq.model.loss import label_logits, row_losses
from lhcq.model.optimizer import make_optimizer
from lhcq.model.passes import Batch, cut_step
from lhcq.model.plan import class_weights, learning_rate_at, plan_run, step_rows

SOFT_TOKENS = 4
CHANNEL_WIDTH = 256
SCORE_ROWS = 1024

Hidden = Callable[[torch.Tensor, torch.Tensor, "NDArray[np.int64]"], torch.Tensor]


def train(
    base: Base, way: str, config: TrainConfig, events: dict[str, Any], columns: tuple[str, ...]
) -> tuple[list[float], Any]:
    """The losses of a training, and the scores of each part but `train`."""
    torch.manual_seed(config.seed)
    learner = Dora(base, config) if way == "dora" else Channel(base, config, events, columns)
    losses = _train(base, learner, config, events["train"])
    return losses, {part: _score(base, learner, part, one) for part, one in events.items() if part != "train"}


class Dora:
    """PEFT's DoRA on every linear layer."""

    def __init__(self, base: Base, config: TrainConfig) -> None:
        from peft import LoraConfig, get_peft_model

        self.base = base
        lora = LoraConfig(
            r=config.rank,
            lora_alpha=int(config.alpha),
            lora_dropout=config.dropout,
            target_modules=list(base.linear_names),
            task_type="CAUSAL_LM",
            use_dora=True,
        )
        self.model = get_peft_model(base.model, lora)
        parameters = [one for one in self.model.parameters() if one.requires_grad]
        self.optimizers = [torch.optim.AdamW(parameters, weight_decay=config.weight_decay, fused=True)]
        self.parameters = parameters

    def mode(self, *, training: bool) -> None:
        self.model.train(training)

    def before(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def ends(self, batch: Batch, _part: str, _rows: Any) -> torch.Tensor:
        with torch.autocast(self.base.device.type, torch.bfloat16):
            hidden = self.base.backbone(input_ids=batch.token_ids, use_cache=False).last_hidden_state
        return hidden[torch.arange(len(batch.last), device=hidden.device), batch.last]


class Channel:
    """LoRA as lhcq has it, and a small network from features of the event to soft tokens before the text."""

    def __init__(
        self, base: Base, config: TrainConfig, events: dict[str, Any], columns: tuple[str, ...]
    ) -> None:
        self.base = base
        self.adapter = attach_lora(base, config)
        reset_adapter(self.adapter, config.seed)
        known = events["train"].features
        centre = {name: (np.nanmean(known[name]), np.nanstd(known[name])) for name in columns}
        self.values = {
            part: torch.from_numpy(
                np.column_stack(
                    [
                        np.nan_to_num((one.features[name] - centre[name][0]) / centre[name][1])
                        for name in columns
                    ]
                )
            ).to(base.device, torch.float32)
            for part, one in events.items()
        }
        embedding = base.model.get_input_embeddings()
        hidden = embedding.weight.shape[1]
        self.scale = float(embedding.weight.float().std())
        self.network = torch.nn.Sequential(
            torch.nn.Linear(len(columns), CHANNEL_WIDTH),
            torch.nn.GELU(),
            torch.nn.Linear(CHANNEL_WIDTH, SOFT_TOKENS * hidden),
            torch.nn.Unflatten(1, (SOFT_TOKENS, hidden)),
            torch.nn.LayerNorm(hidden),
        ).to(base.device)
        self.embed = embedding
        own = list(self.network.parameters())
        self.parameters = [self.adapter.flat, *own]
        self.optimizers = [make_optimizer(self.adapter, config), torch.optim.AdamW(own, weight_decay=0.01)]

    def mode(self, *, training: bool) -> None:
        self.base.peft.train(training)

    def before(self) -> None:
        self.adapter.flat.grad.zero_()
        self.adapter.refresh()
        self.optimizers[1].zero_grad()

    def ends(self, batch: Batch, part: str, rows: Any) -> torch.Tensor:
        text = self.embed(batch.token_ids)
        soft = self.network(self.values[part][rows]) * self.scale
        hidden = self.base.backbone(
            inputs_embeds=torch.cat([soft.to(text.dtype), text], dim=1), use_cache=False
        ).last_hidden_state
        return hidden[torch.arange(len(batch.last), device=hidden.device), SOFT_TOKENS + batch.last]


def _train(base: Base, learner: Any, config: TrainConfig, train: Any) -> list[float]:
    plan = plan_run(len(train.prompts), config)
    weights = class_weights(train.labels)
    learner.mode(training=True)
    losses = []
    for step in range(1, plan.total_steps + 1):
        rows = step_rows(step, len(train.prompts), config)
        batch, rows = _batch(base, train, rows, [weights[bit] / len(rows) for bit in train.labels[rows]])
        learner.before()
        logits = label_logits(base, learner.ends(batch, "train", rows))
        loss = (row_losses(logits, batch.labels) * batch.weights).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters, config.max_grad_norm)
        for optimizer in learner.optimizers:
            assert config.learning_rate is not None
            optimizer.param_groups[0]["lr"] = learning_rate_at(step, plan, config, config.learning_rate)
            optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def _score(base: Base, learner: Any, part: str, one: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """P(signal) of a part; what the free answer would be is not asked."""
    learner.mode(training=False)
    learner.before()
    p_signal = np.empty(len(one.prompts))
    for at in range(0, len(one.prompts), SCORE_ROWS):
        rows = np.arange(at, min(at + SCORE_ROWS, len(one.prompts)))
        batch, rows = _batch(base, one, rows, [0.0] * len(rows))
        logits = label_logits(base, learner.ends(batch, part, rows)).double()
        p_signal[rows] = torch.softmax(logits, dim=1)[:, 1].cpu().numpy()
    return p_signal, np.zeros(len(p_signal), dtype=bool)


def _batch(
    base: Base, one: Any, rows: NDArray[np.int64], shares: list[float]
) -> tuple[Batch, NDArray[np.int64]]:
    """One pass of these rows, and the rows in its order: `cut_step` puts the shortest first."""
    token_ids = base.encode([one.prompts[row] for row in rows])
    order = sorted(range(len(rows)), key=lambda place: len(token_ids[place]))
    (batch,) = cut_step(token_ids, [int(one.labels[row]) for row in rows], shares, base=base, rows=len(rows))
    return batch, rows[order]
