"""How an event reads. A template's hash covers what it renders, so that a change of code shows."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pyarrow as pa

from lhcq.config import Frozen
from lhcq.errors import BadInput
from lhcq.prompts.features import compute_features, flatten_jets
from lhcq.workspace import sha256_of_json


class Template(Frozen):
    """The identity of a template: two splits with the same `sha256` read alike."""

    name: str
    version: int
    sha256: str


# The columns of the compact prompt and the unit that each is counted in. Chosen on the 1,000 real events: the
# three masses carry nearly all, the multiplicity adds to them; pt and delta_r cost tokens and add nothing.
COMPACT_COLUMNS: tuple[tuple[str, float], ...] = (
    ("mjj", 10.0),
    ("m_heavy", 1.0),
    ("m_light", 1.0),
    ("n_particles", 10.0),
    ("n_heavy", 10.0),
    ("n_light", 10.0),
)


def render(template_name: str, records: pa.Table) -> list[str]:
    """The prompts of `records` (as clustering writes them), one each, without the label."""
    return _renderer(template_name)[1](records)


@cache
def describe_template(template_name: str) -> Template:
    """Name, version and hash of a template; the hash is over a rendering of fixed events."""
    version, renderer = _renderer(template_name)
    identity = {"name": template_name, "version": version}
    return Template(
        name=template_name,
        version=version,
        sha256=sha256_of_json({**identity, "prompts": renderer(_probe_records())}),
    )


def render_compact(records: pa.Table) -> list[str]:
    """`COMPACT_COLUMNS` as bare integers, such as `357 447 120 17 6 4:`; 0 where a jet is absent.

    Bare, because names double the tokens and learn slower; short, because every digit is a token.
    """
    features = compute_features(records)
    columns = [
        np.rint(np.nan_to_num(features[name] / unit)).astype(np.int64) for name, unit in COMPACT_COLUMNS
    ]
    return [
        " ".join(map(str, values)) + ":"
        for values in zip(*(column.tolist() for column in columns), strict=True)
    ]


def render_diary(records: pa.Table) -> list[str]:
    """The reference study's prompt to the letter: four-momenta of all jets of the record, in GeV."""
    offsets, jets = flatten_jets(records)
    lines = [
        "px={:.10f} py={:.10f} pz={:.10f} E={:.10f}".format(*momentum)
        for momentum in zip(*(jets[name].tolist() for name in ("px", "py", "pz", "e")), strict=True)
    ]
    bounds = offsets.tolist()
    return [
        "\n".join(
            [
                "[INST] Classify this event as 'signal' or 'background'.",
                "jets:",
                *(f"  jet{rank}: {line}" for rank, line in enumerate(lines[start:stop], start=1)),
                f"num_particles: {n_particles}[/INST]",
            ]
        )
        for start, stop, n_particles in zip(
            bounds[:-1], bounds[1:], records["n_particles"].to_pylist(), strict=True
        )
    ]


_RENDERERS: dict[str, tuple[int, Callable[[pa.Table], list[str]]]] = {
    "compact": (2, render_compact),
    "diary": (1, render_diary),
}


def _renderer(name: str) -> tuple[int, Callable[[pa.Table], list[str]]]:
    try:
        return _RENDERERS[name]
    except KeyError:
        raise BadInput(f"{name!r} is no template: use {' or '.join(_RENDERERS)}.") from None


def _probe_records() -> pa.Table:
    """Events with 0, 1, 2 and 3 jets, the heavier one first or second, and values that round both ways."""
    momenta = [
        (
            1286.7276854490954,
            106.91212895959227,
            36,
            -1195.9301781079894,
            -474.78326170135693,
            240.06963161424423,
        ),
        (
            1283.2207326902046,
            463.16421456404189,
            103,
            1185.0550829874608,
            492.23967647028195,
            83.45395978844432,
        ),
        (24.499999999999996, 0.5, 1, -24.4, 2.2, -0.0),
    ]
    jets = [
        {
            "pt": pt,
            "m": m,
            "n_constituents": n,
            "px": px,
            "py": py,
            "pz": pz,
            "e": (px**2 + py**2 + m**2) ** 0.5,
        }
        for pt, m, n, px, py, pz in momenta
    ]
    lists = [[], jets[:1], jets[:2], jets, jets[1::-1]]
    return pa.table(
        {
            "jets": lists,
            "n_particles": [0, 47, 109, 482, 174],
            "n_jets": [0, 1, 2, 3, 12],
            "mjj": [None, None, 2580.489567709059, 9994.9, 995.0],
            "delta_r": [None, None, 3.1281437446318963, 3.05, 0.0],
        }
    )
