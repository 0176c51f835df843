"""Vectors for numba: doubles, integers or marks (yes or no), one for each of the `N_LANES` lanes.

numba has scalars and arrays, and leaves it to LLVM to find vectors. Here LLVM is given them: eight lanes, `<8 x
double>`, where one register has so many (AVX-512), and four elsewhere: one register with AVX2, two with NEON or SSE2.
Eight in two registers each are more than AVX2 has registers for in the loop over slots. An operation rounds each lane
as the operation on scalars would, so the bits of a lane depend neither on the width of registers nor on the other
lanes, nor on how many there are.

In compiled functions:

- `+ - * / < <= > >= == !=` on doubles, `+ - * & | << >>` and comparisons on integers, `& |` on marks. A number beside
  a vector is spread over the lanes.
- `choose(marks, a, b)` is `a` where marked and `b` elsewhere; `least(a, b)` is `a` where a < b and `b` elsewhere.
- `lower(a, b)` and `higher(a, b)` are `min` and `max` of two numbers, which numba would compile for each call.
- `fused(a, b, c)` is a * b + c, rounded once; `root`, `magnitude` and `floor` are the square root, the absolute
  value and the next whole number below.
- `reals_as_bits`, `bits_as_reals` keep the 64 bits; `any_of(marks)` is one yes or no, `mask_of(marks)` a bit a lane,
  of which `lowest_of(mask)` is the place of the first that is set.
- Memory is an address, an integer from `address_of(array)`, and a place from there on: `get` and `put` one double,
  `get_int` and `put_int` one integer, places counted in ones; `row` and `put_row` a vector of doubles, `int_row` and
  `put_int_row` one of integers, counted in vectors. `look_up_two(address, places)` and `look_up_four`
  take two or four doubles side by side from the place of each lane, counted in twos or fours.
  Arrays cost more than half of the speed here (their bounds, their shapes, their counts of references). An address
  keeps nothing alive, so the array belongs to a caller that outlives the loop.

One file above 400 lines: a type, what converts to it and its operations are of no use without each other.
"""

import operator
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba import types
from numba.core import config
from numba.core.codegen import get_host_cpu_features
from numba.core.datamodel import models
from numba.core.registry import cpu_target
from numba.core.typing.templates import CallableTemplate
from numba.extending import intrinsic, lower_builtin, register_model, type_callable


def _count_lanes() -> int:
    """Doubles of a register of AVX-512 where numba may use it, half as many elsewhere."""
    features = get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    return 8 if "+avx512f" in features.split(",") else 4


N_LANES = _count_lanes()

typing_context = cpu_target.typing_context

Vector = Any
"""What a compiled function takes for a number or a mark of each lane."""
Function = TypeVar("Function", bound=Callable[..., Any])


def inlined(function: Function) -> Function:
    """Compile as a piece of the loop that calls it."""
    options = {
        "error_model": "numpy",
        "forceinline": True,
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
    }
    return cast("Function", _for_any_number(numba.njit(**options)(function)))


def apart(function: Function) -> Function:
    """Compile once for all loops that call it."""
    options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast("Function", _for_any_number(numba.njit(**options)(function)))


def _for_any_number(dispatcher: Any) -> Any:
    """Have numba compile a function once, not again for each number that is written in a call of it."""
    resolve = dispatcher.get_call_template

    def resolve_types(arguments: Any, by_name: Any) -> Any:
        named = {name: types.unliteral(kind) for name, kind in by_name.items()}
        return resolve(tuple(types.unliteral(kind) for kind in arguments), named)

    dispatcher.get_call_template = resolve_types
    return dispatcher


def _built_in(function: Callable[..., Any]) -> Any:
    """A function that writes LLVM's code itself."""
    return intrinsic(function)


def _typed(symbol: Callable[..., Any]) -> Callable[[Function], Function]:
    """What says the type of an operator's result."""
    return cast("Callable[[Function], Function]", type_callable(symbol))


_DOUBLE, _LONG, _BIT = ir.DoubleType(), ir.IntType(64), ir.IntType(1)


class Doubles(types.Type):  # type: ignore[misc]
    """A double for each lane."""

    element = _DOUBLE

    def __init__(self) -> None:
        super().__init__(name="Doubles")


class Longs(types.Type):  # type: ignore[misc]
    """An integer of 64 bits for each lane."""

    element = _LONG

    def __init__(self) -> None:
        super().__init__(name="Longs")


class Marks(types.Type):  # type: ignore[misc]
    """Yes or no for each lane."""

    element = _BIT

    def __init__(self) -> None:
        super().__init__(name="Marks")


doubles, longs, marks = Doubles(), Longs(), Marks()


@register_model(Doubles)
@register_model(Longs)
@register_model(Marks)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(kind.element, N_LANES))


def _spread(builder: ir.IRBuilder, value: ir.Value, given: types.Type, wanted: types.Type) -> ir.Value:
    """`value` in all lanes, unless it is a vector already."""
    if given == wanted:
        return value
    if wanted == doubles and isinstance(given, types.Integer):
        value = builder.sitofp(value, _DOUBLE)
    elif wanted == longs and value.type.width < _LONG.width:
        value = builder.sext(value, _LONG)
    vector = ir.VectorType(wanted.element, N_LANES)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), N_LANES), [0] * N_LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _fits(given: types.Type, kind: types.Type) -> bool:
    numbers = (types.Float, types.Integer) if kind == doubles else (types.Integer,)
    return given == kind or (kind != marks and isinstance(given, numbers))


def _operate(symbol: Callable[..., Any], emit: dict[types.Type, tuple[str, Any, types.Type]]) -> None:
    """Give an operator to vectors; `emit` says for each kind the builder's method, its first words, the result."""

    @_typed(symbol)
    def _type(context: Any) -> Callable[..., Any]:
        def typer(one: types.Type, other: types.Type) -> types.Type | None:
            for kind, (_, _, result) in emit.items():
                if kind in (one, other) and _fits(one, kind) and _fits(other, kind):
                    return result
            return None

        return typer

    def lower(kind: types.Type, method: str, words: tuple[Any, ...]) -> Callable[..., ir.Value]:
        def lowered(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            one, other = (
                _spread(builder, value, given, kind)
                for value, given in zip(arguments, signature.args, strict=True)
            )
            return getattr(builder, method)(*words, one, other)

        return lowered

    for kind, (method, words, _) in emit.items():
        beside = (
            (types.Float, types.Integer) if kind == doubles else (types.Integer,) if kind == longs else ()
        )
        lowered = lower(kind, method, words)
        lower_builtin(symbol, type(kind), type(kind))(lowered)
        for number in beside:
            lower_builtin(symbol, type(kind), number)(lowered)
            lower_builtin(symbol, number, type(kind))(lowered)
    _ask_first(symbol)


def _ask_first(symbol: Callable[..., Any]) -> None:
    """Have numba ask what was said of vectors before all that it knows of an operator: a tenth of compiling."""
    typing_context.refresh()
    known = typing_context.resolve_value_type(symbol)
    ours = tuple(one for one in known.templates if issubclass(one, CallableTemplate))
    known.templates = (*ours, *(one for one in known.templates if one not in ours))


_operate(operator.add, {doubles: ("fadd", (), doubles), longs: ("add", (), longs)})
_operate(operator.sub, {doubles: ("fsub", (), doubles), longs: ("sub", (), longs)})
_operate(operator.mul, {doubles: ("fmul", (), doubles), longs: ("mul", (), longs)})
_operate(operator.truediv, {doubles: ("fdiv", (), doubles)})
_operate(operator.and_, {longs: ("and_", (), longs), marks: ("and_", (), marks)})
_operate(operator.or_, {longs: ("or_", (), longs), marks: ("or_", (), marks)})
_operate(operator.lshift, {longs: ("shl", (), longs)})
_operate(operator.rshift, {longs: ("ashr", (), longs)})
for _symbol, _words in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    # "not equal" is true of what is not a number, as in Python; all others are false
    _of_doubles = "fcmp_unordered" if _words == "!=" else "fcmp_ordered"
    _operate(
        _symbol,
        {doubles: (_of_doubles, (_words,), marks), longs: ("icmp_signed", (_words,), marks)},
    )


def _call(builder: ir.IRBuilder, name: str, kind: ir.Type, *values: ir.Value) -> ir.Value:
    """Call one of LLVM's own functions."""
    function = builder.module.globals.get(name) or ir.Function(
        builder.module, ir.FunctionType(kind, [value.type for value in values]), name
    )
    return builder.call(function, values)


def _pointer(builder: ir.IRBuilder, address: ir.Value, place: ir.Value, item: ir.Type) -> ir.Value:
    return builder.gep(builder.inttoptr(address, item.as_pointer()), [place])


_REALS, _INTEGERS = ir.VectorType(_DOUBLE, N_LANES), ir.VectorType(_LONG, N_LANES)


def _memory(item: ir.Type, kind: types.Type) -> tuple[Any, Any]:
    """The pair of functions that read and write an `item`."""

    @_built_in
    def read(context: Any, address: Any, place: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return builder.load(_pointer(builder, arguments[0], arguments[1], item), align=8)

        return kind(types.intp, types.intp), generate

    @_built_in
    def write(context: Any, address: Any, place: Any, value: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            value = (
                arguments[2]
                if item in (_DOUBLE, _LONG)
                else _spread(builder, arguments[2], signature.args[2], kind)
            )
            builder.store(value, _pointer(builder, arguments[0], arguments[1], item), align=8)
            return context.get_dummy_value()

        taken = kind if isinstance(kind, types.Number) or value == kind else value
        return types.void(types.intp, types.intp, taken), generate

    return read, write


get, put = _memory(_DOUBLE, types.float64)
get_int, put_int = _memory(_LONG, types.int64)
row, put_row = _memory(_REALS, doubles)
int_row, put_int_row = _memory(_INTEGERS, longs)


@_built_in
def address_of(context: Any, array: Any) -> Any:
    """Where the first element of an array is."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.ptrtoint(made.data, _LONG)

    return types.intp(array), generate


def _look_up(n_parts: int) -> Any:
    """A function that takes `n_parts` doubles side by side from the place of each lane; `n_parts` vectors."""
    part = ir.VectorType(_DOUBLE, n_parts)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        address, places = arguments
        address = builder.inttoptr(address, part.as_pointer())
        found = []
        for lane in range(N_LANES):
            place = builder.extract_element(places, ir.Constant(ir.IntType(32), lane))
            found.append(builder.load(builder.gep(address, [place]), align=8))
        while len(found) > 1:  # side by side, two and two
            width = found[0].type.count
            order = ir.Constant(ir.VectorType(ir.IntType(32), 2 * width), list(range(2 * width)))
            found = [
                builder.shuffle_vector(*pair, order) for pair in zip(found[::2], found[1::2], strict=True)
            ]
        parts = []
        for k in range(n_parts):
            order = ir.Constant(
                ir.VectorType(ir.IntType(32), N_LANES), list(range(k, n_parts * N_LANES, n_parts))
            )
            parts.append(builder.shuffle_vector(found[0], found[0], order))
        return context.make_tuple(builder, signature.return_type, parts)

    @_built_in
    def look_up(context: Any, address: Any, places: Any) -> Any:
        return types.UniTuple(doubles, n_parts)(types.intp, longs), generate

    return look_up


@_built_in
def numbers(context: Any) -> Any:
    """The number of each lane, from 0."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return ir.Constant(_INTEGERS, list(range(N_LANES)))

    return longs(), generate


look_up_two, look_up_four = _look_up(2), _look_up(4)


@_built_in
def add_fours(context: Any, one: Any, other: Any, to: Any, also_to: Any) -> Any:
    """Add four doubles at one address to those at another; write the sums to two addresses."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        four = ir.VectorType(_DOUBLE, 4)
        one, other, *results = (builder.inttoptr(address, four.as_pointer()) for address in arguments)
        total = builder.fadd(builder.load(one, align=8), builder.load(other, align=8))
        for result in results:
            builder.store(total, result, align=8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), generate


def _function(name: str, n_arguments: int) -> Any:
    """One of LLVM's functions of doubles, lane by lane."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        values = [
            _spread(builder, value, given, doubles)
            for value, given in zip(arguments, signature.args, strict=True)
        ]
        return _call(builder, f"llvm.{name}.v{N_LANES}f64", _REALS, *values)

    if n_arguments == 1:

        @_built_in
        def of_one(context: Any, a: Any) -> Any:
            return doubles(a), generate

        return of_one

    @_built_in
    def of_three(context: Any, a: Any, b: Any, c: Any) -> Any:
        return doubles(a, b, c), generate

    return of_three


root, magnitude, floor = _function("sqrt", 1), _function("fabs", 1), _function("floor", 1)
fused = _function("fma", 3)


@_built_in
def choose(context: Any, marked: Any, one: Any, other: Any) -> Any:
    """`one` where marked, `other` elsewhere."""
    kind = longs if _fits(one, longs) and _fits(other, longs) else doubles

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, first, second = signature.args
        return builder.select(
            arguments[0],
            _spread(builder, arguments[1], first, kind),
            _spread(builder, arguments[2], second, kind),
        )

    return kind(marks, one, other), generate


@_built_in
def least(context: Any, one: Any, other: Any) -> Any:
    """`one` where it is less than `other`, `other` elsewhere."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        first, second = (
            _spread(builder, value, given, doubles)
            for value, given in zip(arguments, signature.args, strict=True)
        )
        return builder.select(builder.fcmp_ordered("<", first, second), first, second)

    return doubles(one, other), generate


def _either(symbol: str) -> Any:
    """A function of two numbers that is the second where it compares so to the first, as Python's `min` and `max`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        one, other = (
            context.cast(builder, value, given, signature.return_type)
            for value, given in zip(arguments, signature.args, strict=True)
        )
        compare = builder.icmp_signed if signature.return_type == types.int64 else builder.fcmp_ordered
        return builder.select(compare(symbol, other, one), other, one)

    @_built_in
    def either(context: Any, one: Any, other: Any) -> Any:
        both_whole = isinstance(one, types.Integer) and isinstance(other, types.Integer)
        return (types.int64 if both_whole else types.float64)(one, other), generate

    return either


lower, higher = _either("<"), _either(">")


@_built_in
def spread(context: Any, value: Any) -> Any:
    """A number in all lanes."""
    kind = doubles if isinstance(value, types.Float) else longs

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return _spread(builder, arguments[0], signature.args[0], kind)

    return kind(value), generate


@_built_in
def mask_of(context: Any, marked: Any) -> Any:
    """The marks as the lowest bits of an integer, the first lane's the lowest."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(N_LANES)), _LONG)

    return types.int64(marks), generate


@_built_in
def lowest_of(context: Any, mask: Any) -> Any:
    """The place of the lowest bit of an integer that is not 0."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.cttz(arguments[0], ir.Constant(_BIT, 1))

    return types.int64(types.int64), generate


@_built_in
def any_of(context: Any, marked: Any) -> Any:
    """Whether any lane is marked."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        bits = builder.bitcast(arguments[0], ir.IntType(N_LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(marks), generate


def _recast(to: types.Type, kind: ir.Type) -> Any:
    @_built_in
    def recast(context: Any, value: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return builder.bitcast(arguments[0], kind)

        return to(value), generate

    return recast


reals_as_bits, bits_as_reals = _recast(longs, _INTEGERS), _recast(doubles, _REALS)
