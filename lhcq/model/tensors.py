"""Tensors from files that somebody else may have written: safetensors, which hold numbers and nothing that runs."""

from pathlib import Path
from typing import Any

from lhcq.errors import BadInput, Denied


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file by name; raises `BadInput` for anything else, a pickle among it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        if path.exists():  # safetensors says so of what it may not read, too
            raise Denied.at(path) from error
        pickled = sorted(path.parent.glob("*.bin")) + sorted(path.parent.glob("*.pt"))
        said = (
            f"; its weights are pickled ({pickled[0].name}), which can run code when read" if pickled else ""
        )
        raise BadInput(f"{path}: there is no such file{said}.") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path}: not a whole safetensors file ({error}).") from error
