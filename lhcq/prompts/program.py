"""A program for others that writes an event's prompt as a training's were written, and needs no lhcq."""

import textwrap

from lhcq.prompts.numbers import explain
from lhcq.prompts.particles import DISTANCES, SHARES
from lhcq.prompts.templates import units_of
from lhcq.records.letters import LETTERS, SEPARATOR
from lhcq.records.specs import Template


def prompt_program(template: Template) -> str:
    """A Python function `write_prompt` that writes an event's prompt as this template does, and needs no lhcq."""
    if not units_of(template.name, template.version):
        return _DIARY_PROGRAM
    if template.constituents:
        return _with_particles(template)
    return _of_numbers(template, "write_prompt", "The prompt of an event", ":")


def _of_numbers(template: Template, function: str, what: str, end: str) -> str:
    numbers = explain(template)
    names = [number.feature for number in numbers]
    pairs = [f"        ({number.feature}, {number.step:g})," for number in numbers]
    return "\n".join(
        [
            f"def {function}({', '.join(names)}):",
            f'    """{what}: masses and momenta in GeV, None for what it does not have."""',
            "    numbers = [",
            *pairs,
            "    ]",
            "    counted = [0 if one is None or one != one else round(one / unit) for one, unit in numbers]",
            '    return " ".join(map(str, counted))' + (f' + "{end}"' if end else ""),
        ]
    )


_DIARY_PROGRAM = '''\
def write_prompt(jets, n_particles):
    """The prompt of an event: px, py, pz and energy of each jet in GeV, by falling pt, and its particles."""
    lines = [
        f"  jet{rank}: px={px:.10f} py={py:.10f} pz={pz:.10f} E={e:.10f}"
        for rank, (px, py, pz, e) in enumerate(jets, start=1)
    ]
    head = ["[INST] Classify this event as 'signal' or 'background'.", "jets:"]
    return "\\n".join([*head, *lines, f"num_particles: {n_particles}[/INST]"])'''


def _with_particles(template: Template) -> str:
    edges = [
        "\n".join([f"{name} = [", *textwrap.wrap(", ".join(map(str, values)), 100), "]"])
        for name, values in (("SHARES", SHARES), ("DISTANCES", DISTANCES))
    ]
    turned = template.frame == "principal-axis"
    return "\n\n\n".join(
        [
            "\n".join(
                [
                    "from bisect import bisect_right",
                    *(["from math import copysign, sqrt"] if turned else []),
                    "",
                    f'LETTERS = "{LETTERS}"  # of bins with these edges',
                    *edges,
                ]
            ),
            _of_numbers(template, "write_numbers", "What a prompt begins with", ""),
            *([_TO_PRINCIPAL_AXIS] if turned else []),
            _WRITE_JET.format(
                most=template.constituents, turned="    jet = to_principal_axis(jet)\n" if turned else ""
            ),
            _WRITE_PROMPT.replace("SEPARATOR", SEPARATOR),
        ]
    )


_TO_PRINCIPAL_AXIS = '''\
def to_principal_axis(jet):
    """A jet turned onto the axis of its largest second moment, the sides with more pt positive."""
    weighted = sum(share * x * x for share, x, _ in jet) - sum(share * y * y for share, _, y in jet)
    mixed = sum(share * x * y for share, x, y in jet)
    size = sqrt(weighted * weighted + 4 * mixed * mixed)
    cosine = weighted / size if size else 1.0
    along, across = sqrt((1 + cosine) / 2), copysign(sqrt(max(1 - cosine, 0.0) / 2), mixed)
    jet = [(share, x * along + y * across, y * along - x * across) for share, x, y in jet]
    sides = [sum(one[0] * ((one[at] > 0) - (one[at] < 0)) for one in jet) for at in (1, 2)]
    signs = [-1.0 if side < 0 else 1.0 for side in sides]
    return [(share, x * signs[0], y * signs[1]) for share, x, y in jet]'''

_WRITE_JET = '''\
def write_jet(pt, constituents):
    """The letters of a jet with this pt, of its constituents' pt, delta_eta, delta_phi to the jet's axis; GeV."""
    hardest = sorted(constituents, key=lambda one: -one[0])[:{most}]
    jet = [(one / pt, eta, phi) for one, eta, phi in hardest]
{turned}    edges = (SHARES, DISTANCES, DISTANCES)
    return "".join(
        f" {{LETTERS[bisect_right(known, one)]}}" for three in jet for known, one in zip(edges, three)
    )'''

_WRITE_PROMPT = '''\
def write_prompt(numbers, *jets):
    """The prompt of an event: the arguments of write_numbers, those of write_jet for the heavier jet, the lighter."""
    letters = [write_jet(*jet) for jet in jets] + [""] * (2 - len(jets))
    return write_numbers(*numbers) + "".join(f"SEPARATOR{one}" for one in letters) + ":"'''
