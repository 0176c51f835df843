"""Sine, cosine and the hyperbolic ones of a number in each lane, with the bits of the host's libm.

They make momenta of (pt, eta, phi). As in `exact`: more precisely than a double, rounded where there is no doubt,
left to libm where there is.

    sin(a + r) = sin a + (sin a (cos r - 1) + cos a sin r),   a the nearest multiple of pi / 64, from a table
    exp(a + r) = exp a + exp a (exp r - 1),                   a the nearest multiple of log 2 / 64, from a table

glibc's errors, in its last bit: sin and cos 0.52 below 2.42 and 0.55 above, exp 0.511 (comments in its s_sin.c and
e_exp.c). One result in twenty is in doubt.

libm's sinh errs by more than a bit, so more precision does not find its bits. It is done as glibc does it, operation
by operation, from expm1; and cosh from exp and expm1 (s_expm1.c, e_sinh.c and e_cosh.c of Sun Microsystems, 1993,
in glibc as in the BSDs; expm1 with fused products, as glibc has it on CPUs that can). A libm that does otherwise is
found out before the first use (`libm.lanes_for_libm`).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lhcq.jets.exact import ALL_LANES, rounded
from lhcq.jets.fixed import LOG_2, PI, exp_fixed, parts_of, sin_cos_fixed
from lhcq.jets.lanes import (
    N_LANES,
    Vector,
    address_of,
    bits_as_reals,
    choose,
    floor,
    fused,
    get,
    inlined,
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

_STEPS = 64  # of half a circle, and of a power of two


_PI_HIGH, _PI_LOW = parts_of(PI // _STEPS, 46)  # the first few multiples of the high parts are exact
_LOG2_HIGH, _LOG2_LOW = parts_of(LOG_2 // _STEPS, 45)
_WAVES: Floats = np.array(  # sine and cosine in two parts each of the multiples of pi / 64
    [
        [part for value in sin_cos_fixed(PI * step // _STEPS) for part in parts_of(value)]
        for step in range(2 * _STEPS)
    ]
)
_POWERS: Floats = np.array([parts_of(exp_fixed(LOG_2 * step // _STEPS)) for step in range(_STEPS)])
_TO_INTEGER = 1.5 * 2.0**52  # added to a small number it leaves the nearest integer in the last bits
_INTEGER_BITS = 0x4338000000000000  # its own
_LAST_BIT = 2.0**-52
# What is left to libm from the start.
_FARTHEST = 16.0  # radians
_SMALL = 2.0**-30  # of a result, which the reduction leaves few digits of
_LEAST, _MOST = 2.0**-27, 13.0  # of what is hyperbolic
# Where libm goes another way, by the upper half of the bits.
_HALF_LOG2 = float(np.int64(0x3FD62E43 << 32).view(np.float64))
_LOG2_AND_HALF = float(np.int64(0x3FF0A2B2 << 32).view(np.float64))
_LN2_HIGH, _LN2_LOW, _INVERSE_LN2 = (
    6.93147180369123816490e-01,
    1.90821492927058770002e-10,
    1.44269504088896338700,
)
_Q1, _Q2, _Q3, _Q4, _Q5 = (
    *(-3.33333333333331316428e-02, 1.58730158725481460165e-03, -7.93650757867487942473e-05),
    *(4.00821782732936239552e-06, -2.01099218183624371326e-07),
)


_NONE = 1.0  # what is computed in lanes that are left to libm


@inlined
def circular_of(x: Vector, by_libm: int, scratch: int) -> Any:
    """sin(x) and cos(x); lanes of the mask `by_libm` are left to libm. `scratch` has room for three vectors."""
    near = magnitude(x) <= _FARTHEST  # false of what is not a number
    given = choose(near, x, _NONE)
    whole = fused(given, _STEPS / math.pi, _TO_INTEGER)
    n = whole - _TO_INTEGER
    r, r_low = _reduce(given, n, _PI_HIGH, _PI_LOW)
    place = reals_as_bits(whole) & (2 * _STEPS - 1)
    up, up_low, along, along_low = look_up_four(address_of(_WAVES), place)
    square = r * r
    sine_low = fused(fused(fused(square, -1 / 5040, 1 / 120), square, -1 / 6), square * r, r_low)  # sin r - r
    less = fused(fused(square, 1 / 40320, -1 / 720), square, 1 / 24)
    less = fused(less, square * square, square * -0.5)  # cos r - 1
    doubt = choose(magnitude(given) < 2.42, 0.02 * _LAST_BIT, 0.053 * _LAST_BIT)
    sine, unsure = _turn(up, up_low, along, along_low, r, sine_low, less, doubt)
    cosine, also = _turn(along, along_low, 0.0 - up, 0.0 - up_low, r, sine_low, less, doubt)
    left = (ALL_LANES - mask_of(near)) | by_libm
    asked, also_asked = mask_of(unsure) | left, mask_of(also) | left
    if asked | also_asked != 0:
        put_row(scratch, 0, x)
        put_row(scratch, 1, sine)
        put_row(scratch, 2, cosine)
        while asked != 0:
            lane, asked = lowest_of(asked), asked & (asked - 1)
            put(scratch, N_LANES + lane, math.sin(get(scratch, lane)))
        while also_asked != 0:
            lane, also_asked = lowest_of(also_asked), also_asked & (also_asked - 1)
            put(scratch, 2 * N_LANES + lane, math.cos(get(scratch, lane)))
        sine, cosine = row(scratch, 1), row(scratch, 2)
    return sine, cosine


@inlined
def _reduce(x: Vector, n: Vector, high: float, low: float) -> Any:
    """x - n (high + low) in two parts; n high and the difference from it are exact."""
    far, taken = fused(n, 0.0 - high, x), n * low
    r = far - taken
    return r, (far - r) - taken


@inlined
def _turn(
    one: Vector,
    one_low: Vector,
    other: Vector,
    other_low: Vector,
    r: Vector,
    low: Vector,
    less: Vector,
    doubt: Vector,
) -> Any:
    """one + one less + other sin r, and whether it is in doubt; sin r is r + low. To 2^-62."""
    step = other * r
    total = one + step
    rest = fused(other, r, 0.0 - step) + fused(other, low, fused(other_low, r, one_low))
    rest = ((one - total) + step) + fused(one, less, rest)
    value, unsure = rounded(total, rest, magnitude(total) * doubt)
    return value, unsure | (magnitude(value) < _SMALL)


@inlined
def hyperbolic_of(x: Vector, by_libm: int, scratch: int) -> Any:
    """sinh(x) and cosh(x); lanes of the mask `by_libm` are left to libm. `scratch` has room for three vectors."""
    size = magnitude(x)
    near = (size >= _LEAST) & (size < _MOST)
    size = choose(near, size, _NONE)
    t = _expm1_of(size)
    small = size < 1.0
    share = choose(small, t * t, t) / (t + 1.0)
    sine = choose(x < 0.0, -0.5, 0.5) * choose(small, 2.0 * t - share, t + share)
    whole, unsure = _exp_of(size)
    near_zero, grown = size < _HALF_LOG2, t + 1.0
    share = choose(near_zero, t * t, 0.5) / choose(near_zero, grown + grown, whole)
    cosine = choose(near_zero, 1.0, 0.5 * whole) + share
    left = (ALL_LANES - mask_of(near)) | by_libm
    asked = left | (mask_of(unsure) & (ALL_LANES - mask_of(near_zero)))
    if asked != 0:
        put_row(scratch, 0, x)
        put_row(scratch, 1, sine)
        put_row(scratch, 2, cosine)
        while left != 0:
            lane, left = lowest_of(left), left & (left - 1)
            put(scratch, N_LANES + lane, math.sinh(get(scratch, lane)))
        while asked != 0:
            lane, asked = lowest_of(asked), asked & (asked - 1)
            put(scratch, 2 * N_LANES + lane, math.cosh(get(scratch, lane)))
        sine, cosine = row(scratch, 1), row(scratch, 2)
    return sine, cosine


@inlined
def _exp_of(x: Vector) -> Any:
    """exp(x) for x from 0.3 to 13, and whether it is in doubt. To 2^-62."""
    whole = fused(x, _STEPS / math.log(2.0), _TO_INTEGER)
    r, r_low = _reduce(x, whole - _TO_INTEGER, _LOG2_HIGH, _LOG2_LOW)
    bits = reals_as_bits(whole) - _INTEGER_BITS
    power, power_low = look_up_two(address_of(_POWERS), bits & (_STEPS - 1))
    square = r * r
    far = fused(fused(square, 1 / 5040, fused(r, 1 / 720, 1 / 120)), square, fused(r, 1 / 24, 1 / 6))
    low = fused(square * r, far, fused(square, 0.5, r_low))  # exp r - 1 - r
    step = power * r
    total = power + step
    rest = fused(power, r, 0.0 - step) + fused(power, low, fused(power_low, r, power_low))
    value, unsure = rounded(total, ((power - total) + step) + rest, magnitude(total) * (0.02 * _LAST_BIT))
    return value * bits_as_reals((bits >> 6) + 1023 << 52), unsure


@inlined
def _expm1_of(x: Vector) -> Any:
    """exp(x) - 1 for x from 2^-27 to 13, rounded as s_expm1.c does."""
    k = floor(x * _INVERSE_LN2 + 0.5)
    k = choose(x < _LOG2_AND_HALF, 1.0, k)
    k = choose(x < _HALF_LOG2, 0.0, k)
    high, low = x - k * _LN2_HIGH, k * _LN2_LOW
    r = high - low
    c = (high - r) - low
    half = 0.5 * r
    square = r * half
    h2 = square * square
    series = fused(h2, fused(square, _Q3, _Q2), fused(square, _Q1, 1.0))
    series = fused(h2 * h2, fused(square, _Q5, _Q4), series)
    t = fused(series, 0.0 - half, 3.0)
    e = square * ((series - t) / fused(r, 0.0 - t, 6.0))
    alone = r - fused(r, e, 0.0 - square)
    e = fused(r, e - c, 0.0 - c) - square
    exponent = reals_as_bits(k + _TO_INTEGER) - _INTEGER_BITS
    power = bits_as_reals((exponent + 1023) << 52)
    one = choose(r < -0.25, -2.0 * (e - (r + 0.5)), 1.0 + 2.0 * (r - e))
    more = ((1.0 - bits_as_reals((1023 - exponent) << 52)) - (e - r)) * power
    return choose(k < 1.0, alone, choose(k < 2.0, one, more))
