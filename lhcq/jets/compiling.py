"""How loops are compiled and kept, and the memory that they work in."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np
from numpy.typing import NDArray

from lhcq.compiling import Function
from lhcq.errors import LhcqError, PermanentError
from lhcq.storage import exclusive

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_SOURCES = (
    *("axes", "compiling", "constituents", "correlations", "desk", "directions", "exact", "fixed", "kernels"),
    *("lanes", "libm", "momenta", "neighbours", "order", "recombination", "ties", "waves"),
)
_STAMP = hashlib.sha256(
    b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _SOURCES)
).digest()
_rooms = threading.local()


def compiled(function: Function) -> Function:
    """Compile at the first call, and keep the result beside this file or in the user's cache directory.

    Raises `PermanentError` where numba is told to compile nothing.
    """
    if numba.config.DISABLE_JIT:
        raise PermanentError("NUMBA_DISABLE_JIT is set: what finds jets runs compiled only. Unset it.")
    options = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
    try:
        made = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither can be written: every process compiles for itself, 20 s
        return cast("Function", numba.njit(**options)(function))
    # numba's cache knows the changes of the file that a function stands in, not of those that it is compiled from.
    made._cache._cache_file._source_stamp = _STAMP
    return cast("Function", made)


@contextlib.contextmanager
def one_at_a_time(loop: Any) -> Iterator[None]:
    """For a body that compiles what belongs to `loop`: as long as nobody did here, one process after the other.

    Workers that start at once on a new machine would each compile the same for 20 s of a core: the first
    does, and the others load it.
    """
    with contextlib.ExitStack() as held:
        try:
            index = Path(loop._cache._cache_file._index_path)
        except AttributeError:  # nothing is kept, so everybody has to
            index = None
        if index is not None and not index.exists():
            with contextlib.suppress(OSError, LhcqError):  # without the lock it only takes longer
                held.enter_context(exclusive(index.with_name(".compiling.lock"), where_possible=True))
        yield


def room_of(name: str, size: int) -> Floats:
    """Scratch of at least `size` doubles that this thread keeps: fresh memory costs more than it is worth.

    By powers of two: what nobody touches is no memory, and a room that grew with each larger block would leave holes
    that are too small for the next.
    """
    held: Floats | None = getattr(_rooms, name, None)
    if held is None or len(held) < size:
        held = np.empty(1 << (size - 1).bit_length())
        setattr(_rooms, name, held)
    return held
