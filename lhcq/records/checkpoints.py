"""What a checkpoint's manifest says beside its step: which adapter it holds, and what it was made with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lhcq.records.commits import require_commit
from lhcq.storage import MANIFEST, read_json

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""As PEFT names them."""


def require_checkpoint(
    checkpoint: Path, *, what: str = "", remedy: str = "Look at `lhcq status`."
) -> dict[str, Any]:
    """The manifest of a checkpoint, whole and of the run of today; `NotThere` or `BadInput` otherwise."""
    return require_commit(checkpoint, what=what or f"checkpoint {checkpoint.name}", remedy=remedy)


def adapter_sha256(manifest: Mapping[str, Any]) -> str:
    """What tells the adapter of a checkpoint from any other."""
    sha256: str = manifest["files"][ADAPTER_WEIGHTS]["sha256"]
    return sha256


def training_of(checkpoint: Path) -> dict[str, Any] | None:
    """What the steps of the segment before the checkpoint came to; None where an older lhcq wrote it."""
    found: dict[str, Any] | None = read_json(checkpoint / MANIFEST).get("training")
    return found


def versions_of(checkpoint: Path) -> dict[str, str]:
    """The packages that trained the checkpoint; empty where it is not there, or does not say."""
    try:
        versions = read_json(checkpoint / MANIFEST).get("versions") or {}
    except FileNotFoundError:
        return {}
    return {str(name): str(version) for name, version in versions.items()}
