"""Libraries without progress bars and advice, which would mix with lhcq's own output."""

import contextlib
import logging
from collections.abc import Iterator


def import_bitsandbytes() -> None:
    """Import bitsandbytes without its advice to install another product of a 4-bit layer, which none would use."""
    advice = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = advice.level
    advice.setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401
    finally:
        advice.setLevel(level)


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
