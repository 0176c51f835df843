"""The laws of vectors: what an operation does to a lane is what it does to a number, bit for bit."""

import math
import operator

import numba
import numpy as np
import pytest

from lhcq.jets import lanes
from lhcq.jets.lanes import (
    N_LANES,
    add_fours,
    address_of,
    any_of,
    apart,
    bits_as_reals,
    choose,
    fused,
    get,
    get_int,
    higher,
    inlined,
    int_row,
    look_up_four,
    look_up_two,
    lower,
    lowest_of,
    mask_of,
    numbers,
    put,
    put_int,
    put_int_row,
    put_row,
    reals_as_bits,
    row,
    spread,
)

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    math.inf,
    -math.inf,
    math.nan,
    5e-324,
    1e308,
    1 + 2**-52,
    2**53 + 2.0,
    -1e-300,
]
ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def same_bits(one, other) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    both_nan = np.isnan(one) & np.isnan(other)
    return bool(((one.view(np.int64) == other.view(np.int64)) | both_nan).all())


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Special numbers with each other, and ordinary ones; whole vectors."""
    rng = np.random.default_rng(1)
    a, b = np.meshgrid(SPECIAL, SPECIAL)
    others = rng.normal(0, 1, (2, 112)) * np.exp(rng.uniform(-300, 300, (2, 112)))
    return np.concatenate([a.ravel(), others[0]]), np.concatenate([b.ravel(), others[1]])


def compile_loop(source: str):
    """A loop over vectors a, b of `lines`, whose result is put into `out`."""
    names = {**{name: getattr(lanes, name) for name in dir(lanes)}, "numba": numba}
    exec(  # noqa: S102 - one loop for each operator
        "def loop(one, other, out):\n"
        "    for k in range(len(one) // N_LANES):\n"
        "        a, b = row(address_of(one), k), row(address_of(other), k)\n"
        f"        put_row(address_of(out), k, {source})\n",
        names,
    )
    return numba.njit(error_model="numpy")(names["loop"])


def apply(source: str) -> np.ndarray:
    a, b = pairs()
    out = np.empty_like(a)
    compile_loop(source)(a, b, out)
    return out


@pytest.mark.parametrize("symbol", sorted(ARITHMETIC))
def test_arithmetic_rounds_each_lane_as_it_rounds_a_number(symbol):
    a, b = pairs()
    with np.errstate(all="ignore"):
        assert same_bits(apply(f"a {symbol} b"), ARITHMETIC[symbol](a, b))
        assert same_bits(apply(f"a {symbol} 3.0"), ARITHMETIC[symbol](a, 3.0))
        assert same_bits(apply(f"3 {symbol} b"), ARITHMETIC[symbol](3.0, b))


@pytest.mark.parametrize("symbol", sorted(COMPARISONS))
def test_comparisons_and_choice_agree_with_numbers_also_with_what_is_none(symbol):
    a, b = pairs()
    assert same_bits(apply(f"choose(a {symbol} b, a, b)"), np.where(COMPARISONS[symbol](a, b), a, b))


def test_functions_of_doubles_are_those_of_numbers():
    a, b = pairs()
    with np.errstate(all="ignore"):
        assert same_bits(apply("root(a)"), np.sqrt(a))
        assert same_bits(apply("magnitude(a)"), np.abs(a))
        assert same_bits(apply("floor(a)"), np.floor(a))
        assert same_bits(apply("least(a, b)"), np.where(a < b, a, b))


@numba.njit
def lower_and_higher(a, b):
    return lower(a, b), higher(a, b)


@pytest.mark.parametrize(
    ("a", "b"), [*((a, b) for a in SPECIAL for b in SPECIAL), (3, -4), (-4, 3), (7, 7), (2, 2.5), (0.5, 1)]
)
def test_the_lower_and_the_higher_of_two_numbers_are_those_of_python(a, b):
    found, expected = lower_and_higher(a, b), (min(a, b), max(a, b))
    if isinstance(a, int) and isinstance(b, int):
        assert found == expected
        assert all(isinstance(one, int) for one in found)
    else:
        assert same_bits(np.array(found), np.array(expected, np.float64))


def test_marks_are_joined_lane_by_lane():
    a, b = pairs()
    assert same_bits(apply("choose((a < b) & (b < 1.0), a, b)"), np.where((a < b) & (b < 1.0), a, b))
    assert same_bits(apply("choose((a < b) | (b < 1.0), a, b)"), np.where((a < b) | (b < 1.0), a, b))


def test_a_fused_product_and_sum_is_rounded_once():
    one, other, third = 1 + 2**-30, 1 - 2**-30, -1.0

    @numba.njit
    def run(out):
        put_row(address_of(out), 0, fused(spread(one), spread(other), spread(third)))
        put_row(address_of(out), 1, spread(one) * spread(other) + spread(third))

    out = np.empty((2, N_LANES))
    run(out)
    assert out.tolist() == [[-(2.0**-60)] * N_LANES, [0.0] * N_LANES]


def test_integers_shift_mask_and_keep_the_bits_of_doubles():
    @numba.njit
    def run(given, out):
        bits = reals_as_bits(row(address_of(given), 0))
        put_int_row(address_of(out), 0, (bits >> 52) & 2047)
        put_int_row(address_of(out), 1, (bits << 1) | 1)
        put_int_row(address_of(out), 2, numbers() + 10 - spread(1))
        put_int_row(address_of(out), 3, reals_as_bits(bits_as_reals(int_row(address_of(out), 1))))
        put_int_row(address_of(out), 4, choose(numbers() > 1, numbers(), -1))
        put_int_row(address_of(out), 5, numbers() * 3 * numbers())
        return (
            mask_of(numbers() == 2) + mask_of(numbers() < 2),
            any_of(numbers() == N_LANES),
            any_of(numbers() == N_LANES - 1),
            lowest_of(mask_of(numbers() > 2)),
        )

    given, out, lane = np.array(SPECIAL[:N_LANES]), np.empty((6, N_LANES), np.int64), np.arange(N_LANES)
    assert run(given, out) == (0b111, False, True, 3)
    bits = given.view(np.int64)
    assert out[0].tolist() == ((bits >> 52) & 2047).tolist()
    assert out[1].tolist() == ((bits << 1) | 1).tolist()
    assert out[2].tolist() == (lane + 9).tolist()
    assert out[3].tolist() == out[1].tolist()
    assert out[4].tolist() == [-1, -1, *range(2, N_LANES)]
    assert out[5].tolist() == (3 * lane * lane).tolist()


def test_memory_is_read_and_written_where_an_address_and_a_place_say():
    table, whole, out = np.arange(64.0), np.arange(2 * N_LANES), np.zeros((4, N_LANES))

    @numba.njit
    def run(table, whole, out):
        places = int_row(address_of(whole), 1)
        a, b = look_up_two(address_of(table), places)
        _, _, c, d = look_up_four(address_of(table), places)
        for at, found in enumerate((a, b, c, d)):
            put_row(address_of(out), at, found)
        put(address_of(table), 3, get(address_of(table), 4) + 100)
        put_int(address_of(whole), 0, get_int(address_of(whole), 7) + 100)
        start = address_of(table)
        add_fours(start + 8 * 8, start + 8 * 12, start + 8 * 16, start + 8 * 20)

    run(table, whole, out)
    places = np.arange(N_LANES, 2 * N_LANES)
    assert out.tolist() == [
        (2 * places).tolist(),
        (2 * places + 1).tolist(),
        (4 * places + 2).tolist(),
        (4 * places + 3).tolist(),
    ]
    assert (table[3], whole[0]) == (104.0, 107)
    assert table[16:24].tolist() == [20.0, 22.0, 24.0, 26.0] * 2


@pytest.mark.parametrize("symbol", [*ARITHMETIC.values(), *COMPARISONS.values()])
def test_numba_is_told_of_vectors_before_it_tries_all_that_an_operator_can_be(symbol):
    asked = lanes.typing_context.resolve_value_type(symbol).templates[0](lanes.typing_context)
    assert asked.apply((lanes.doubles, lanes.doubles), {}) is not None
    assert asked.apply((numba.float64, numba.float64), {}) is None


def test_scalars_beside_a_vector_must_fit_it():
    with pytest.raises(numba.TypingError):
        compile_loop("a & 1")(*pairs(), np.empty(256))


@pytest.mark.parametrize("piece", [inlined, apart])
def test_a_function_is_compiled_once_whatever_numbers_stand_in_its_calls(piece):
    more = piece(lambda number, by: number + by)

    @numba.njit
    def run(number):
        total = 0  # a number too, until the second turn
        for _ in range(2):
            total = more(total, 2) + more(number, 3) + more(5, by=number)
        return total

    assert run(7) == 2 * (2 + (7 + 3) + (5 + 7))
    assert len(more.overloads) == 1
