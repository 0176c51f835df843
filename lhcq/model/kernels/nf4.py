"""Weights into NF4 on a CPU: bitsandbytes' own codes, to the bit, in an eighth of the time.

bitsandbytes has no kernel of a CPU's for it: its generic one takes the weights through eight passes of torch, one of
which searches for each value's code. That was nearly all of what loading a base model took. Here a compiled loop does
a block at a time. It is given to torch as the kernel that bitsandbytes lacks, so all that packs on a CPU gets it:
`from_pretrained` of transformers too, whoever calls it. Whether it gives bitsandbytes' codes is asked once a process.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lhcq.model.library_output import import_bitsandbytes
from lhcq.model.weights import weight_files

_OPERATION = "bitsandbytes::quantize_4bit"
_WORTH_BYTES = 128 << 20
"""Of a model's files: numba takes longer to start than a smaller model takes to pack."""
_BLOCK = 64
"""The size of a block that both ways are tried with."""

Packed = tuple[torch.Tensor, torch.Tensor]


def pack_quickly_if_large(directory: Path) -> None:
    """`pack_quickly` before the model in `directory` is loaded, if that is worth it."""
    if sum(path.stat().st_size for path in weight_files(directory)) >= _WORTH_BYTES:
        pack_quickly()


@functools.cache
def pack_quickly() -> bool:
    """Have this process pack NF4 on its CPU by the loop here; whether it does now.

    It does not where bitsandbytes brings a kernel of its own, where the loop gives other codes, and with torch before
    2.10, which cannot leave to the generic kernel what the loop does not know.
    """
    import_bitsandbytes()
    operation, probe = torch.ops.bitsandbytes.quantize_4bit.default, _probe()
    get_kernel = getattr(torch.library, "get_kernel", None)
    if get_kernel is None or torch._C._dispatch_has_kernel_for_dispatch_key(_OPERATION, "CPU"):
        return False
    if not _same(pack(probe, _BLOCK), operation(probe, _BLOCK, "nf4", torch.uint8)):
        return False
    generic = get_kernel(_OPERATION, "CPU")

    def quantize(keys: Any, weight: torch.Tensor, size: int, kind: str, storage: torch.dtype) -> Packed:
        if kind == "nf4" and storage is torch.uint8 and not weight.numel() % size:
            return pack(weight, size)
        found: Packed = generic.call_boxed(keys, weight, size, kind, storage)
        return found

    _library().impl("quantize_4bit", quantize, "CPU", with_keyset=True)
    return True


@functools.cache
def _library() -> Any:
    """What holds the registration, for as long as the process lives."""
    return torch.library.Library("bitsandbytes", "IMPL")


def pack(weight: torch.Tensor, size: int) -> Packed:
    """The codes of `weight`, two a byte `(n / 2, 1)`, and the largest magnitude of each block `(n / size,)`, float32.

    `n`, the number of weights, is a multiple of `size`, which is even.
    """
    from lhcq.model.kernels.nf4_loop import pack_blocks

    values = weight.detach().reshape(-1).float().numpy()
    codes, largest = np.empty(len(values) // 2, np.uint8), np.empty(len(values) // size, np.float32)
    pack_blocks(values, values.view(np.int32), _bounds(), codes, largest, largest.view(np.int32))
    return torch.from_numpy(codes)[:, None], torch.from_numpy(largest)


@functools.cache
def _bounds() -> NDArray[np.float32]:
    """Halfway between the values of one code and the next, `(15,)`, as bitsandbytes rounds it."""
    from bitsandbytes.functional import get_4bit_type

    values = get_4bit_type("nf4", device="cpu")
    bounds: NDArray[np.float32] = ((values[:-1] + values[1:]) / 2).numpy()
    return bounds


def _probe() -> torch.Tensor:
    """Blocks of what weights may be: of every size, all alike, on the bounds and beside them, no numbers at all."""
    random = np.random.default_rng(1).normal(size=(256, _BLOCK)).astype(np.float32)
    sizes = np.float32(10.0) ** np.arange(-45, 38, dtype=np.float32)[:, None]
    bounds = _bounds()
    beside = np.concatenate(
        [bounds, np.nextafter(bounds, np.float32(-2)), np.nextafter(bounds, np.float32(2))]
    )
    near = np.zeros((5, _BLOCK), np.float32)
    near[:, : len(beside)] = beside
    near[:, -1] = 1.0
    near *= np.array([[1.0], [-1.0], [0.02], [3e-39], [7e30]], np.float32)
    odd = random[:6].copy()
    odd[0], odd[1], odd[2] = 0.0, -0.0, 0.25
    odd[3, 5], odd[4, 5], odd[5, 5] = np.nan, np.inf, -np.inf
    return torch.from_numpy(np.concatenate([random, sizes * random[: len(sizes)], near, odd]))


def _same(ours: Packed, theirs: Packed) -> bool:
    (codes, largest), (their_codes, their_largest) = ours, theirs
    return torch.equal(codes, their_codes) and bool(
        np.array_equal(largest.numpy(), their_largest.numpy(), equal_nan=True)
    )
