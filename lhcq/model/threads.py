"""How many CPU threads torch computes with."""

import contextlib
from collections.abc import Iterator

import torch


def threads_here() -> int:
    """As many as torch takes in this process: one a core, or OMP_NUM_THREADS."""
    return int(torch.get_num_threads())


@contextlib.contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """Compute with so many in the body, more than there are cores if need be; as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
