"""Asking for a training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model.identity import identify
from lhcq.model.plan import plan_run, recommended_answer_weight, recommended_learning_rate
from lhcq.model.preflight import estimate_needs
from lhcq.model.tokens import Encoder, encode_prompts
from lhcq.model.tracking import require_tracker
from lhcq.prompts.tokens import audit
from lhcq.records.commits import digests_of
from lhcq.records.jobs import Job
from lhcq.records.specs import TrainSpec, TrainTerms
from lhcq.records.subsets import SUBSETS, read_split, read_subset, training_prompts
from lhcq.storage import check_room, sha256_of_json
from lhcq.workspace import Workspace

_USUAL_CHECKPOINT = 60_000_000
"""Bytes, of a model whose shape is not known."""
_BESIDE_CHECKPOINT = 1_000_000
"""Bytes of what is written about one: its validation, and its share of the page."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A training that can be."""

    job: Job
    config: TrainConfig
    """With its learning rate and its weight of answers."""
    longest: int
    """Tokens of the longest prompt."""


def train_request(
    workspace: Workspace,
    split: str,
    run: str,
    config: TrainConfig,
    *,
    model: str,
    model_dir: Path,
    preset: str = "default",
    track: str | None = None,
    threads: int | None = None,
) -> TrainRequest:
    """The job that trains the base `model` in `model_dir` on a split; `preset` is what the configuration began with.

    `track` names a tracker that is told as well, `threads` how many of a CPU to begin with.
    """
    workspace.run(run)
    manifest = split_to_train(workspace, split, track)
    if config.learning_rate is None:
        config = config.model_copy(update={"learning_rate": recommended_learning_rate(model_dir)})
    n_train = training_prompts(manifest)
    if n_train == 0:
        raise BadInput(f"split {split!r} has no training prompts. Make another with `lhcq prepare`.")
    longest = longest_prompt(workspace.split(split), encode_prompts(model_dir), max_tokens=config.max_tokens)
    plan = plan_run(n_train, config)
    if config.answer_weight is None:
        weight = recommended_answer_weight(plan.total_steps)
        config = config.model_copy(update={"answer_weight": weight})
    # Beside those that are kept stand the best, and the two that wait for their validation.
    standing = min(len(plan.checkpoint_steps), (config.keep or len(plan.checkpoint_steps)) + 3)
    needs = estimate_needs(model_dir, config, longest=longest, bfloat16=False)
    checkpoint = needs.checkpoint if needs else _USUAL_CHECKPOINT
    check_room(workspace.root, standing * (checkpoint + _BESIDE_CHECKPOINT))
    spec = TrainSpec.resolved(
        split=split,
        split_sha256=digests_of(manifest),
        model=model,
        model_dir=workspace.relative(model_dir),
        base=identify(model_dir, workspace.digests).model_dump(),
        preset=preset,
        config=config.model_dump(),
        config_sha256=sha256_of_json(config.model_dump()),
        n_train=n_train,
        total_steps=plan.total_steps,
        checkpoint_steps=plan.checkpoint_steps,
    )
    asked = {"track": track, "threads": threads}
    terms = TrainTerms.checked(**{name: value for name, value in asked.items() if value is not None})
    job = Job(kind=spec.kind, name=run, spec=spec, terms=terms)
    return TrainRequest(job=job, config=config, longest=longest)


def split_to_train(workspace: Workspace, split: str, track: str | None) -> dict[str, Any]:
    """The manifest of a split, once it is known that the tracker, if any, can be told."""
    if track is not None:
        require_tracker(track)
    return read_split(workspace.split(split))


def longest_prompt(split: Path, encode: Encoder, *, max_tokens: int) -> int:
    """Tokens of a split's longest prompt, whichever subset it is in; raises `BadInput` when it is above the limit."""
    longest = 0
    for subset in SUBSETS:
        prompts = read_subset(split, subset, ["prompt"])["prompt"].to_pylist()
        longest = max(longest, audit(prompts, encode, max_tokens=max_tokens).max)
    return longest
