"""The desk on which the events of all lanes are clustered: its tables, each a place in one piece of memory.

Most are rows of a vector, a column a lane, for each particle, each slot or each sector of azimuth; what is known of
nodes stands lane after lane. A node is a particle or a sum of two nodes, and its name its number.
"""

from typing import Any, NamedTuple

from lhcq.jets.lanes import N_LANES, get_int, inlined, put_int

BLOCK = 4  # slots of which a pass notes the smallest merit and the smallest distance together
WINDOW = 16  # particles on each side in azimuth that a particle is compared with at the start
PAD = WINDOW + 1
N_SECTORS = (
    256  # of azimuth, into which particles are sorted; those behind the last particle of a lane have another
)
# Rows of the notes of each lane: what a turn leaves for the pass, what the pass leaves for the next turn, and how far
# the lane is.
ASKED_SLOT, ASKED_NAME, ASKED_RAP, ASKED_PHI, ASKED_WEIGHT, MERGED = 0, 1, 2, 3, 4, 5
NEAREST, NEAREST_AT, SMALLEST, SMALLEST_AT = 6, 7, 8, 9
CHOSEN, CHOSEN_NAME, CHOSEN_NEAR = 10, 11, 12
N_PARTICLES, LEFT, N_NODES, N_DONE = 13, 14, 15, 16
# Whether equal distances decided; for that, the mark that a row with two nearest leaves, the last merit that a pair
# or the beam was taken by, and whether it was the beam.
TIED, NEAREST_TIED, TAKEN, TAKEN_BY_BEAM, N_NOTES = 17, 18, 19, 20, 21
GONE = -1  # the slot of a node that is no pseudojet any more
EQUAL = 1 << 40  # beside the name of a nearest neighbour: another is as near


class Desk(NamedTuple):
    """Addresses of the tables of as many events as there are lanes, of at most `most` particles."""

    most: int
    n_lanes: int  # which the compiler may not know, or it writes every turn once for each
    # of particles: direction, and what is known of the nearest neighbour at the start
    particle_rap: int
    particle_phi: int
    particle_pt2: int
    particle_distance: int
    particle_near: int
    sector: int
    # of slots, one more than can be filled: what there is nothing to do with is written there
    rap: int
    phi: int
    distance: int
    merit: int
    near: int
    weight: int
    name: int
    to_asked: int  # R^2 to the pseudojet that asked for the last row
    # of nodes, lane after lane: momentum (px, py, pz, e), slot while it is a pseudojet, two parents; complete ones
    momenta: int
    slots: int
    links: int
    done: int
    # notes, see above, momenta of the sums (n_lanes, 4), and scratch
    notes: int
    sums: int
    scratch: int
    # in the order of azimuth, and of sectors
    sorted_rap: int
    sorted_phi: int
    sorted_edge: int
    sorted_slot: int
    sectors: int


_ROW = 8 * N_LANES  # bytes


def rows_of(most: int) -> tuple[int, ...]:
    """How many rows of a vector each table of a desk takes, in the order of `Desk`."""
    # odd numbers of rows: those of one slot are in different sets of the nearest cache
    slots, ordered = (most + BLOCK + 1) | 1, (most + 1 + 2 * PAD) | 1
    return (
        *(slots, slots, slots, slots, slots, slots),
        *(slots, slots, slots, slots, slots, slots, slots, slots),
        *(8 * most, 2 * most, 4 * most, most),
        *(N_NOTES, 4, 4),
        *(ordered, ordered, ordered, ordered, N_SECTORS + 1),
    )


def room_for(most: int) -> int:
    """Doubles that a desk for events of `most` particles takes."""
    return N_LANES * (sum(rows_of(most)) + 1)


_rows_of = inlined(rows_of)


@inlined
def lay_out(address: int, most: int, n_lanes: int) -> Any:
    """The desk in the `room_for(most)` doubles from an address on."""
    rows = _rows_of(most)
    particle_rap = (address + _ROW - 1) & -_ROW
    particle_phi = particle_rap + rows[0] * _ROW
    particle_pt2 = particle_phi + rows[1] * _ROW
    particle_distance = particle_pt2 + rows[2] * _ROW
    particle_near = particle_distance + rows[3] * _ROW
    sector = particle_near + rows[4] * _ROW
    rap = sector + rows[5] * _ROW
    phi = rap + rows[6] * _ROW
    distance = phi + rows[7] * _ROW
    merit = distance + rows[8] * _ROW
    near = merit + rows[9] * _ROW
    weight = near + rows[10] * _ROW
    name = weight + rows[11] * _ROW
    to_asked = name + rows[12] * _ROW
    momenta = to_asked + rows[13] * _ROW
    slots = momenta + rows[14] * _ROW
    links = slots + rows[15] * _ROW
    done = links + rows[16] * _ROW
    notes = done + rows[17] * _ROW
    sums = notes + rows[18] * _ROW
    scratch = sums + rows[19] * _ROW
    sorted_rap = scratch + rows[20] * _ROW
    sorted_phi = sorted_rap + rows[21] * _ROW
    sorted_edge = sorted_phi + rows[22] * _ROW
    sorted_slot = sorted_edge + rows[23] * _ROW
    sectors = sorted_slot + rows[24] * _ROW
    return Desk(
        most,
        n_lanes,
        particle_rap,
        particle_phi,
        particle_pt2,
        particle_distance,
        particle_near,
        sector,
        rap,
        phi,
        distance,
        merit,
        near,
        weight,
        name,
        to_asked,
        momenta,
        slots,
        links,
        done,
        notes,
        sums,
        scratch,
        sorted_rap,
        sorted_phi,
        sorted_edge,
        sorted_slot,
        sectors,
    )


@inlined
def spare_slot(desk: Any) -> Any:
    """The slot that no pass looks at."""
    return desk.most + BLOCK


@inlined
def momentum_of(desk: Any, lane: int, node: int) -> Any:
    """The address of a node's px, py, pz and e."""
    return desk.momenta + 32 * (2 * desk.most * lane + node)


@inlined
def slot_of(desk: Any, lane: int, node: int) -> Any:
    """The address of a node's slot."""
    return desk.slots + 8 * (2 * desk.most * lane + node)


@inlined
def links_of(desk: Any, lane: int, node: int) -> Any:
    """The address of the names of a node's parents."""
    return desk.links + 16 * (2 * desk.most * lane + node)


@inlined
def set_count(desk: Any, lane: int, n: int) -> None:
    """Say how many particles a lane has; their momenta are those of the nodes from 0 on."""
    put_int(desk.notes, N_LANES * N_PARTICLES + lane, n)


@inlined
def count_of(desk: Any, lane: int) -> Any:
    """How many particles a lane has."""
    return get_int(desk.notes, N_LANES * N_PARTICLES + lane)
