"""Ways to write constituents into a prompt, and how many tokens each takes.

`letters` is lhcq's own behind the numbers of `wide`; behind those of `all` it is the benchmark's.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.particles_data import Subset, feature_names, read_events, read_prompts
from benchmarks.rows import say
from lhcq.config import Frame
from lhcq.model.tokens import encode_prompts
from lhcq.prompts.particles import Constituents
from lhcq.prompts.templates import describe_template, render_features, render_moved, with_constituents
from lhcq.prompts.tokens import tokens_of_letter
from lhcq.records.events import schema_of
from lhcq.records.letters import LETTERS, SEPARATOR
from lhcq.storage import write_json
from lhcq.workspace import Workspace

COUNTED = 2000
"""Prompts whose tokens are counted."""
SIZES = (5, 10, 20, 40)
_SEED = 1


def coarse(constituents: Constituents) -> list[list[list[str]]]:
    """One of 26 letters for each quantity."""
    return _words(constituents, constituents.bins() // 2, lambda place: LETTERS[place])


def digits(constituents: Constituents) -> list[list[list[str]]]:
    """`125 -12 30`: thousandths of the jet's pt, and hundredths of eta and phi."""
    scaled = np.rint(constituents.values * (1000, 100, 100)).astype(np.int64)
    return _words(constituents, scaled, str)


def percents(constituents: Constituents) -> list[list[list[str]]]:
    """`39 48 02`, the bin of either hundred, which is two digits."""
    return _words(constituents, constituents.bins(), lambda place: f"{place:02}")


def letters(constituents: Constituents) -> list[list[list[str]]]:
    """One of 52 letters for each quantity, as lhcq writes them."""
    return _words(constituents, constituents.bins(), lambda place: LETTERS[place])


CODINGS: dict[str, Callable[[Constituents], list[list[list[str]]]]] = {
    "letters": letters,
    "letters-26": coarse,
    "digits": digits,
    "two-digits": percents,
}
"""Each gives the words of each jet of each event."""


def prompts_of(place: Workspace, subset: str, coding: str, most: int, frame: Frame) -> list[str]:
    """The prompts of the events of a subset in this coding, behind the numbers of `wide`."""
    return write_behind(read_prompts(place, subset), read_events(place.root, subset), coding, most, frame)


def write_behind(numbers: list[str], events: Subset, coding: str, most: int, frame: Frame) -> list[str]:
    """Prompts of numbers alone, with constituents behind."""
    kept = Constituents(events.constituents.values[:, :, :most]).turned(frame)
    return [
        f"{prompt[:-1]}{''.join(SEPARATOR + ''.join(f' {word}' for word in jet) for jet in jets)}:"
        for prompt, jets in zip(numbers, CODINGS[coding](kept), strict=True)
    ]


def prompts_of_all(
    place: Workspace, events: Subset, *, most: int, frame: Frame, copies: int = 1
) -> list[str]:
    """The prompts of template `all` of events, `most` constituents of either jet behind their numbers.

    All of a copy, then of the next, each moved as `lhcq prepare --copies` moves them. One copy is the events as they
    are.
    """
    features = dict(zip(feature_names(place), events.features.T, strict=True))
    return write_all(features, Constituents(events.constituents.values[:, :, :most]), frame, copies)


def write_all(
    features: dict[str, NDArray[np.float64]], constituents: Constituents, frame: Frame, copies: int
) -> list[str]:
    """Prompts of features by name, each (n,), and of as many constituents as are given."""
    template = describe_template("all", schema_of("full"))
    if constituents.values.shape[2]:
        template = template.model_copy(update={"frame": frame})
    if copies > 1:
        moved = [render_moved(template, features, [_SEED, copy], constituents) for copy in range(copies)]
        return [prompt for prompts in moved for prompt in prompts]
    numbers = render_features(template, features)
    return with_constituents(numbers, constituents.turned(frame)) if template.frame else numbers


def _words(
    constituents: Constituents, values: NDArray[np.int64], show: Callable[[int], str]
) -> list[list[list[str]]]:
    counts = (constituents.values[..., 0] > 0).sum(axis=2).tolist()
    return [
        [[show(one) for three in jet[:n] for one in three] for jet, n in zip(event, kept, strict=True)]
        for event, kept in zip(values.tolist(), counts, strict=True)
    ]


def count_tokens(place: Workspace, model: Path, mistral: Path | None) -> None:
    """Write how many tokens prompts have, on average and at most, by tokenizer, coding and constituents."""
    encoders = {"SmolLM2": encode_prompts(model)}
    if mistral is not None:
        from sentencepiece import SentencePieceProcessor

        encoders["Mistral v3"] = SentencePieceProcessor(model_file=str(mistral)).encode
    events = read_events(place.root, "validation").first(COUNTED)
    numbers = read_prompts(place, "validation")[:COUNTED]
    rows: list[dict[str, Any]] = []
    for tokenizer, encode in encoders.items():
        rows.append(
            {"tokenizer": tokenizer, "coding": "letters", "tokens of a letter": tokens_of_letter(encode)}
        )
        written = {("none", 0): numbers}
        for most in SIZES:
            for coding in CODINGS:
                written[coding, most] = write_behind(numbers, events, coding, most, "principal-axis")
        for (coding, most), prompts in written.items():
            lengths = [len(ids) for ids in encode(prompts)]
            found = {"mean": statistics.fmean(lengths), "max": max(lengths)}
            rows.append({"tokenizer": tokenizer, "coding": coding, "constituents": most, **found})
            say(f"tokens: {rows[-1]}")
    write_json(place.root / "tokens.json", {"n": len(numbers), "rows": rows})
