"""The kernels of `lhcq.model.decoder`, in Triton: norms, gates, rotations, LoRA's sums, NF4 unpacked, rows in 8 bits.

All compute in float32 and round once, to the type of what they write. A row in 8 bits is e4m3 with a scale of its
own, its largest magnitude over 448. Imported only where there is a GPU: torch brings Triton there, and nowhere else.

One file above 400 lines, each kernel beside the function that launches it: they are what a GPU runs in the place of
torch's, share how rows are packed and blocks are cut, and are imported together or not at all.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

FP8 = torch.float8_e4m3fn
_CHUNK = 4096
_TILE, _TILE_OF_LORA = (16, 2, 1), (16, 1, 1)
"""Rows, blocks of 64 columns and warps of what unpacks NF4: what was fastest on an H200."""


class Packed(NamedTuple):
    """Rows in 8 bits: values `(rows, width)` and a scale a row, `(rows, 1)` float32."""

    values: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def empty(cls, rows: int, width: int, device: torch.device) -> "Packed":
        """Room for them."""
        return cls(
            torch.empty(rows, width, dtype=FP8, device=device),
            torch.empty(rows, 1, dtype=torch.float32, device=device),
        )


def _warps(elements: int) -> int:
    return max(1, min(16, elements // 512))


@triton.jit
def _norm(x, weight, y, packed, scales, eps, width, BLOCK: tl.constexpr, PACK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(value * value) / width + eps)
    value = value * inverse * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + at, value.to(y.dtype.element_ty), mask=inside)
    if PACK:
        scale = tl.maximum(tl.max(tl.abs(value)) / 448.0, 1e-30)
        tl.store(packed + row * width + at, (value / scale).to(packed.dtype.element_ty), mask=inside)
        tl.store(scales + row, scale)


def norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, *, pack: bool
) -> tuple[torch.Tensor, Packed | None]:
    """`weight` x over its root mean square, `(rows, width)`, and the same in 8 bits if asked for."""
    rows, width = x.shape
    y = torch.empty_like(x)
    packed = Packed.empty(rows, width, x.device) if pack else None
    block = triton.next_power_of_2(width)
    _norm[(rows,)](
        x, weight, y, *(packed or (y, y)), eps, width, BLOCK=block, PACK=pack, num_warps=_warps(block)
    )
    return y, packed


@triton.jit
def _norm_backward(grad, x, weight, passed, out, eps, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(value * value) / width + eps)
    pulled = tl.load(grad + row * width + at, mask=inside, other=0.0).to(tl.float32)
    pulled = pulled * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    along = tl.sum(pulled * value) * inverse * inverse / width
    result = (pulled - value * along) * inverse
    result += tl.load(passed + row * width + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, result.to(out.dtype.element_ty), mask=inside)


def norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float, passed: torch.Tensor
) -> torch.Tensor:
    """The gradient of x from that of its norm, plus what was `passed` to x by other ways."""
    rows, width = x.shape
    out = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    _norm_backward[(rows,)](grad, x, weight, passed, out, eps, width, BLOCK=block, num_warps=_warps(block))
    return out


@triton.jit
def _pack(x, columns, packed, scales, width, BLOCK: tl.constexpr, SCALED: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < width
        value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
        if SCALED:
            value *= tl.load(columns + at, mask=inside, other=0.0)
        largest = tl.maximum(largest, tl.abs(value))
    scale = tl.maximum(tl.max(largest) / 448.0, 1e-30)
    tl.store(scales + row, scale)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < width
        value = tl.load(x + row * width + at, mask=inside, other=0.0).to(tl.float32)
        if SCALED:
            value *= tl.load(columns + at, mask=inside, other=0.0)
        tl.store(packed + row * width + at, (value / scale).to(packed.dtype.element_ty), mask=inside)


def pack(x: torch.Tensor, columns: torch.Tensor | None = None) -> Packed:
    """`x` `(rows, width)` in 8 bits, each column first times its value in `columns`."""
    rows, width = x.shape
    packed = Packed.empty(rows, width, x.device)
    block = min(_CHUNK, triton.next_power_of_2(width))
    scaled = columns is not None
    _pack[(rows,)](
        x, columns if scaled else x, *packed, width, BLOCK=block, SCALED=scaled, num_warps=_warps(block)
    )
    return packed


@triton.jit
def _gate(both, y, packed, scales, width, BLOCK: tl.constexpr, PACK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < width
        gate = tl.load(both + row * 2 * width + at, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(both + row * 2 * width + width + at, mask=inside, other=0.0).to(tl.float32)
        value = gate * tl.sigmoid(gate) * up
        largest = tl.maximum(largest, tl.abs(value))
        tl.store(y + row * width + at, value.to(y.dtype.element_ty), mask=inside)
    if PACK:
        scale = tl.maximum(tl.max(largest) / 448.0, 1e-30)
        tl.store(scales + row, scale)
        tl.debug_barrier()  # what follows reads what other threads have written
        for start in range(0, width, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < width
            value = tl.load(y + row * width + at, mask=inside, other=0.0).to(tl.float32)
            tl.store(packed + row * width + at, (value / scale).to(packed.dtype.element_ty), mask=inside)


def gate(both: torch.Tensor, *, pack: bool) -> tuple[torch.Tensor, Packed | None]:
    """silu(gate) times up, `(rows, width)`, of `both` side by side, `(rows, 2 width)`; in 8 bits too if asked."""
    rows, width = both.shape[0], both.shape[1] // 2
    y = both.new_empty(rows, width)
    packed = Packed.empty(rows, width, both.device) if pack else None
    block = min(_CHUNK, triton.next_power_of_2(width))
    _gate[(rows,)](both, y, *(packed or (y, y)), width, BLOCK=block, PACK=pack, num_warps=_warps(block))
    return y, packed


@triton.jit
def _gate_backward(  # type: ignore[no-untyped-def]
    both, grad, columns, y, out, packed, scales, width, BLOCK: tl.constexpr, PACK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < width
        place = row * 2 * width + at
        gate = tl.load(both + place, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(both + place + width, mask=inside, other=0.0).to(tl.float32)
        pulled = tl.load(grad + row * width + at, mask=inside, other=0.0).to(tl.float32)
        share = tl.sigmoid(gate)
        silu = gate * share
        to_gate = pulled * up * share * (1.0 + gate * (1.0 - share))
        to_up = pulled * silu
        tl.store(y + row * width + at, (silu * up).to(y.dtype.element_ty), mask=inside)
        tl.store(out + place, to_gate.to(out.dtype.element_ty), mask=inside)
        tl.store(out + place + width, to_up.to(out.dtype.element_ty), mask=inside)
        if PACK:
            to_gate *= tl.load(columns + at, mask=inside, other=0.0)
            to_up *= tl.load(columns + width + at, mask=inside, other=0.0)
            largest = tl.maximum(largest, tl.maximum(tl.abs(to_gate), tl.abs(to_up)))
    if PACK:
        scale = tl.maximum(tl.max(largest) / 448.0, 1e-30)
        tl.store(scales + row, scale)
        tl.debug_barrier()  # what follows reads what other threads have written
        for start in range(0, 2 * width, BLOCK):
            at = start + tl.arange(0, BLOCK)
            inside = at < 2 * width
            place = row * 2 * width + at
            value = tl.load(out + place, mask=inside, other=0.0).to(tl.float32)
            value *= tl.load(columns + at, mask=inside, other=0.0)
            tl.store(packed + place, (value / scale).to(packed.dtype.element_ty), mask=inside)


def gate_backward(
    both: torch.Tensor, grad: torch.Tensor, columns: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, Packed | None]:
    """The gate's output again, the gradient of `both` from the output's, and that in 8 bits if there are `columns`.

    As in `pack`, each column is first times its value there.
    """
    rows, width = grad.shape
    y, out = torch.empty_like(grad), torch.empty_like(both)
    packs = columns is not None
    packed = Packed.empty(rows, 2 * width, both.device) if packs else None
    block = min(_CHUNK // 2, triton.next_power_of_2(width))
    _gate_backward[(rows,)](
        both,
        grad,
        columns if packs else both,
        y,
        out,
        *(packed or (y, y)),
        width,
        BLOCK=block,
        PACK=packs,
        num_warps=_warps(block),
    )
    return y, out, packed


@triton.jit
def _add_lora(  # type: ignore[no-untyped-def]
    y, inner, b, residual, scale, rows, width, rank, ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANK: tl.constexpr,
    ADD: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    along = tl.arange(0, RANK)
    left = tl.load(
        inner + row * rank + along[None, :], mask=(row < rows) & (along[None, :] < rank), other=0.0
    )
    right = tl.load(
        b + column * rank + along[:, None], mask=(column < width) & (along[:, None] < rank), other=0.0
    )
    inside = (row < rows) & (column < width)
    total = tl.load(y + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        total += tl.load(residual + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if EXACT:
        total += scale * tl.dot(left, right, input_precision="ieee")
    else:
        total += scale * tl.dot(left, right)
    tl.store(y + row * width + column, total.to(y.dtype.element_ty), mask=inside)


def add_lora(
    y: torch.Tensor,
    inner: torch.Tensor,
    b: torch.Tensor,
    scale: float,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add `scale` times `inner` `(rows, rank)` times `b` `(width, rank)`, and the `residual`, to `y`; round once."""
    rows, width = y.shape
    rank = inner.shape[1]
    tile = (64, 128)
    grid = (triton.cdiv(width, tile[1]), triton.cdiv(rows, tile[0]))
    _add_lora[grid](
        y,
        inner,
        b,
        y if residual is None else residual,
        scale,
        rows,
        width,
        rank,
        ROWS=tile[0],
        COLUMNS=tile[1],
        RANK=max(16, triton.next_power_of_2(rank)),
        ADD=residual is not None,
        EXACT=y.dtype == torch.float32,
        num_warps=4,
    )
    return y


class Heads(NamedTuple):
    """How the outputs of query, key and value, beside each other in a row, are laid out for attention."""

    rows: int
    length: int
    shared: int
    """Tokens at the beginning of all rows, which are there once, before all others."""
    queries: int
    keys: int
    """Heads of the keys, and of the values."""
    half: int
    """Half of a head's size."""

    @property
    def tokens(self) -> int:
        """Rows of what is there once each."""
        return self.shared + self.rows * (self.length - self.shared)

    @property
    def blocks(self) -> dict[str, int]:
        """The sizes of a tile that holds all heads of a token."""
        total = self.queries + 2 * self.keys
        return {"HEADS": triton.next_power_of_2(total), "HALF": triton.next_power_of_2(self.half)}


@triton.jit
def _split_heads(  # type: ignore[no-untyped-def]
    x, cos, sin, q, k, v, shared, length, queries, keys, half, HEADS: tl.constexpr, HALF: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    place = token % length
    source = tl.where(place < shared, place, token // length * (length - shared) + place)
    head = tl.arange(0, HEADS)[:, None]
    at = tl.arange(0, HALF)[None, :]
    size = 2 * half
    total = queries + 2 * keys
    inside = (head < total) & (at < half)
    first = tl.load(x + (source * total + head) * size + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + (source * total + head) * size + half + at, mask=inside, other=0.0).to(tl.float32)
    angle = place * size + at
    turned = (head < queries + keys) & (at < half)
    cos1 = tl.load(cos + angle + 0 * head, mask=turned, other=1.0).to(tl.float32)
    cos2 = tl.load(cos + angle + half + 0 * head, mask=turned, other=1.0).to(tl.float32)
    sin1 = tl.load(sin + angle + 0 * head, mask=turned, other=0.0).to(tl.float32)
    sin2 = tl.load(sin + angle + half + 0 * head, mask=turned, other=0.0).to(tl.float32)
    one = (first * cos1 - second * sin1).to(q.dtype.element_ty)
    two = (second * cos2 + first * sin2).to(q.dtype.element_ty)
    is_q = inside & (head < queries)
    is_k = inside & (head >= queries) & (head < queries + keys)
    is_v = inside & (head >= queries + keys)
    to_q = q + (token * queries + head) * size + at
    to_k = k + (token * keys + head - queries) * size + at
    to_v = v + (token * keys + head - queries - keys) * size + at
    tl.store(to_q, one, mask=is_q)
    tl.store(to_q + half, two, mask=is_q)
    tl.store(to_k, one, mask=is_k)
    tl.store(to_k + half, two, mask=is_k)
    tl.store(to_v, one, mask=is_v)
    tl.store(to_v + half, two, mask=is_v)


def split_heads(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, heads: Heads
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotated queries and keys, and values, `(rows, length, heads, size)`, of `x` `(tokens, all heads' sizes)`.

    `cos` and `sin` are `(length, size)`.
    """
    size = 2 * heads.half
    q = x.new_empty(heads.rows, heads.length, heads.queries, size)
    k, v = (x.new_empty(heads.rows, heads.length, heads.keys, size) for _ in range(2))
    _split_heads[(heads.rows * heads.length,)](
        x,
        cos,
        sin,
        q,
        k,
        v,
        heads.shared,
        heads.length,
        heads.queries,
        heads.keys,
        heads.half,
        **heads.blocks,
    )
    return q, k, v


@triton.jit
def _join_heads(  # type: ignore[no-untyped-def]
    q, k, v, cos, sin, out, rows, shared, length, queries, keys, half,
    HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    common = token < shared
    own = (token - shared) // (length - shared)
    place = tl.where(common, token, token - own * (length - shared))
    head = tl.arange(0, HEADS)[:, None]
    at = tl.arange(0, HALF)[None, :]
    size = 2 * half
    total = queries + 2 * keys
    inside = (head < total) & (at < half)
    one = tl.zeros((HEADS, HALF), tl.float32)
    two = tl.zeros((HEADS, HALF), tl.float32)
    for row in range(tl.where(common, 0, own), tl.where(common, rows, own + 1)):
        there = row * length + place
        of_q = q + (there * queries + head) * size
        of_k = k + (there * keys + head - queries) * size
        of_v = v + (there * keys + head - queries - keys) * size
        source = tl.where(head < queries, of_q, tl.where(head < queries + keys, of_k, of_v)) + at
        one += tl.load(source, mask=inside, other=0.0).to(tl.float32)
        two += tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    angle = place * size + at
    turned = (head < queries + keys) & (at < half)
    cos1 = tl.load(cos + angle + 0 * head, mask=turned, other=1.0).to(tl.float32)
    cos2 = tl.load(cos + angle + half + 0 * head, mask=turned, other=1.0).to(tl.float32)
    sin1 = tl.load(sin + angle + 0 * head, mask=turned, other=0.0).to(tl.float32)
    sin2 = tl.load(sin + angle + half + 0 * head, mask=turned, other=0.0).to(tl.float32)
    to = out + (token * total + head) * size + at
    tl.store(to, (one * cos1 + two * sin2).to(out.dtype.element_ty), mask=inside)
    tl.store(to + half, (two * cos2 - one * sin1).to(out.dtype.element_ty), mask=inside)


def join_heads(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    heads: Heads,
) -> torch.Tensor:
    """The gradient of what `split_heads` took, from those of what it gave; of a shared token, the rows' sum."""
    out = q.new_empty(heads.tokens, (heads.queries + 2 * heads.keys) * 2 * heads.half)
    _join_heads[(heads.tokens,)](
        q, k, v, cos, sin, out, heads.rows, heads.shared, heads.length, heads.queries, heads.keys, heads.half,
        **heads.blocks,
    )  # fmt: skip
    return out


@triton.jit
def _spread(x, places, out, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    place = tl.load(places + row)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + place * width + at, mask=(at < width) & (place >= 0), other=0.0)
        tl.store(out + row * width + at, value, mask=at < width)


def spread(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The rows of `x` at `places` `(n,)`, zeros where one is -1."""
    width = x.shape[1]
    out = x.new_empty(len(places), width)
    block = min(_CHUNK, triton.next_power_of_2(width))
    _spread[(len(places),)](x, places, out, width, BLOCK=block, num_warps=_warps(block))
    return out


class Lora(NamedTuple):
    """What is added to weights: `scale` times `b` `(out, rank)` times `a` `(rank, in)`."""

    b: torch.Tensor
    a: torch.Tensor
    scale: float


@triton.jit
def _unpack(  # type: ignore[no-untyped-def]
    packed, absmax, code2, absmax2, offset, code, scales, b, a, share, out, n_out, n_in, stride, rank, stride_b,
    ROWS: tl.constexpr, BLOCKS: tl.constexpr, TURNED: tl.constexpr, SCALED: tl.constexpr, RANK: tl.constexpr,
    EXACT: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    byte = (tl.program_id(1) * BLOCKS * 32 + tl.arange(0, BLOCKS * 32))[None, :]
    block = (tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS))[None, :]
    bytes_ = tl.load(packed + row * (n_in // 2) + byte, mask=(row < n_out) & (byte < n_in // 2), other=0)
    # The first of two is in the high bits.
    high = tl.load(code + (bytes_ >> 4).to(tl.int32))
    low = tl.load(code + (bytes_ & 15).to(tl.int32))
    # Of 64 values each; 256 of these scales have one of their own.
    number = row * (n_in // 64) + block
    known = (row < n_out) & (block < n_in // 64)
    scale = tl.load(code2 + tl.load(absmax + number, mask=known, other=0).to(tl.int32))
    scale = scale * tl.load(absmax2 + number // 256, mask=known, other=0.0) + tl.load(offset)
    if SCALED:
        scale = scale / tl.load(scales + row, mask=row < n_out, other=1.0)
    values = tl.reshape(tl.interleave(high, low), (ROWS, BLOCKS, 64)) * scale[:, :, None]
    values = tl.reshape(values, (ROWS, BLOCKS * 64))
    column = (tl.program_id(1) * BLOCKS * 64 + tl.arange(0, BLOCKS * 64))[None, :]
    inside = (row < n_out) & (column < n_in)
    if RANK:
        along = tl.arange(0, RANK)
        left = tl.load(
            b + row * stride_b + along[None, :], mask=(row < n_out) & (along[None, :] < rank), other=0.0
        )
        right = tl.load(
            a + along[:, None] * n_in + column, mask=(column < n_in) & (along[:, None] < rank), other=0.0
        )
        if EXACT:
            values += share * tl.dot(left, right, input_precision="ieee")
        else:
            values += share * tl.dot(left, right)
    values = values.to(out.dtype.element_ty)
    if TURNED:
        turned = tl.trans(values)
        to = out + tl.trans(column).to(tl.int64) * stride + tl.trans(row)
        tl.store(to, turned, mask=tl.trans(inside))
    else:
        tl.store(out + row * stride + column, values, mask=inside)


def unpack(
    layer: Any,
    out: torch.Tensor,
    *,
    turned: bool,
    scales: torch.Tensor | None = None,
    lora: Lora | None = None,
) -> None:
    """Write the weights of a `Linear4bit`, plus what is of `lora`, to `out` `(out, in)`, `(in, out)` if `turned`.

    Each row of the weights is divided by its scale, if there are `scales`.
    """
    state = layer.weight.quant_state
    n_out, n_in = state.shape
    rows, blocks, warps = _TILE if lora is None else _TILE_OF_LORA
    grid = (triton.cdiv(n_out, rows), triton.cdiv(n_in, 64 * blocks))
    rank = 0 if lora is None else len(lora.a)
    _unpack[grid](
        layer.weight.data,
        state.absmax,
        state.state2.code,
        state.state2.absmax,
        state.offset,
        state.code,
        state.offset if scales is None else scales,
        *((out, out, 0.0) if lora is None else lora),
        out,
        n_out,
        n_in,
        out.stride(0),
        rank,
        0 if lora is None else lora.b.stride(0),
        ROWS=rows,
        BLOCKS=blocks,
        TURNED=turned,
        SCALED=scales is not None,
        RANK=max(16, triton.next_power_of_2(rank)) if rank else 0,
        EXACT=out.dtype == torch.float32,
        num_warps=warps,
    )
