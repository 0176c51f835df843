"""How an event reads. A template's hash covers what it renders, so that a change of code shows.

A template takes what a dataset has: `compact`, `wide` and `all` read substructure where it is there, and say so in
their columns. `particles` is `wide` with the hardest constituents of the leading jets behind its numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.config import Frame, SplitConfig
from lhcq.errors import BadInput
from lhcq.prompts.features import KNOWN, compute_features, features_of, flatten_jets
from lhcq.prompts.particles import COLUMN, Constituents
from lhcq.prompts.probe import probe_records
from lhcq.records.specs import Template
from lhcq.storage import sha256_of_json


class Column(NamedTuple):
    """A feature and the unit that it is counted in."""

    feature: str
    unit: float


PARTICLES, ALL = "particles", "all"
_LARGEST = 10**18

Place = tuple[Column, ...]
"""A place of a prompt of numbers: the first of these that a dataset has is written there, else nothing."""


def _both(name: str, unit: float) -> tuple[Place, Place]:
    return (Column(f"{name}_heavy", unit),), (Column(f"{name}_light", unit),)


def _either(*places: tuple[Place, Place]) -> tuple[Place, Place]:
    heavy, light = zip(*places, strict=True)
    return sum(heavy, ()), sum(light, ())


# By version; splits name theirs, so a version that was released stays. What stands in a place of `compact` was chosen
# by trees on the 1,000 real events and on generated ones, in these very units (AUC on the real ones, 5-fold, +-0.01):
#   0.967  mjj, masses, multiplicity, constituents: of `--features jets`; pt and delta_r add nothing
#   0.986  mjj, groomed masses, multiplicity, D2: of `--features full`, at the same length. On generated events D2 is
#          a little better than tau21 in its place; both together, or both kinds of mass, add length and nothing else
#   0.962  mjj, masses, tau21: of a features file
# `wide` and `all` are for many events, from which a model learns more than six numbers can tell: docs/results.md.
_WIDE: tuple[Place, ...] = (
    (Column("mjj", 10.0),),
    *_both("m", 1.0),
    *_both("m_sd", 1.0),
    (Column("n_particles", 1.0),),
    *_both("n", 1.0),
    *_both("d2", 0.01),
    *_both("tau21", 0.01),
    *_both("tau32", 0.01),
)
_ALL: tuple[Place, ...] = (
    (Column("mjj", 10.0),),
    *_both("m", 1.0),
    *_both("pt", 10.0),
    *_both("n", 1.0),
    (Column("delta_r", 0.01),),
    (Column("n_particles", 1.0),),
    (Column("n_jets", 1.0),),
    (Column("delta_eta", 0.01),),
    (Column("h_t", 10.0),),
    *_both("pt_lead", 10.0),
    *_both("tau21", 0.01),
    *_both("tau32", 0.01),
    *_both("tau43", 0.01),
    *_both("m_sd", 1.0),
    *_both("z_g", 0.01),
    *_both("width", 0.001),
    *_both("z1", 0.01),
    *_both("z2", 0.01),
    *_both("c2", 0.001),
    *_both("d2", 0.01),
)
_PLACES: dict[str, dict[int, tuple[Place, ...]]] = {
    "compact": {
        2: ((Column("mjj", 10.0),), *_both("m", 1.0), (Column("n_particles", 10.0),), *_both("n", 10.0)),
        3: (
            (Column("mjj", 10.0),),
            *_either(_both("m_sd", 1.0), _both("m", 1.0)),
            (Column("n_particles", 10.0),),
            *_either(_both("d2", 0.1), _both("tau21", 0.01), _both("n", 10.0)),
        ),
    },
    "wide": {1: _WIDE},
    ALL: {1: _ALL},
    PARTICLES: {1: _WIDE},
    # Without m_jj, and with masses divided by the jet's pt. No distance of the jets and no pt: near the trigger's
    # threshold either gives m_jj away. Nor is every ratio innocent: D2, tau32, and tau21 without the constituents
    # make trees prefer background at high m_jj, as the number of particles does beside them (KS distance of the 1%
    # that is selected 0.05 to 0.17, of 57,000 generated events). With the constituents tau21 does not (0.03), but it
    # does beside both kinds of mass (0.05).
    "compact-without-mass": {
        1: (
            *_either(_both("m_sd_over_pt", 0.001), _both("m_over_pt", 0.001)),
            *_both("n", 1.0),
            *_both("tau21", 0.01),
        ),
    },
    "wide-without-mass": {
        1: (
            *_both("m_over_pt", 0.001),
            *_both("m_sd_over_pt", 0.001),
            *_both("n", 1.0),
        ),
    },
}
_NOISE = {
    "mjj": 30.0,
    "m": 3.0,
    "m_sd": 3.0,
    "n_particles": 10.0,
    "n": 5.0,
    "d2": 0.1,
    "tau21": 0.02,
    "tau32": 0.02,
    "m_over_pt": 0.002,
    "m_sd_over_pt": 0.002,
    "pt": 10.0,
    "pt_lead": 10.0,
    "h_t": 30.0,
    "tau43": 0.02,
    "z_g": 0.02,
    "z1": 0.02,
    "z2": 0.02,
    "delta_r": 0.02,
    "delta_eta": 0.02,
    "width": 0.005,
    "c2": 0.005,
    "n_jets": 0.0,
}
"""How far a copy's numbers are moved at most: little beside what either class is spread over, more than a digit."""
_NEEDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("compact", "wide", ALL, PARTICLES), ("mjj", "m_heavy", "m_light")),
    **dict.fromkeys(
        ("compact-without-mass", "wide-without-mass"),
        ("m_over_pt_heavy", "m_over_pt_light", "n_heavy", "n_light"),
    ),
}

_MOMENTUM = ("px", "py", "pz", "e")

NEWEST: dict[str, int] = {
    "compact": 3,
    "wide": 1,
    ALL: 1,
    PARTICLES: 1,
    "diary": 1,
    "compact-without-mass": 1,
    "wide-without-mass": 1,
}


def render(name: str, records: pa.Table, *, version: int | None = None) -> list[str]:
    """The prompts of `records` (as clustering or import writes them), one each, without the label.

    `version` None is the newest; constituents are written as `SplitConfig` has them by default. Raises `BadInput`
    where the records lack what the template needs.
    """
    return _render(describe_template(name, records.schema, version=version), records)


def describe_template(
    name: str,
    schema: pa.Schema,
    *,
    version: int | None = None,
    constituents: int | None = None,
    frame: Frame | None = None,
) -> Template:
    """The identity of a template on records of this schema; raises `BadInput` as `render` does.

    `constituents` of each leading jet are written, turned as `frame` says, by `particles` alone; None: as
    `SplitConfig` has them by default.
    """
    columns = choose_columns(name, schema, version=version)
    if name != PARTICLES:
        return _describe(name, version or NEWEST[name], columns, 0, None)
    usual = SplitConfig(template="particles")
    return _describe(
        name,
        version or NEWEST[name],
        columns,
        constituents or usual.constituents,
        frame or usual.frame,
    )


def render_as(template: Template, records: pa.Table) -> list[str]:
    """The prompts of `records` as `template` wrote others, of its columns alone, whatever else these records have.

    Raises `BadInput` as `check_renders` does.
    """
    check_renders(template, records.schema)
    return _render(template, records)


def check_renders(template: Template, schema: pa.Schema) -> None:
    """Raise `BadInput` where records of this schema lack a column of `template`, or it would read otherwise now."""
    _check_known(template.name, template.version)
    jet = schema.field("jets").type.value_type
    has = {one.name for one in features_of(schema, KNOWN)} | {
        jet.field(index).name for index in range(jet.num_fields)
    }
    has.update({COLUMN} & set(schema.names))
    missing = [name for name in (*template.columns, *read_beside(template)) if name not in has]
    if missing:
        raise BadInput(
            f"its events have no {', '.join(missing)}, which the prompts of this training are made of "
            f"(template {template.name}). Make it as the training's own dataset was made."
        )
    if _describe_again(template).sha256 != template.sha256:
        raise BadInput(
            f"this version of lhcq writes template {template.name} v{template.version} otherwise than the one that "
            "made the training's prompts. Use that one, or train again."
        )


def choose_columns(name: str, schema: pa.Schema, *, version: int | None = None) -> tuple[str, ...]:
    """What a prompt of records of this schema consists of; raises `BadInput` naming what is missing."""
    _check_known(name, version)
    has = {feature.name for feature in features_of(schema, KNOWN)}
    if name == "diary":
        jet = schema.field("jets").type.value_type
        _check_needs(name, ("n_particles",), has)
        _check_needs(name, _MOMENTUM, {jet.field(index).name for index in range(jet.num_fields)})
        return (*_MOMENTUM, "n_particles")
    _check_needs(name, _NEEDS[name], has)
    if name == PARTICLES and COLUMN not in schema.names:
        raise BadInput(
            f"template {name} needs constituents, which this dataset does not have. Cluster the event file again, "
            "under another name, with --constituents and as many of each jet as a prompt shall have."
        )
    there = ([one.feature for one in place if one.feature in has] for place in _places(name, version))
    return tuple(names[0] for names in there if names)


def render_numbers(
    name: str, records: pa.Table, columns: tuple[str, ...], *, version: int | None = None
) -> list[str]:
    """These columns of a template as bare integers, such as `357 447 99 17 6 14:`; 0 where a jet is absent.

    Bare, because names double the tokens and learn slower; short, because every digit is a token.
    """
    features = compute_features(records, [one for one in KNOWN if one.name in columns])
    return _join_numbers(name, features, columns, version)


def render_features(template: Template, features: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """The prompts of events with these features, (n_events,) each: what `render_as` writes of their records.

    Of a template of features alone: constituents have none.
    """
    return _join_numbers(template.name, features, template.columns, template.version)


def render_moved(
    template: Template,
    features: Mapping[str, NDArray[np.float64]],
    seed: Sequence[int],
    constituents: Constituents | None = None,
) -> list[str]:
    """The prompts of events with these features, (n_events,) each, numbers moved as far as `noise_of` lets.

    So are their `constituents`, where the template has such.
    """
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    moved = {}
    for name in template.columns:
        values = features[name]
        # No number of a template is below zero, and what is absent (NaN) stays so.
        moved[name] = np.maximum(values + noise_of(name) * random.uniform(-1.0, 1.0, len(values)), 0.0)
    numbers = render_features(template, moved)
    if constituents is None or template.frame is None:
        return numbers
    return with_constituents(numbers, constituents.moved(template.frame, random).turned(template.frame))


def noise_of(feature: str) -> float:
    """How far a number of this feature is moved at most, in its own unit."""
    return _NOISE[feature.removesuffix("_heavy").removesuffix("_light")]


def _join_numbers(
    name: str, features: Mapping[str, NDArray[np.float64]], columns: tuple[str, ...], version: int | None
) -> list[str]:
    units = units_of(name, version)
    numbers = [count_units(features[one] / units[one]) for one in columns]
    return [
        " ".join(map(str, values)) + ":"
        for values in zip(*(column.tolist() for column in numbers), strict=True)
    ]


def units_of(name: str, version: int | None = None) -> dict[str, float]:
    """What each number of a template is counted in, by feature; empty where its prompts are no row of numbers."""
    places = _PLACES.get(name, {}).get(version or NEWEST[name], ())
    return {one.feature: one.unit for place in places for one in place}


def count_units(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers, 0 for none; what is no number of any event (a damaged dataset's) is cut to what they hold."""
    return np.clip(np.rint(np.nan_to_num(values)), -_LARGEST, _LARGEST).astype(np.int64)


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


def _places(name: str, version: int | None) -> tuple[Place, ...]:
    return _PLACES[name][version or NEWEST[name]]


def _render(template: Template, records: pa.Table) -> list[str]:
    if template.name == "diary":
        return render_diary(records)
    numbers = render_numbers(template.name, records, template.columns, version=template.version)
    if template.frame is None:
        return numbers
    return with_constituents(numbers, Constituents.of(records, template.constituents).turned(template.frame))


def with_constituents(prompts: list[str], constituents: Constituents) -> list[str]:
    """Prompts of numbers alone, each with the letters of its event's constituents behind."""
    return [f"{prompt[:-1]}{letters}:" for prompt, letters in zip(prompts, constituents.write(), strict=True)]


def read_beside(template: Template) -> tuple[str, ...]:
    """What of a record its prompts read beside features."""
    return (COLUMN,) if template.constituents else ()


@cache
def _describe(
    name: str, version: int, columns: tuple[str, ...], constituents: int, frame: Frame | None
) -> Template:
    template = Template(
        name=name, version=version, sha256="", columns=columns, constituents=constituents, frame=frame
    )
    identity = {"name": name, "version": version, "prompts": _render(template, probe_records())}
    if constituents:  # events with more of them than any number that is asked for would be long
        identity |= {"constituents": constituents, "frame": frame}
    return template.model_copy(update={"sha256": sha256_of_json(identity)})


def _describe_again(template: Template) -> Template:
    return _describe(template.name, template.version, template.columns, template.constituents, template.frame)


def _check_known(name: str, version: int | None) -> None:
    if name not in NEWEST:
        raise BadInput(f"{name!r} is no template: use one of {', '.join(NEWEST)}.")
    known = _PLACES.get(name, {NEWEST[name]: ()})
    if version is not None and version not in known:
        raise BadInput(f"template {name} has no version {version}, only {', '.join(map(str, known))}.")


def _check_needs(name: str, needed: Iterable[str], has: set[str]) -> None:
    missing = [one for one in needed if one not in has]
    if missing:
        remedy = "Cluster the event file instead" + (
            ", or use --template compact." if name == "diary" else "."
        )
        raise BadInput(
            f"template {name} needs {', '.join(missing)}, which this dataset does not have. {remedy}"
        )
