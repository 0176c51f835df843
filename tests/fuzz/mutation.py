"""How an input is spoilt: by bytes, and, for JSON, by values. The same random numbers give the same input."""

import copy
import json
import struct
from random import Random
from typing import Any

_INTERESTING = (
    0,
    1,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)
_STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 1e308, -1e-308, float("nan"), float("inf"), 0.5,
    "", "0", "../..", "/etc/passwd", "a\0b", "a\nb", "\ud800", "\u202e", "x" * 300, "é", "NaN", "-1", "%s%n", "{0}",
    [], [[]], {}, {"": 0}, [0] * 50, [None], [{}], {"cls": 1}, {"self": 1}, {"a": {"b": {"c": [1]}}},
)  # fmt: skip


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """`data` with one to eight places changed."""
    spoilt = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        _change(spoilt, random)
    return bytes(spoilt)


def _change(spoilt: bytearray, random: Random) -> None:
    at = random.randrange(len(spoilt) + 1)
    match random.randrange(8):
        case 0 | 1 if spoilt:
            spoilt[min(at, len(spoilt) - 1)] ^= 1 << random.randrange(8)
        case 2 | 3:
            width = random.choice((1, 2, 4, 8))
            number = random.choice(_INTERESTING) & (256**width - 1)
            spoilt[at : at + width] = struct.pack("<Q", number)[:width]
        case 4:
            spoilt[at : at + random.randrange(1, 64)] = b""
        case 5:
            spoilt[at:at] = random.randbytes(random.randrange(1, 32))
        case 6:
            other = random.randrange(len(spoilt) + 1)
            length = random.randrange(1, 128)
            spoilt[at : at + length] = spoilt[other : other + length]
        case 7 if random.random() < 0.3:
            del spoilt[at:]
        case _:
            spoilt[at : at + 16] = bytes(16)


def mutate_json(value: Any, random: Random) -> bytes:
    """The JSON of `value` with one to three values exchanged, dropped or renamed; now and then bytes besides."""
    spoilt = json.loads(json.dumps(value))
    for _ in range(random.choice((1, 1, 2, 3))):
        spoilt = _exchange(spoilt, random)
    if random.random() < 0.01:
        return b"[" * 100_000
    written = json.dumps(spoilt).encode()
    return mutate_bytes(written, random) if random.random() < 0.2 else written


def strange_value(random: Random) -> Any:
    """A value that a careless reader does not think of."""
    return copy.deepcopy(random.choice(_STRANGE))  # since what is made of it may be changed again


def _exchange(value: Any, random: Random) -> Any:
    """`value` with one node of it changed, each with like chance on the way down."""
    if random.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return strange_value(random)
    place = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
    match random.randrange(8):
        case 0:
            del value[place]
        case 1 if isinstance(value, dict):
            value[str(strange_value(random))] = value.pop(place)
        case 2 if isinstance(value, list):
            value.append(strange_value(random))
        case _:
            value[place] = _exchange(value[place], random)
    return value
