"""Which of an event's jets count, and in which order: by falling pt, and of equal ones as FastJet has them.

FastJet lists its jets from the last that was complete to the first and sorts that list by the square of pt, by
`std::sort`. That leaves equal ones as they stand where there are at most 16 jets; a longer list is cut into pieces
first, by the median of three, which exchanges some. The same is done here, as GNU's library does it: with another
one FastJet's order of equal jets is another.
"""

from typing import Any

from lhcq.jets.desk import N_DONE, momentum_of
from lhcq.jets.lanes import N_LANES, get, get_int, inlined, put, put_int
from lhcq.jets.recombination import KT

_SHORT = 16  # what is not cut any more


@inlined
def pt2_of(desk: Any, lane: int, node: int) -> Any:
    """The square of a node's pt."""
    px, py = get(momentum_of(desk, lane, node), 0), get(momentum_of(desk, lane, node), 1)
    return px * px + py * py


@inlined
def order_jets(desk: Any, lane: int, done: int, power: int, radius: float, pt_min: float) -> int:
    """Bring those of `done` that have `pt_min` to the front, the hardest first, and say how many they are.

    FastJet compares squares; of kt it has their distance to the beam, pt^2 times R^2 and over it.
    """
    n_kept, pt2s, kept = 0, desk.sorted_rap, desk.sorted_slot
    for back in range(get_int(desk.notes, N_LANES * N_DONE + lane), 0, -1):
        node = get_int(done, back - 1)
        pt2 = pt2_of(desk, lane, node)
        scale = pt2 * (radius * radius) * (1.0 / (radius * radius)) if power == KT else pt2
        if scale >= pt_min * pt_min:
            put(pt2s, n_kept, pt2)
            put_int(kept, n_kept, node)
            n_kept += 1
    _cut(pt2s, kept, n_kept, desk.sector)
    for k in range(n_kept):
        pt2, node, place = get(pt2s, k), get_int(kept, k), k
        while place > 0 and get(pt2s, place - 1) < pt2:
            put(pt2s, place, get(pt2s, place - 1))
            put_int(done, place, get_int(done, place - 1))
            place -= 1
        put(pt2s, place, pt2)
        put_int(done, place, node)
    return n_kept


@inlined
def _cut(keys: int, nodes: int, n: int, stack: int) -> None:
    """Cut a list into pieces of at most 16, each with larger keys than the next; the stack has the pieces to cut."""
    put_int(stack, 0, 0)
    put_int(stack, 1, n)
    depth = 2
    while depth > 0:
        depth -= 2
        first, last = get_int(stack, depth), get_int(stack, depth + 1)
        while last - first > _SHORT:
            middle = _part(keys, nodes, first, last)
            put_int(stack, depth, middle)
            put_int(stack, depth + 1, last)
            depth += 2
            last = middle


@inlined
def _part(keys: int, nodes: int, first: int, last: int) -> int:
    """Bring what is larger than the median of three to the front, and say where the rest begins."""
    a, b, c = get(keys, first + 1), get(keys, first + (last - first) // 2), get(keys, last - 1)
    if a > b:
        median = first + (last - first) // 2 if b > c else (last - 1 if a > c else first + 1)
    else:
        median = first + 1 if a > c else (last - 1 if b > c else first + (last - first) // 2)
    _exchange(keys, nodes, first, median)
    pivot, low, high = get(keys, first), first + 1, last
    while True:
        while get(keys, low) > pivot:
            low += 1
        high -= 1
        while pivot > get(keys, high):
            high -= 1
        if low >= high:
            return low
        _exchange(keys, nodes, low, high)
        low += 1


@inlined
def _exchange(keys: int, nodes: int, one: int, other: int) -> None:
    key, node = get(keys, one), get_int(nodes, one)
    put(keys, one, get(keys, other))
    put_int(nodes, one, get_int(nodes, other))
    put(keys, other, key)
    put_int(nodes, other, node)
