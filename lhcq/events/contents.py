"""What tells one event from another: a hash of its particles, whatever their order (`lhcq.records.duplicates`)."""

import numpy as np
from numpy.typing import NDArray

from lhcq.compiling import compiled

Contents = NDArray[np.uint64]

_SLOTS = 700
# Odd, and their bits well mixed: the constants of splitmix64 and of MurmurHash3's finalizer.
_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)
_HALF, _ONE, _ZERO = np.uint64(32), np.uint64(1), np.uint64(0)


@compiled("void(uint64[::1], int64, int64[::1], uint64[::1])")
def _hash_rows(numbers: Contents, stride: int, counts: NDArray[np.int64], contents: Contents) -> None:
    for event in range(counts.shape[0]):
        row, count = numbers[event * stride : event * stride + 3 * _SLOTS], counts[event]
        total, seen = _ZERO, 0
        # Nearly always the particles come first; a loop without a way out is twice as fast.
        for slot in range(count):
            pt, eta, phi = row[3 * slot], row[3 * slot + 1], row[3 * slot + 2]
            seen += pt != _ZERO
            state = (pt + ((eta >> _HALF) | (eta << _HALF))) * _A
            state = ((state ^ (state >> _HALF)) + phi) * _B
            total += state ^ (state >> _HALF) if pt != _ZERO else _ZERO  # a sum knows no order
        slot = count
        while seen < count and slot < _SLOTS:
            pt, eta, phi = row[3 * slot], row[3 * slot + 1], row[3 * slot + 2]
            if pt != _ZERO:
                seen += 1
                state = (pt + ((eta >> _HALF) | (eta << _HALF))) * _A
                state = ((state ^ (state >> _HALF)) + phi) * _B
                total += state ^ (state >> _HALF)
            slot += 1
        contents[event] = total if total != _ZERO or count == 0 else _ONE


def hash_events(values: NDArray[np.float64], n_particles: NDArray[np.int64]) -> Contents:
    """The content of each event, (n,); 0 where it has no particle.

    `values` (n, 700, 3) or (n, 2100 or 2101) are the rows of an event file, `n_particles` (n,) the slots whose pt is
    not 0. Particles are equal where their bytes are.
    """
    contents = np.empty(len(values), np.uint64)
    if len(values):
        particles = np.asarray(values, np.float64).reshape(len(values), -1)[:, : 3 * _SLOTS]
        numbers, stride = _from_the_first_on(particles)
        _hash_rows(numbers, stride, np.ascontiguousarray(n_particles, np.int64), contents)
    return contents


def _from_the_first_on(rows: NDArray[np.float64]) -> tuple[Contents, int]:
    """What lies in memory from the first number to the last, and how far two rows are apart in it.

    The particles of a file's rows are a view that steps over the labels; a copy would cost more than the hash.
    """
    step, size = rows.strides[0], rows.itemsize
    if rows.strides[1] != size or step < rows.shape[1] * size or step % size:
        rows = np.ascontiguousarray(rows)
        step = rows.strides[0]
    length = (len(rows) - 1) * (step // size) + rows.shape[1]
    return np.lib.stride_tricks.as_strided(rows, (length,), (size,)).view(np.uint64), step // size
