"""Checkpoints: a plain PEFT adapter directory, the optimizer beside it, the manifest last."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lhcq.errors import BadInput
from lhcq.manifests import write_manifest
from lhcq.model.identity import require_same
from lhcq.records.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lhcq.records.commits import read_verified
from lhcq.storage import read_json, staged_directory, write_json

STATE = "state.json"

if TYPE_CHECKING:
    from lhcq.model.base import Base
    from lhcq.model.loop import TrainState


def write_checkpoint(
    final: Path, state: "TrainState", *, config_hash: str, extra: dict[str, Any] | None = None
) -> None:
    """Commit `state` under `final`; `extra` goes into the manifest. If the name is taken, what is there stays.

    The manifest also holds the base's identity, and how logits are made: of two `rows` of the output layer, or by the
    model's `own` head.
    """
    from safetensors.torch import save_file

    from lhcq.model.optimizer import OPTIMIZER_STATE, optimizer_tensors

    adapter = state.current_adapter()
    with staged_directory(final) as staged:
        weights = {name: weight.detach().cpu().clone() for name, weight in adapter.weights.items()}
        save_file(weights, staged / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        save_file(optimizer_tensors(state.optimizer, adapter), staged / OPTIMIZER_STATE)
        write_json(staged / ADAPTER_CONFIG, _adapter_config(adapter.lora, state.base.directory))
        write_json(
            staged / STATE, {"step": state.step, "config_hash": config_hash, "pass": state.size.model_dump()}
        )
        for path in staged.iterdir():
            path.chmod(
                0o644
            )  # safetensors makes its files private, but other hosts' users share the workspace
        facts = {
            "step": state.step,
            "config_hash": config_hash,
            "base": state.base.identity.model_dump(),
            "logits": "own" if state.base.own_logits else "rows",
            "compute": adapter.compute,
        }
        write_manifest(staged, **{**facts, **(extra or {})})


def verified_step(checkpoint: Path, base: "Base | None" = None) -> int:
    """The step of a checkpoint, after checking every file of it against its manifest, and `base` if it is loaded."""
    manifest = read_verified(
        checkpoint, what=f"checkpoint {checkpoint.name}", remedy="Look at `lhcq status`."
    )
    if base is not None:
        require_same(manifest.get("base"), base.identity, base.directory)
    if not isinstance(manifest["step"], int):
        raise BadInput(f"{checkpoint}: its manifest names no step.")
    return int(manifest["step"])


def recorded_rows(checkpoint: Path | None) -> int | None:
    """Prompts in a pass of the segment that ended in `checkpoint`; None at a run's start."""
    recorded = read_json(checkpoint / STATE).get("pass", {}) if checkpoint else {}
    rows = recorded.get("rows") if isinstance(recorded, dict) else None
    return rows if isinstance(rows, int) else None


def _adapter_config(lora: Any, model: Path) -> dict[str, Any]:
    """PEFT's own configuration file, with sets sorted so that equal adapters are equal bytes."""
    fields = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in lora.to_dict().items()
        if not key.startswith("_")
    }
    return {**fields, "base_model_name_or_path": str(model), "inference_mode": True}
