"""The loop of `lhcq.model.kernels.nf4`, compiled when this is imported."""

import numpy as np
from numpy.typing import NDArray

from lhcq.compiling import compiled

_SMALLEST = np.float32(1e-38)
"""What a block is divided by at least, as bitsandbytes does."""
_SIGNLESS = np.int32(0x7FFFFFFF)
_ONE = np.float32(1.0)
_N_BOUNDS = 15


@compiled("void(float32[::1], int32[::1], float32[::1], uint8[::1], float32[::1], int32[::1])")
def pack_blocks(
    values: NDArray[np.float32],
    bits: NDArray[np.int32],
    bounds: NDArray[np.float32],
    codes: NDArray[np.uint8],
    largest: NDArray[np.float32],
    largest_bits: NDArray[np.int32],
) -> None:
    """Fill `codes` and `largest`, whose length is the number of blocks. `bits` and `largest_bits` are views.

    Magnitudes are compared by their bits, which are in the same order, and where what is no number is above all.
    """
    size = len(values) // max(len(largest), 1)
    of_block = np.empty(size, np.uint8)
    for block in range(len(largest)):
        begin = block * size
        top = np.int32(0)
        for at in range(size):
            top = max(top, bits[begin + at] & _SIGNLESS)
        largest_bits[block] = top
        factor = _ONE / (_SMALLEST if largest[block] < _SMALLEST else largest[block])
        for at in range(size):
            scaled = values[begin + at] * factor
            scaled = -_ONE if scaled < -_ONE else scaled
            scaled = _ONE if scaled > _ONE else scaled
            code = np.uint8(0)
            for bound in range(_N_BOUNDS):
                code += np.uint8(not scaled <= bounds[bound])
            of_block[at] = code
        for at in range(size // 2):
            codes[begin // 2 + at] = (of_block[2 * at] << 4) | of_block[2 * at + 1]
