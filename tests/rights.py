"""What the rights of root would hide from a test."""

import contextlib
import ctypes
from collections.abc import Iterator

_VERSION_3 = 0x20080522
_LOOKS_EVERYWHERE = 1 << 1 | 1 << 2
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""


@contextlib.contextmanager
def as_any_user() -> Iterator[None]:
    """For the body this thread may look at what its user may, were it root or not."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    assert libc.capget(header, held) == 0
    less = (ctypes.c_uint32 * 6)(*held)
    less[0] &= ~_LOOKS_EVERYWHERE
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0
