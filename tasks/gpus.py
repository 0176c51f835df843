"""The GPUs of this host and their memory, as `nvidia-smi` tells; it takes none of it."""

import contextlib
import os
import shutil
import subprocess

from lhcq.config import Frozen

_QUERY = "index,name,memory.used,memory.total,compute_cap"
_WAIT_SECONDS = 10.0


class Gpu(Frozen):
    """One GPU."""

    index: int
    name: str
    used: int
    """Bytes, of all processes."""
    total: int
    """Bytes."""
    bfloat16: bool


def gpus_here() -> list[Gpu]:
    """The GPUs that this process may use; none where there is no `nvidia-smi` or it says nothing of use."""
    tool = shutil.which("nvidia-smi")
    if tool is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=_WAIT_SECONDS)
        return [gpu for line in said.stdout.splitlines() if (gpu := read_gpu(line)) is not None]
    return []


def read_gpu(line: str) -> Gpu | None:
    """The GPU of one line of `nvidia-smi`'s answer; None for one that does not tell its memory."""
    with contextlib.suppress(ValueError):
        index, name, used, total, capability = (word.strip() for word in line.split(","))
        return Gpu(
            index=int(index),
            name=name,
            used=int(used) << 20,
            total=int(total) << 20,
            bfloat16=float(capability) >= 8.0,
        )
    return None
