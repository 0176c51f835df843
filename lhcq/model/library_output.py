"""Libraries without progress bars and advice, which would mix with lhcq's own output, or what nobody uses."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any


def import_bitsandbytes() -> None:
    """Import bitsandbytes without its advice to install another product of a 4-bit layer, which none would use.

    And without torch's compiler, a third of what a process that trains takes to import: bitsandbytes wraps two
    functions in it, neither of which is called where it has a kernel, as it has for CPUs and GPUs.
    """
    if "bitsandbytes" in sys.modules:
        return
    import torch

    advice = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level, compiler = advice.level, torch.compile
    advice.setLevel(logging.ERROR)
    torch.compile = _leave_as_it_is
    try:
        import bitsandbytes  # noqa: F401
    finally:
        torch.compile = compiler
        advice.setLevel(level)


def _leave_as_it_is(function: Any = None, **_: Any) -> Any:
    """In place of `torch.compile`, as a function and as a decorator with options."""
    return _leave_as_it_is if function is None else function


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers for a while; what was set before is set again afterwards."""
    from transformers.utils import logging as of_transformers

    import_bitsandbytes()  # transformers would
    verbosity, bars = of_transformers.get_verbosity(), of_transformers.is_progress_bar_enabled()
    of_transformers.set_verbosity_error()
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        of_transformers.set_verbosity(verbosity)
        if bars:
            of_transformers.enable_progress_bar()
