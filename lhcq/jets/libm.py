"""Whether the functions of `exact` and `waves` have the bits of this host's libm; what has not is left to libm."""

import functools
import math
from typing import Literal

import numpy as np

from lhcq.jets.compiling import Floats, compiled, room_of
from lhcq.jets.exact import ALL_LANES, angle_of, log_of
from lhcq.jets.lanes import N_LANES, address_of, get, put_row, row
from lhcq.jets.waves import circular_of, hyperbolic_of

_N_COMPARED = 4096
Functions = Literal["directions", "circular", "hyperbolic"]


@functools.cache
def lanes_for_libm(functions: Functions) -> int:
    """The lanes that leave these functions to libm, as a mask: none, or all if libm has other bits.

    `directions` are log and atan2, `circular` sin and cos, `hyperbolic` sinh and cosh.
    """
    rng = np.random.default_rng(1)
    room = room_of("functions", 4 * N_LANES)
    if functions == "directions":
        y, x = rng.normal(0.0, 1.0, (2, _N_COMPARED)) * rng.exponential(1.0, (2, _N_COMPARED))
        wrong = count_differences(y, x, np.exp(-rng.exponential(3.0, _N_COMPARED)), room)
    else:
        angles, rapidities = rng.uniform(-math.pi, math.pi, _N_COMPARED), rng.normal(0.0, 2.0, _N_COMPARED)
        place = ("circular", "hyperbolic").index(functions)
        wrong = count_wave_differences(angles, rapidities, room)[place]
    return ALL_LANES if wrong else 0


@compiled
def count_differences(y: Floats, x: Floats, ratio: Floats, room: Floats) -> int:
    """How many of atan2(y, x) and log(ratio), (n,) each with n a multiple of the lanes, are not libm's."""
    n_wrong, scratch = 0, address_of(room)
    for k in range(len(x) // N_LANES):
        angles = angle_of(row(address_of(y), k), row(address_of(x), k), 0, scratch)
        logs = log_of(row(address_of(ratio), k), 0, scratch)
        put_row(scratch, 0, angles)
        put_row(scratch, 1, logs)
        for lane in range(N_LANES):
            at = N_LANES * k + lane
            n_wrong += get(scratch, lane) != math.atan2(y[at], x[at])
            n_wrong += get(scratch, N_LANES + lane) != math.log(ratio[at])
    return n_wrong


@compiled
def count_wave_differences(angles: Floats, rapidities: Floats, room: Floats) -> tuple[int, int]:
    """How many of sin and cos of `angles`, and of sinh and cosh of `rapidities`, (n,) each, are not libm's."""
    n_circular, n_hyperbolic, scratch = 0, 0, address_of(room)
    for k in range(len(angles) // N_LANES):
        sine, cosine = circular_of(row(address_of(angles), k), 0, scratch)
        up, along = hyperbolic_of(row(address_of(rapidities), k), 0, scratch)
        for place, values in enumerate((sine, cosine, up, along)):
            put_row(scratch, place, values)
        for lane in range(N_LANES):
            angle, rapidity = angles[N_LANES * k + lane], rapidities[N_LANES * k + lane]
            n_circular += get(scratch, lane) != math.sin(angle)
            n_circular += get(scratch, N_LANES + lane) != math.cos(angle)
            n_hyperbolic += get(scratch, 2 * N_LANES + lane) != math.sinh(rapidity)
            n_hyperbolic += get(scratch, 3 * N_LANES + lane) != math.cosh(rapidity)
    return n_circular, n_hyperbolic
