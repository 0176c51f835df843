"""Substructure of jets: what `records.SUBSTRUCTURE` names, and how each is defined.

All from the constituents of a jet as the clustering left them, reclustered in the E-scheme; R_ij is the distance in
rapidity and azimuth (GeV and radians throughout):

- tau1 to tau4: N-subjettiness (arXiv:1011.2268) with beta = 1, sum_i pt_i min_k R_ik, not normalised, in GeV
  (fjcontrib's `UnnormalizedMeasure(1)`), about one of the sets of axes k of `lhcq.jets.axes`. 0.0 where a jet has no
  more than N constituents.
- m_sd, z_g: mass and momentum fraction after soft drop (arXiv:1402.2657) with beta = 0, z_cut = 0.1, where the
  choice of R0 does not matter; Cambridge/Aachen tree, the harder branch is followed. Where no splitting passes, the
  last particle of that branch is the groomed jet and z_g is 0.0.
- width: tau1 about the kt axis, which is the jet's own, over sum_i pt_i.
- z1, z2: pt of the harder and the softer of the two exclusive kt subjets over the jet's pt; 1.0 and 0.0 for a jet of
  one particle, and for one whose pt vanishes.
- c2, d2: e3 / e2^2 and e3 / e2^3 (arXiv:1305.0007, arXiv:1409.6298) of the energy correlators with beta = 1 and pt,
  normalised by the sum of pt; 0.0 where e2 is 0.

A mass is 0.0 where rounding makes its square negative. No value is ever NaN or infinite.
"""

import numpy as np

from lhcq.config import Axes
from lhcq.jets.axes import KINDS
from lhcq.jets.compiling import room_of
from lhcq.jets.correlations import room_to_correlate
from lhcq.jets.desk import room_for
from lhcq.jets.kernels import AXES_ROOM, MEASURES, measure_jets
from lhcq.jets.libm import lanes_for_libm
from lhcq.jets.vectors import Floats, FourVectors, Integers
from lhcq.records.events import SUBSTRUCTURE

Z_CUT = 0.1
N_LEADING = 2  # jets of an event that are measured

if [field.name for field in SUBSTRUCTURE] != list(MEASURES):  # two lists of one thing
    raise ImportError("lhcq.records.events and lhcq.jets.kernels disagree about the columns")


def measure_substructure(
    particles: FourVectors, starts: Integers, members: Integers, chosen: Integers, pt: Floats, axes: Axes
) -> tuple[Floats, Integers]:
    """The columns of `records.SUBSTRUCTURE`, (n_chosen, 11), of the jets `chosen` (n_chosen,) of a list.

    Jet k of the list consists of `particles` number `members[starts[k]:starts[k + 1]]`; `pt` (n_chosen,) are the pt
    of the chosen ones, GeV; tau_N is about `axes`. Beside it where equal distances decided: 1, else 0, (n_chosen,).
    """
    out, ties = np.empty((len(chosen), len(MEASURES))), np.zeros(len(chosen), np.int64)
    counts = starts[chosen + 1] - starts[chosen]
    most = int(counts.max(initial=1))
    measure_jets(
        particles.px,
        particles.py,
        particles.pz,
        particles.e,
        starts,
        members,
        chosen,
        np.argsort(counts, kind="stable"),
        pt,
        Z_CUT,
        KINDS[axes],
        lanes_for_libm("directions"),
        room_of("desk", room_for(most)),
        room_of("axes", AXES_ROOM),
        room_of("matrix", room_to_correlate(most)),
        out,
        ties,
    )
    return out, ties
