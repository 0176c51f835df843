"""Functions of integers in 2^-200, which the tables of `exact` and `waves` are computed with: right to 190 bits.

A number is an integer, 2^200 times as large.
"""

import math

POINT = 200


def log_fixed(numerator: int, denominator: int) -> int:
    """The logarithm of a fraction near 1: 2 atanh((n - d) / (n + d))."""
    step = ((numerator - denominator) << POINT) // (numerator + denominator)
    square, power, total, k = step * step >> POINT, step, 0, 1
    while power not in (0, -1):
        total, power, k = total + power // k, power * square >> POINT, k + 2
    return 2 * total


def atan_fixed(numerator: int, denominator: int) -> int:
    """The arctangent of a fraction, by Euler's series."""
    over = numerator * numerator + denominator * denominator
    term, total, k = (numerator * denominator << POINT) // over, 0, 0
    while term:
        total, k = total + term, k + 1
        term = term * 2 * k * numerator * numerator // ((2 * k + 1) * over)
    return total


def exp_fixed(x: int) -> int:
    """The exponential of a number from 0 to 1."""
    term, total, k = 1 << POINT, 0, 0
    while term:
        total, k = total + term, k + 1
        term = (term * x >> POINT) // k
    return total


def sin_cos_fixed(x: int) -> tuple[int, int]:
    """Sine and cosine of a number from 0 to 7."""
    sums, term, k = [0, 0], 1 << POINT, 0
    while term:
        sums[k % 2] += term if k % 4 < 2 else -term
        k += 1
        term = (term * x >> POINT) // k
    return sums[1], sums[0]


def parts_of(fixed: int, grain: int | None = None) -> tuple[float, float]:
    """A number as a double and the rest; the double is a multiple of 2^-`grain` if that is given."""
    if grain is None:
        high = math.ldexp(fixed / (1 << 100), 100 - POINT)
    else:
        unit = POINT - grain
        high = math.ldexp((fixed + (1 << unit >> 1)) >> unit, -grain)
    numerator, denominator = high.as_integer_ratio()
    rest = fixed - (numerator << POINT) // denominator
    return high, math.ldexp(rest / (1 << 100), 100 - POINT)


PI = 4 * atan_fixed(1, 1)
LOG_2 = -log_fixed(1, 2)
