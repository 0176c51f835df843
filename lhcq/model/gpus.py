"""The GPUs of this host, as `nvidia-smi` tells, which takes none of their memory. Imports no torch."""

import contextlib
import os
import shutil
import subprocess

from lhcq.frozen import Frozen

_QUERY = "index,uuid,name,memory.used,memory.free,memory.total,compute_cap"
_WAIT_SECONDS = 10.0


class Gpu(Frozen):
    """One GPU."""

    index: int
    identifier: str
    """NVIDIA's, such as GPU-8e37a916-..."""
    name: str
    used: int
    """Bytes, of all processes."""
    free: int
    """Bytes; less than the rest, since the driver holds some."""
    total: int
    """Bytes."""
    bfloat16: bool


def gpus_here() -> list[Gpu]:
    """The GPUs of `gpus_of_host` that CUDA_VISIBLE_DEVICES leaves."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return gpus_of_host() if visible is None else _seen(gpus_of_host(), visible)


def gpus_of_host() -> list[Gpu]:
    """All GPUs; none where there is no `nvidia-smi` or it says nothing of use."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=_WAIT_SECONDS)
        return [gpu for line in said.stdout.splitlines() if (gpu := read_gpu(line)) is not None]
    return []


def read_gpu(line: str) -> Gpu | None:
    """The GPU of one line of `nvidia-smi`'s answer; None for one that does not tell its memory."""
    with contextlib.suppress(ValueError):
        index, identifier, name, used, free, total, capability = (word.strip() for word in line.split(","))
        return Gpu(
            index=int(index),
            identifier=identifier,
            name=name,
            used=int(used) << 20,
            free=int(free) << 20,
            total=int(total) << 20,
            bfloat16=float(capability) >= 8.0,
        )
    return None


def _seen(gpus: list[Gpu], visible: str) -> list[Gpu]:
    """As CUDA reads the list: what stands behind something that is no GPU, such as -1, is not seen."""
    seen: list[Gpu] = []
    for name in map(str.strip, visible.split(",")):
        if name.startswith("MIG"):
            return gpus  # a slice of one: which, is not told here
        named = [gpu for gpu in gpus if name == str(gpu.index) or (name and gpu.identifier.startswith(name))]
        if not named:
            break
        seen.append(named[0])
    return seen
