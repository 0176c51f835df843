"""The GPUs that this process may use, as `nvidia-smi` tells, which takes none of their memory. Imports no torch."""

import contextlib
import itertools
import os
import shutil
import subprocess

from lhcq.config import Frozen

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
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; none where there is no `nvidia-smi` or it says nothing of use."""
    tool, visible = shutil.which("nvidia-smi"), os.environ.get("CUDA_VISIBLE_DEVICES")
    if tool is None or visible == "":
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=_WAIT_SECONDS)
        gpus = [gpu for line in said.stdout.splitlines() if (gpu := read_gpu(line)) is not None]
        return gpus if visible is None else _seen(gpus, visible)
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
    wanted = list(
        itertools.takewhile(lambda name: name[:1] not in ("", "-"), map(str.strip, visible.split(",")))
    )
    if not wanted:
        return []
    named = [
        gpu
        for gpu in gpus
        if any(name == str(gpu.index) or gpu.identifier.startswith(name) for name in wanted)
    ]
    return named or gpus  # what names no whole GPU, such as a slice of one, tells nothing here
