"""Loops over numbers, compiled for the types that they are called with. (Those of jets: `lhcq.jets.compiling`.)"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(signature: str) -> Callable[[Function], Function]:
    """Compile a function when its module is imported, or load what an earlier process compiled."""

    def decorate(function: Function) -> Function:
        try:
            return cast("Function", numba.njit(signature, cache=True, nogil=True)(function))
        except RuntimeError:  # there is nowhere to keep it
            return cast("Function", numba.njit(signature, nogil=True)(function))

    return decorate
