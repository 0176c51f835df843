"""Loops over numbers, compiled for the types that they are called with. (Those of jets: `lhcq.jets.compiling`.)"""

import sys
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, TypeVar, cast

import numba
from numba.core import entrypoints

Function = TypeVar("Function", bound=Callable[..., Any])

# What other packages register with numba. It would load all of it at the first loop: vector, and by it sympy and
# awkward, which takes as long as numba itself and 100 MB, in each worker and each command that looks at events.
_extensions = (
    {}
    if entrypoints._already_initialized
    else {
        point.module.partition(".")[0]: point for point in entry_points(group="numba_extensions", name="init")
    }
)


def _load_extensions() -> None:
    """Load the extensions of packages that were imported: nobody can have the types of one that was not.

    In place of numba's own function, which it calls before it compiles anything.
    """
    for package in _extensions.keys() & sys.modules.keys():
        point = _extensions.pop(package)
        try:
            point.load()()
        except Exception as error:  # as numba does: the loops that need it say the rest
            warnings.warn(f"numba's extension {point.module} failed to load: {error!r}", stacklevel=2)


entrypoints.init_all = _load_extensions


def compiled(signature: str) -> Callable[[Function], Function]:
    """Compile a function when its module is imported, or load what an earlier process compiled."""

    def decorate(function: Function) -> Function:
        try:
            return cast("Function", numba.njit(signature, cache=True, nogil=True)(function))
        except RuntimeError:  # there is nowhere to keep it
            return cast("Function", numba.njit(signature, nogil=True)(function))

    return decorate
