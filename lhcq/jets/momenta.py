"""The momenta of particles that are given by pt, eta and phi."""

from lhcq.jets.compiling import Floats, Integers, compiled
from lhcq.jets.lanes import N_LANES, address_of, get, put_row, row
from lhcq.jets.waves import circular_of, hyperbolic_of

_SLOT_BYTES = 24


@compiled
def count_filled(particles: int, stride: int, n_slots: int, counts: Integers) -> None:
    """How many of the `n_slots` slots of each event have a pt that is not 0, into `counts` (n_events,).

    `particles` is the address of the first event, a slot after the other, and `stride` the bytes to the next.
    """
    for event in range(len(counts)):
        slot, filled = particles + event * stride, 0
        for k in range(n_slots):
            filled += get(slot, 3 * k) != 0.0
        counts[event] = filled


@compiled
def to_momenta(
    particles: int,
    stride: int,
    counts: Integers,
    circular_by_libm: int,
    hyperbolic_by_libm: int,
    room: Floats,
    px: Floats,
    py: Floats,
    pz: Floats,
    e: Floats,
) -> None:
    """Momenta in GeV, (n_filled + N_LANES - 1,) each, of events of (pt in GeV, eta, phi), massless; the last
    N_LANES - 1 mean nothing.

    Slots of pt 0 are left out, of which `count_filled` says `counts` (n_events,); `particles` and `stride` as there.
    `room` is for three vectors.
    """
    n, scratch = 0, address_of(room)
    for event in range(len(counts)):
        stop, slot = n + counts[event], particles + event * stride
        while n < stop:
            px[n], py[n], pz[n] = get(slot, 0), get(slot, 1), get(slot, 2)
            n += px[n] != 0.0
            slot += _SLOT_BYTES
    for k in range(n, len(px)):  # ordinary, for no function to be in doubt of
        px[k], py[k], pz[k] = 1.0, 1.0, 1.0
    for k in range((n + N_LANES - 1) // N_LANES):
        pt, eta, phi = row(address_of(px), k), row(address_of(py), k), row(address_of(pz), k)
        sine, cosine = circular_of(phi, circular_by_libm, scratch)
        up, along = hyperbolic_of(eta, hyperbolic_by_libm, scratch)
        put_row(address_of(px), k, pt * cosine)
        put_row(address_of(py), k, pt * sine)
        put_row(address_of(pz), k, pt * up)
        put_row(address_of(e), k, pt * along)
