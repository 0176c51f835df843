"""The logarithm and the arctangent of a number in each lane, with the bits of the host's libm.

FastJet takes `log` and `atan2` from libm, and so must whoever promises its bits. libm computes one at a time; here
those of all lanes are computed, nearly twice as precisely as a double, and rounded only where there is no doubt:

    value = high + low, where low is at most half of the last bit of high and is known to 2^-65 or so

               high - 1 bit                high                 high + 1 bit
    ----------------+--------[~~~]----------+-----------[~~~]-------+----
                             in doubt                   in doubt

A value near the middle between two doubles is in doubt: libm's own error decides to which it goes. So an interval
around the middle, wide enough for that error, is left to libm itself (Ziv's test; A. Ziv, ACM TOMS 17, 410, 1991).
Outside of it every libm that errs by less than half of the last bit and the `doubt` gives the same double. glibc's
errors: log 0.519 of the last bit, atan2 0.56 where the result is between 1/16 and pi/4 and 0.504 elsewhere, from
the comments in its e_log.c and e_atan2.c. Both come from sums of numbers of a known size and are bounds on the
absolute error, which are small against the last bit of a result that is not small. One lane in a hundred is in doubt.

A libm that errs by more (musl's atan2 does) is found out by `libm.lanes_for_libm` before the first use, and then all
lanes are left to libm. What is special (zero, negative, infinite, beyond 2^+-200) is in doubt from the start.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.jets.fixed import LOG_2, PI, atan_fixed, log_fixed, parts_of
from lhcq.jets.lanes import (
    N_LANES,
    Vector,
    address_of,
    bits_as_reals,
    choose,
    fused,
    get,
    inlined,
    least,
    look_up_four,
    look_up_two,
    lowest_of,
    magnitude,
    mask_of,
    put,
    put_row,
    reals_as_bits,
    row,
)

Floats = NDArray[np.float64]

# log x = k log 2 - log c + log(1 + r), where x = 2^k z, z in [11/16, 22/16), c is 1/z to eight bits and r = c z - 1,
# which then is a double: its last bit is 2^-60 at least and |r| < 2^-7. c is 1 around z = 1, and the result is
# log(1 + r): no digits are lost there. The high parts of log 2 and log c are cut so that their sum is exact.
_LOG_STEPS = 256
_LOG_FIRST = 0x3FE6000000000000  # the bits of 11/16
_LOG_GRAIN = 42
_LOG2_HIGH, _LOG2_LOW = parts_of(LOG_2, _LOG_GRAIN)


def _log_table() -> Floats:
    """c and the two parts of -log c (256, 4) for the steps of z, which the bits after the exponent name."""
    table = np.zeros((_LOG_STEPS, 4))
    for step in range(_LOG_STEPS):
        low, high = (float(np.int64(_LOG_FIRST + ((step + end) << 44)).view(np.float64)) for end in (0, 1))
        # The binade changes at 1: a step below it is half as wide as one above.
        grain = 256 if high > 1.0 else 128
        c = 1.0 if low < 1.0 + 2**-8 and high > 1.0 - 2**-8 else round(2 * grain / (low + high)) / grain
        numerator, denominator = c.as_integer_ratio()
        table[step, :3] = c, *parts_of(-log_fixed(numerator, denominator), _LOG_GRAIN)
    return table


# atan2(y, x): the smaller of |x| and |y| over the larger is near a = step / 128, and by the tangent of a difference
# atan u = atan a + atan t, t = (n - a d) / (d + a n). The table has the angle that `atan a` makes in each of the four
# half quadrants with y > 0, to which atan t is added or from which it is taken.
_ATAN_STEPS = 129


def _atan_table() -> Floats:
    """The two parts of the angle (4 * 129, 2); half quadrant 1 if |y| > |x|, 2 if x < 0, 3 if both."""
    table = np.zeros((4 * _ATAN_STEPS, 2))
    for step in range(_ATAN_STEPS):
        angle = atan_fixed(step, 128)
        for part, value in enumerate((angle, PI // 2 - angle, PI - angle, PI // 2 + angle)):
            table[part * _ATAN_STEPS + step] = parts_of(value)
    return table


_LOGS, _ATANS = _log_table(), _atan_table()
_TO_INTEGER = 1.5 * 2.0**52  # added to a small number it leaves the nearest integer in the last bits
_INTEGER_BITS = 0x4338000000000000  # its own
_SMALL, _LARGE = 2.0**-200, 2.0**200
ALL_LANES = (1 << N_LANES) - 1


@inlined
def rounded(high: Vector, low: Vector, doubt: Vector) -> Any:
    """The double next to high + low, and where an error of `doubt` could make it another one."""
    value = high + low
    rest = low - (value - high)
    return value, value + (rest - doubt) != value + (rest + doubt)


@inlined
def log_of(x: Vector, by_libm: int, scratch: int) -> Any:
    """log(x); lanes of the mask `by_libm` are left to libm. `scratch` has room for two vectors."""
    bits = reals_as_bits(x)
    place = bits - _LOG_FIRST
    exponent = place >> 52
    step = (place >> 44) & (_LOG_STEPS - 1)
    z = bits_as_reals(bits - (exponent << 52))
    k = bits_as_reals(exponent + _INTEGER_BITS) - _TO_INTEGER
    c, base, rest, _ = look_up_four(address_of(_LOGS), step)
    r = fused(z, c, -1.0)
    base, rest = fused(k, _LOG2_HIGH, base), fused(k, _LOG2_LOW, rest)
    # log(1 + r) - r, to 2^-67
    square = r * r
    far = fused(fused(r, 1 / 9, -1 / 8), square, fused(r, 1 / 7, -1 / 6))
    series = fused(fused(far, square, fused(r, 1 / 5, -1 / 4)), square, fused(r, 1 / 3, -1 / 2))
    high = base + r
    taken = high - base
    lost = (base - (high - taken)) + (r - taken)
    low = fused(series, square, rest) + lost
    value, unsure = rounded(high, low, least(magnitude(high) * 2.0**-57, 2.0**-61))
    asked = mask_of(unsure | (x < _SMALL) | (x > _LARGE)) | by_libm
    if asked != 0:
        put_row(scratch, 0, x)
        put_row(scratch, 1, value)
        while asked != 0:
            lane, asked = lowest_of(asked), asked & (asked - 1)
            put(scratch, N_LANES + lane, math.log(get(scratch, lane)))
        value = row(scratch, 1)
    return value


@inlined
def angle_of(y: Vector, x: Vector, by_libm: int, scratch: int) -> Any:
    """atan2(y, x); lanes of the mask `by_libm` are left to libm. `scratch` has room for three vectors."""
    along, up = magnitude(x), magnitude(y)
    steep, left = along < up, x < 0.0
    smaller, larger = choose(steep, along, up), choose(steep, up, along)
    ordinary = (smaller >= _SMALL) & (larger <= _LARGE)  # both are false of what is not a number
    whole = fused(choose(ordinary, smaller / larger, 0.0), 128.0, _TO_INTEGER)
    a = (whole - _TO_INTEGER) * (1 / 128)
    step = reals_as_bits(whole) - _INTEGER_BITS
    place = step + choose(
        left, choose(steep, 3 * _ATAN_STEPS, 2 * _ATAN_STEPS), choose(steep, _ATAN_STEPS, 0)
    )
    base, rest = look_up_two(address_of(_ATANS), place)
    # t = above / below, in two parts; `above` is exact, since a has seven bits and is near
    above = fused(0.0 - a, larger, smaller)
    below = fused(a, smaller, larger)
    missing = fused(a, smaller, larger - below)
    inverse = 1.0 / below
    t = above * inverse
    t_low = fused(0.0 - t, missing, fused(0.0 - t, below, above)) * inverse
    # atan t - t, to 2^-75
    square = t * t
    series = fused(fused(square, -1 / 7, 1 / 5), square, -1 / 3) * (square * t) + t_low
    backwards = choose(steep, choose(left, 1.0, -1.0), choose(left, -1.0, 1.0))
    t, series = t * backwards, series * backwards
    high = base + t
    taken = high - base
    lost = (base - (high - taken)) + (t - taken)
    value, unsure = rounded(high, lost + (rest + series), least(magnitude(high) * 2.0**-56, 2.0**-60))
    value = choose(y < 0.0, 0.0 - value, value)
    asked = mask_of(unsure) | (ALL_LANES - mask_of(ordinary)) | by_libm
    if asked != 0:
        put_row(scratch, 0, y)
        put_row(scratch, 1, x)
        put_row(scratch, 2, value)
        while asked != 0:
            lane, asked = lowest_of(asked), asked & (asked - 1)
            put(scratch, 2 * N_LANES + lane, math.atan2(get(scratch, lane), get(scratch, N_LANES + lane)))
        value = row(scratch, 2)
    return value
