"""The safetensors files of a model, read without torch: which ones there are, and which tensors stand in them."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from lhcq.errors import BadInput
from lhcq.storage import read_json

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors file's description; the format's own limit."""


class Tensor(NamedTuple):
    """A tensor in a safetensors file."""

    name: str
    dtype: str
    """As the format has it, such as BF16."""
    shape: tuple[int, ...]
    start: int
    """Where its bytes begin in the file."""
    stop: int

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that transformers reads: one, or those that the index names.

    Raises `BadInput` for an index that names anything but safetensors files of the directory.
    """
    index = directory / _INDEX
    named = _indexed(index) if index.is_file() else []
    if (directory / _WHOLE).is_file():
        return [directory / _WHOLE]
    return named


def read_tensors_of(path: Path) -> list[Tensor]:
    """What stands in a safetensors file, by its header: eight bytes of length, then that much JSON."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = path.stat().st_size
            if not 0 < length < size:
                raise ValueError("it is cut short")
            if length > _LONGEST_HEADER:
                raise ValueError("its description is too long")
            header: dict[str, Any] = json.loads(stream.read(length))
        begin = 8 + length
        tensors = [
            _tensor(name, entry, begin) for name, entry in dict(header).items() if name != "__metadata__"
        ]
        if size != max((tensor.stop for tensor in tensors), default=begin):
            raise ValueError("it is cut short")
        return tensors
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise BadInput(f"{path}: not a whole safetensors file ({error}). Fetch the model again.") from error


def count_parameters(directory: Path) -> int:
    """The number of weights of a model, from the headers of its safetensors files."""
    return sum(tensor.weights for path in weight_files(directory) for tensor in read_tensors_of(path))


def _tensor(name: str, entry: dict[str, Any], begin: int) -> Tensor:
    shape, (start, stop) = entry["shape"], entry["data_offsets"]
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a shape in it is none")
    if not (type(start) is type(stop) is int and 0 <= start <= stop):
        raise ValueError("a place in it is none")
    if math.prod(shape) > 8 * (stop - start):
        raise ValueError("a shape in it is larger than its bytes")
    return Tensor(name, str(entry["dtype"]), tuple(shape), begin + start, begin + stop)


def _indexed(index: Path) -> list[Path]:
    named = read_json(index)["weight_map"]
    if not isinstance(named, dict):
        raise BadInput(f"{index}: no list of weight files. Fetch the model again.")
    there = {path.name for path in index.parent.glob("*.safetensors")}
    if wrong := [name for name in named.values() if not isinstance(name, str) or name not in there]:
        raise BadInput(
            f"{index}: names {str(wrong[0])!r}, which is no safetensors file of this directory. Fetch the "
            "model again."
        )
    return [index.parent / name for name in sorted(set(named.values()))]
