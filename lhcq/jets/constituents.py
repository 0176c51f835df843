"""The hardest constituents of jets, as a sequence: where trees on a jet's features end.

Each has its pt (GeV) and its distances to the jet's axis in pseudorapidity and azimuth, delta_eta = eta - eta_jet and
delta_phi = phi - phi_jet within [-pi, pi], by the file's own pt, eta, phi and by the jet's momentum in the E-scheme.
By falling pt; equal ones in the order of the particles in the file.
"""

import math

import numpy as np
from numpy.typing import NDArray

from lhcq.jets.compiling import Floats, Integers, compiled

Singles = NDArray[np.float32]


def hardest_constituents(
    events: Floats,
    counts: Integers,
    starts: Integers,
    members: Integers,
    chosen: Integers,
    axes: Floats,
    most: int,
) -> tuple[Integers, Singles]:
    """At most `most` constituents of each of the jets `chosen` (n_chosen,) of a list, one jet after the other.

    `events` (n_events, n_slots, 3) holds (pt in GeV, eta, phi), and pt == 0 where a slot is empty; event k has
    `counts[k]` particles. Jet k of the list consists of the particles number `members[starts[k]:starts[k + 1]]` of
    all events; `axes` (n_chosen, 2) are (eta, phi) of the chosen jets. Gives how many each has, (n_chosen,), and
    their pt, delta_eta and delta_phi, (3, n_constituents).
    """
    particles = np.empty((int(counts.sum()), 3))
    _gather(np.asarray(events, np.float64), counts, particles)
    kept = np.minimum(starts[chosen + 1] - starts[chosen], most)
    found = np.empty((3, int(kept.sum())), np.float32)
    _pick(particles, starts, members, chosen, axes, kept, np.empty(most, np.int64), found)
    return kept, found


@compiled
def _gather(events: Floats, counts: Integers, particles: Floats) -> None:
    n = 0
    for event in range(len(counts)):
        stop, slot = n + counts[event], 0
        while n < stop:
            if events[event, slot, 0] != 0.0:
                particles[n, 0] = events[event, slot, 0]
                particles[n, 1] = events[event, slot, 1]
                particles[n, 2] = events[event, slot, 2]
                n += 1
            slot += 1


@compiled
def _pick(
    particles: Floats,
    starts: Integers,
    members: Integers,
    chosen: Integers,
    axes: Floats,
    counts: Integers,
    kept: Integers,
    found: Singles,
) -> None:
    place = 0
    for jet in range(len(chosen)):
        most, n = counts[jet], 0
        # Insertion into a short list: a jet has some 70 constituents, most of them softer than all that is kept.
        for at in range(starts[chosen[jet]], starts[chosen[jet] + 1]):
            particle = members[at]
            pt = particles[particle, 0]
            if n == most:
                last = kept[n - 1]
                if pt < particles[last, 0] or (pt == particles[last, 0] and particle > last):
                    continue
                n -= 1
            slot = n
            while slot > 0:
                other = kept[slot - 1]
                if pt < particles[other, 0] or (pt == particles[other, 0] and particle > other):
                    break
                kept[slot] = other
                slot -= 1
            kept[slot] = particle
            n += 1
        for rank in range(n):
            particle = kept[rank]
            around = particles[particle, 2] - axes[jet, 1]
            found[0, place] = particles[particle, 0]
            found[1, place] = particles[particle, 1] - axes[jet, 0]
            found[2, place] = around - 2 * math.pi * np.rint(around / (2 * math.pi))
            place += 1
