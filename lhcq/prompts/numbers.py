"""The numbers of a prompt: what each one is, and a prompt of one's own.

Of `particles` they are what stands before the constituents, whose letters `lhcq.prompts.particles` writes.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lhcq.errors import BadInput
from lhcq.prompts.features import meaning_of
from lhcq.prompts.templates import count_units, units_of
from lhcq.records.letters import LETTERS, QUANTITIES, SEPARATOR, split_prompt
from lhcq.records.prompt_numbers import read_numbers
from lhcq.records.specs import Template

_FAR = 2.0
"""By which factor a number may be beyond all that a training had: tails are longer than samples, units more apart."""
_NUMBERS = re.compile(r"-?[0-9]{1,19}(?: -?[0-9]{1,19})*:")


class Number(NamedTuple):
    """A number of a prompt."""

    feature: str
    step: float
    """What one more in the prompt is, in `unit`."""
    unit: str
    """`GeV`, or empty for a pure number."""
    meaning: str


_OF_DIARY = (
    Number("px", 1.0, "GeV", "momentum of each jet along x"),
    Number("py", 1.0, "GeV", "momentum of each jet along y"),
    Number("pz", 1.0, "GeV", "momentum of each jet along the beam"),
    Number("e", 1.0, "GeV", "energy of each jet"),
    Number("n_particles", 1.0, "", meaning_of("n_particles")[0]),
)


def explain(template: Template) -> tuple[Number, ...]:
    """The numbers of a prompt in its order; of `diary`, those of each jet, then that of the event.

    Of `particles`, those before the letters, which `lhcq.prompts.particles.explain_letters` explains.
    """
    units = units_of(template.name, template.version)
    if not units:
        return _OF_DIARY
    return tuple(_explain(feature, units[feature]) for feature in template.columns)


def _explain(feature: str, step: float) -> Number:
    meaning, unit = meaning_of(feature)
    return Number(feature, step, unit, meaning)


def write_prompt(template: Template, values: Sequence[float]) -> str:
    """The prompt of an event with these values, in the order and the units of `explain`; NaN is what it lacks.

    Raises `BadInput` for another count of values, for one that no event can have, and for a template whose prompts
    are no row of numbers.
    """
    numbers = _numbers_of(template)
    if len(values) != len(numbers):
        raise BadInput(f"{len(values)} numbers, not {len(numbers)}: {_printed(numbers)}.")
    for number, value in zip(numbers, values, strict=True):
        if np.isinf(value) or value < 0:
            raise BadInput(f"{number.feature} {value:g}: no event has that. {_asked_for(numbers)}")
    steps = np.array([number.step for number in numbers])
    return " ".join(map(str, count_units(np.asarray(values, np.float64) / steps).tolist())) + ":"


def refuse_unlike(template: Template, values: Sequence[float], known: Sequence[str]) -> None:
    """Raise `BadInput` where one of the values is far beyond all that the prompts `known` to a training have.

    That is mostly a number in another unit, which the model would answer all the same.
    """
    numbers = _numbers_of(template)
    had = read_numbers(known)
    for number, value, least, most in zip(numbers, values, had.min(axis=0), had.max(axis=0), strict=True):
        low, high = (round(float(one) * number.step, 10) for one in (least, most))
        if not low / _FAR <= np.nan_to_num(value) <= high * _FAR:
            raise BadInput(
                f"{number.feature} {value:,g}: the training's events have {low:,g} to {high:,g}. "
                f"{_asked_for(numbers)}"
            )


def check_prompt(template: Template, prompt: str) -> None:
    """Raise `BadInput` unless `prompt` reads as those of `template` do."""
    if not units_of(template.name, template.version):
        if not (prompt.startswith("[INST] ") and prompt.endswith("[/INST]")):
            raise BadInput(
                f"{prompt[:40]!r} is no prompt of template {template.name}, which begins with [INST] and ends with "
                "[/INST]."
            )
        return
    n, most = len(template.columns), template.constituents
    numbers, jets = split_prompt(prompt)
    right = _NUMBERS.fullmatch(f"{numbers}:") and numbers.count(" ") == n - 1 and prompt.endswith(":")
    if most:
        right = (
            right
            and len(jets) == 2
            and all(_are_letters(one, most) for one in prompt[:-1].split(SEPARATOR)[1:])
        )
        behind = f", and for each of two jets a semicolon and at most {most} constituents of three letters"
        example = f"'{' '.join(['12'] * n)}{SEPARATOR} W a Q{SEPARATOR} X Z b:'"
    else:
        right = right and not jets
        behind, example = "", f"'{' '.join(['12'] * n)}:'"
    if not right:
        raise BadInput(
            f"{prompt[:40]!r} is no prompt of template {template.name}: {n} whole numbers{behind} and a colon, "
            f"such as {example}."
        )


def _are_letters(text: str, most: int) -> bool:
    count, rest = divmod(len(text), 2 * QUANTITIES)
    return (
        not rest
        and count <= most
        and all(
            space == " " and letter in LETTERS for space, letter in zip(text[::2], text[1::2], strict=True)
        )
    )


def values_of(template: Template, prompt: str) -> dict[str, float] | None:
    """What a prompt says of its event, by feature, in the units of `explain`; None where it is no row of numbers, or
    says more than that."""
    if template.constituents or not units_of(template.name, template.version):
        return None
    counted = read_numbers([prompt])[0].tolist()
    return {
        number.feature: round(one * number.step, 10)
        for number, one in zip(explain(template), counted, strict=True)
    }


def _numbers_of(template: Template) -> tuple[Number, ...]:
    if not units_of(template.name, template.version):
        raise BadInput(
            f"prompts of template {template.name} hold jets, not a row of numbers. Ask by a row of a dataset or by a "
            "prompt."
        )
    if template.constituents:
        raise BadInput(
            f"prompts of template {template.name} hold constituents, not numbers alone. Ask by a row of a dataset or "
            "by a prompt."
        )
    return explain(template)


def _asked_for(numbers: Sequence[Number]) -> str:
    return f"Give {_printed(numbers)} in these units, not as a prompt counts them."


def _printed(numbers: Sequence[Number]) -> str:
    return ", ".join(
        f"{number.feature} [{number.unit}]" if number.unit else number.feature for number in numbers
    )
