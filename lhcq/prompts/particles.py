"""Constituents of the two leading jets as letters: each is three, for its share of the jet's pt and where it is.

Bins are fixed, not of a training's own quantiles, so that a prompt is written from an event alone: 52 each, even in
the logarithm of the share from 0.001 to 1, and even in asinh(10 x) of a distance x from -1 to 1, so finest at the
axis; the first and the last one are open. Edges have four digits, and what is compared with them is made of sums in a
fixed order and square roots, so that any host writes the same letters.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.config import Frame
from lhcq.errors import BadInput
from lhcq.prompts.features import FEATURES, compute_features, second_is_heavier
from lhcq.records.events import LISTED_CONSTITUENTS
from lhcq.records.letters import LETTERS, QUANTITIES, SEPARATOR

Floats = NDArray[np.float64]

COLUMN = LISTED_CONSTITUENTS.name
_BINS = len(LETTERS)
_SMALLEST = 1e-3
_CORE = 0.1
"""Distance up to which bins are about even."""
SHARES: tuple[float, ...] = tuple(float(f"{_SMALLEST ** (1 - at / _BINS):.4g}") for at in range(1, _BINS))
DISTANCES: tuple[float, ...] = tuple(
    float(f"{_CORE * math.sinh(math.asinh(1 / _CORE) * (2 * at / _BINS - 1)):.4g}") for at in range(1, _BINS)
)
MOVED_SHARE, MOVED_DISTANCE = 0.05, 0.01
"""How far a copy's constituents are moved at most: relative, and in eta and phi. About a calorimeter's resolution."""


@dataclass(frozen=True)
class Constituents:
    """The hardest constituents of the two leading jets of some events, those of the heavier jet first."""

    values: Floats
    """(n_events, 2, K, 3): share of the jet's pt, delta_eta, delta_phi; all 0 where there is none."""

    @classmethod
    def of(cls, records: pa.Table, most: int) -> Self:
        """At most `most` of each jet, of records that have the column `constituents`."""
        values = np.zeros((records.num_rows, 2, most, QUANTITIES))
        counts, found = _flatten(records)
        jet = np.repeat(np.arange(len(counts)), counts)
        rank = np.arange(len(jet)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = rank < most
        flat = values.reshape(-1, most, QUANTITIES)
        flat[jet[kept], rank[kept]] = found[kept]
        swapped = second_is_heavier(records)
        values[swapped] = values[swapped, ::-1]
        features = compute_features(records, [one for one in FEATURES if one.columns == ("pt",)])
        pt = np.column_stack([features["pt_heavy"], features["pt_light"]])
        # What no jet has, of a damaged dataset, counts as absent.
        there = np.isfinite(values).all(axis=-1) & (values[..., 0] > 0) & (pt[..., None] > 0)
        values[~there] = 0.0
        np.divide(values[..., 0], pt[..., None], out=values[..., 0], where=there)
        return cls(values)

    @classmethod
    def joined(cls, pieces: Iterable["Constituents"]) -> Self:
        """Those of all events of some pieces, in order."""
        return cls(np.concatenate([one.values for one in pieces]))

    def take(self, places: NDArray[np.int64]) -> "Constituents":
        """Those of the events at these places."""
        return Constituents(self.values[places])

    def turned(self, frame: Frame) -> "Constituents":
        """The same in another frame of their jet."""
        return self if frame == "detector" else Constituents(_to_principal_axis(self.values))

    def moved(self, frame: Frame, random: np.random.Generator) -> "Constituents":
        """Each moved a little, and each jet turned and mirrored by chance where the frame does not fix that."""
        values = self.values.copy()
        there = values[..., 0] > 0
        share = values[..., 0]
        share *= 1.0 + MOVED_SHARE * random.uniform(-1.0, 1.0, share.shape)
        values[..., 1:] += MOVED_DISTANCE * random.uniform(-1.0, 1.0, (*share.shape, 2)) * there[..., None]
        if frame == "detector":
            angle = random.uniform(0.0, 2 * math.pi, (*values.shape[:2], 1))
            mirror = random.choice([-1.0, 1.0], (*values.shape[:2], 1))
            values[..., 1:] = _turn(values, np.cos(angle), np.sin(angle))
            values[..., 2] *= mirror
        return Constituents(values)

    def bins(self) -> NDArray[np.int64]:
        """The place of the letter of each quantity, (n_events, 2, K, 3)."""
        places = [
            np.searchsorted(edges, self.values[..., at], side="right")
            for at, edges in enumerate((SHARES, DISTANCES, DISTANCES))
        ]
        return np.stack(places, axis=-1)

    def write(self) -> list[str]:
        """What stands behind the numbers of each event's prompt, such as `; W A a a Q C; V Z b`."""
        n, _, most, _ = self.values.shape
        # As bytes, two a letter, in one piece: joining letters one by one takes ten times as long.
        shown = np.full((n, 2, most * QUANTITIES, 2), ord(" "), np.uint8)
        shown[..., 1] = np.frombuffer(LETTERS.encode(), np.uint8)[self.bins()].reshape(shown.shape[:3])
        text, width = shown.tobytes().decode(), 2 * QUANTITIES * most
        lengths = 2 * QUANTITIES * (self.values[..., 0] > 0).sum(axis=2)
        return [
            f"{SEPARATOR}{text[start : start + heavy]}{SEPARATOR}{text[start + width : start + width + light]}"
            for start, (heavy, light) in zip(
                range(0, 2 * n * width, 2 * width), lengths.tolist(), strict=True
            )
        ]


class Letter(NamedTuple):
    """A letter of each constituent of a prompt."""

    name: str
    bins: str
    """Which values the first and the last letter stand for."""
    meaning: str


def explain_letters(frame: Frame) -> tuple[Letter, ...]:
    """The letters of each constituent in their order."""
    share, distance = (
        f"{LETTERS[0]} below {edges[0]:g} to {LETTERS[-1]} from {edges[-1]:g} on, {_BINS} bins {even}"
        for edges, even in (
            (SHARES, "even in the logarithm"),
            (DISTANCES, f"even in asinh({1 / _CORE:g} x)"),
        )
    )
    if frame == "detector":
        said = [
            ("delta_eta", "pseudorapidity less that of the jet"),
            ("delta_phi", "azimuth less that of the jet"),
        ]
    else:
        where = "distance to the jet's axis, in eta and phi,"
        said = [
            ("along", f"{where} along its principal axis, positive on the side with more pt"),
            ("across", f"{where} across its principal axis, positive on the side with more pt"),
        ]
    return (
        Letter("share", share, "pt over that of the jet"),
        *(Letter(name, distance, meaning) for name, meaning in said),
    )


def check_kept(wanted: int, kept: int | None) -> None:
    """Raise `BadInput` where prompts want more constituents of a jet than its dataset keeps; None: nobody knows."""
    if kept is not None and kept < wanted:
        raise BadInput(
            f"keeps {kept} constituents of each leading jet, and the prompts have {wanted}. Cluster the event file "
            f"with --constituents {wanted}, or prepare prompts with --constituents {kept}."
        )


def _flatten(records: pa.Table) -> tuple[NDArray[np.int64], Floats]:
    """How many constituents each leading jet has, (2 n_events,), and all of them, (n, 3) in order of pt."""
    lists = records[COLUMN].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # a table without rows has no chunk to combine
        lists = lists.chunk(0) if lists.num_chunks else pa.array([], lists.type)
    of_event = np.diff(lists.offsets.to_numpy())
    if of_event.max(initial=0) > 2:
        raise BadInput("an event has constituents of more than two jets, which are the leading ones.")
    of_jets = lists.flatten()
    counts = np.zeros(2 * len(of_event), np.int64)
    jet = 2 * np.repeat(np.arange(len(of_event)), of_event)
    jet += np.arange(len(jet)) - np.repeat(np.cumsum(of_event) - of_event, of_event)
    counts[jet] = np.diff(of_jets.offsets.to_numpy())
    found = of_jets.flatten()
    return counts, np.column_stack(
        [found.field(name).to_numpy().astype(np.float64) for name in ("pt", "delta_eta", "delta_phi")]
    )


def _to_principal_axis(values: Floats) -> Floats:
    """Turn each jet so that its principal axis is the first direction, and mirror it so that either distance is
    positive on the side with more pt.

    The axis of the largest second moment, weighted with pt, about the jet's own. Collinear splittings and soft
    particles do not move it, as they do an axis through the second-hardest constituent.
    """
    share, eta, phi = (values[..., at] for at in range(QUANTITIES))
    weighted = _summed(share * eta * eta) - _summed(share * phi * phi)
    mixed = _summed(share * eta * phi)
    size = np.sqrt(weighted * weighted + 4 * mixed * mixed)
    cosine = np.divide(weighted, size, out=np.ones_like(size), where=size > 0)
    along = np.sqrt((1 + cosine) / 2)
    across = np.copysign(np.sqrt(np.maximum(1 - cosine, 0.0) / 2), mixed)
    turned = values.copy()
    turned[..., 1:] = _turn(values, along[..., None], across[..., None])
    for at in (1, 2):
        side = _summed(share * np.sign(turned[..., at]))
        turned[..., at] *= np.where(side < 0, -1.0, 1.0)[..., None]
    return turned


def _turn(values: Floats, cosine: Floats, sine: Floats) -> Floats:
    eta, phi = values[..., 1], values[..., 2]
    return np.stack([eta * cosine + phi * sine, phi * cosine - eta * sine], axis=-1)


def _summed(values: Floats) -> Floats:
    """The sum over constituents, hardest first whatever numpy would do."""
    total = np.zeros(values.shape[:-1])
    for at in range(values.shape[-1]):
        total += values[..., at]
    return total
