"""A whole pipeline as one file: from events to runs and predictions, in TOML, validated whole.

    name = "demo"                 # of all that it makes, unless a section has a name of its own

    [generate]                    # or [fetch]; or neither, with cluster.file, or what stands in the workspace already
    background = 1200
    signal = 1200

    [cluster]
    [prepare]
    limit = 1700
    [train]
    checkpoints = 3
    [predict]

A section's values are those of the command of that name. A stage without a section is not done: its result has to
stand in the workspace.
"""

import difflib
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from lhcq.config import (
    CLUSTER_PRESETS,
    TRAIN_PRESETS,
    ClusterConfig,
    GenerateConfig,
    SplitConfig,
    TrainConfig,
    check_name,
    on_cluster_preset,
)
from lhcq.environment import whole_path
from lhcq.errors import BadInput, NotThere
from lhcq.frozen import Frozen, explain_fault, of_several_kinds
from lhcq.records.specs import MOST_THREADS
from lhcq.version import version

STAGES = ("fetch", "generate", "cluster", "prepare", "train", "predict")
"""In the order of the work."""
NAMED = ("generate", "cluster", "prepare", "train", "predict")
"""Those whose results have names in the workspace."""

_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class FetchStage(Frozen):
    """A published file, loaded into the workspace's `events`, unless `to` says where."""

    file: str
    """Its short name in the list of `lhcq fetch`, or its own."""
    to: str | None = None

    @field_validator("file")
    @classmethod
    def _published(cls, name: str) -> str:
        from lhcq.events.archive import find_file

        try:
            find_file(name)
        except NotThere as error:
            raise ValueError(str(error)) from error
        return name


class GenerateStage(GenerateConfig):
    """Generated events, in the workspace's `events`, unless `out` says where."""

    name: str | None = None
    out: str | None = None

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.background + self.signal == 0:
            raise ValueError("nothing to generate: background and signal are 0")
        return self


class ClusterStage(ClusterConfig):
    """A dataset."""

    name: str | None = None
    file: str | None = None
    """The events; None: those that the recipe generates or fetches."""
    sha256: _Sha256 | None = None
    """Of the file; None: whatever stands there."""
    preset: Literal["lhco", "diary"] = "lhco"
    labels: str | None = None
    """The master key of a file without labels."""
    tolerate: float = Field(default=0.0, ge=0, le=1)
    events_per_chunk: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = {key: None if (key, value) == ("max_jets", 0) else value for key, value in values.items()}
        if (preset := str(given.get("preset", "lhco"))) not in CLUSTER_PRESETS:
            return given
        try:
            return on_cluster_preset(preset, given)
        except BadInput as error:
            raise ValueError(str(error).rstrip(".")) from error


class PrepareStage(SplitConfig):
    """A split."""

    name: str | None = None
    dataset: str | None = None
    """None: the one that the recipe clusters, or of the recipe's name."""
    model: str | None = None
    """For which tokens are counted; None: the one that is trained."""
    max_tokens: int = Field(default=512, ge=8)


class TrainStage(TrainConfig):
    """A run."""

    name: str | None = None
    split: str | None = None
    """None: the one that the recipe prepares, or of the recipe's name."""
    preset: Literal["default", "diary"] = "default"
    model: str | None = None
    weights: _Sha256 | None = None
    """Of the base model, as its runs record it; None: whatever the model is."""
    track: str | None = None
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    """Of a CPU; None: those of the worker that begins the run."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        preset = TRAIN_PRESETS.get(str(values.get("preset", "default")))
        return {**(preset.model_dump() if preset else {}), **values}


class PredictStage(Frozen):
    """The scores of a dataset."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: str | None = None
    run: str | None = None
    """None: the one that the recipe trains, or of the recipe's name."""
    dataset: str | None = None
    """None: the one that the recipe clusters, or of the recipe's name."""
    step: Annotated[str | int, of_several_kinds("it is neither a step, a tag, 'best' nor 'latest'")] = "best"
    labels: str | None = None
    select: float = Field(default=0.01, gt=0, le=1)
    """The largest p-value of a selected event."""


class Recipe(Frozen):
    """What is to be made, stage by stage, with every default resolved that a configuration has."""

    name: str
    fetch: FetchStage | None = None
    generate: GenerateStage | None = None
    cluster: ClusterStage | None = None
    prepare: PrepareStage | None = None
    train: TrainStage | None = None
    predict: PredictStage | None = None
    made_by: Mapping[str, str] = {}
    """Versions of what the run was made with that a recipe was written for."""

    @property
    def stages(self) -> list[str]:
        """The stages that it has, in the order of the work."""
        return [stage for stage in STAGES if getattr(self, stage) is not None]

    @property
    def dataset(self) -> str:
        """What its prompts are made of."""
        return (self.prepare and self.prepare.dataset) or self.name_of("cluster")

    @property
    def split(self) -> str:
        """What its run is trained on."""
        return (self.train and self.train.split) or self.name_of("prepare")

    @property
    def run(self) -> str:
        """What its prediction is made by."""
        return (self.predict and self.predict.run) or self.name_of("train")

    def name_of(self, stage: str) -> str:
        """Under what name a stage's result stands, whether the recipe makes it or finds it."""
        section = getattr(self, stage)
        return (section and section.name) or self.name


def read_recipe(
    source: str | Path, overrides: Sequence[str] = (), sweeps: Sequence[str] = ()
) -> list[Recipe]:
    """The recipe of a file, or the one of that name that lhcq brings; one for each combination of swept values.

    `overrides` are `SECTION.FIELD=VALUE`, `sweeps` are `SECTION.FIELD=VALUE,VALUE,...`, values as TOML has them,
    words without their quotes too. Raises `NotThere` without the recipe, and `BadInput` with all of its faults in one
    line.
    """
    text, place = _find(source)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{place}: is no TOML ({error}).") from error
    for override in overrides:
        _put(values, *_split(override, "--set"))
    variants = [_varied(values, chosen) for chosen in _combinations(sweeps)]
    recipes = [_validated(variant, str(place)) for variant in variants]
    if len({recipe.name_of("train") for recipe in recipes}) < len(recipes) and recipes[0].train:
        raise BadInput(f"{place}: swept values that are equal. Give each once.")
    return recipes


def shipped() -> dict[str, str]:
    """The recipes that lhcq brings, by name, with the first line of each, which says what it is."""
    found = sorted(files("lhcq").joinpath("recipes").iterdir(), key=lambda entry: entry.name)
    return {
        entry.name.removesuffix(".toml"): entry.read_text("utf-8").splitlines()[0].lstrip("# ")
        for entry in found
        if entry.name.endswith(".toml")
    }


def _find(source: str | Path) -> tuple[str, str | Path]:
    """The text of a recipe, and how messages call it."""
    path = whole_path(source)
    if path.is_file():
        try:
            return path.read_text("utf-8"), path
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "not text"
            raise BadInput(f"{path}: cannot be read ({why}).") from error
    if str(source) in shipped():
        return files("lhcq").joinpath("recipes", f"{source}.toml").read_text("utf-8"), f"recipe {source}"
    raise NotThere(
        f"{source}: no such file, and none of the recipes that lhcq brings ({', '.join(shipped())})."
    )


def _split(given: str, option: str) -> tuple[list[str], str]:
    """The place and the text of `SECTION.FIELD=VALUE`."""
    place, equals, text = given.partition("=")
    names = place.strip().split(".")
    if not equals or not all(names) or len(names) > 2:
        raise BadInput(f"{option} {given}: give it as SECTION.FIELD=VALUE, such as train.rank=32.")
    return names, text.strip()


def _value(text: str) -> Any:
    """A value as TOML has it; a word may come without its quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text


def _put(values: dict[str, Any], names: list[str], text: str) -> None:
    inner = values
    for name in names[:-1]:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            raise BadInput(f"{'.'.join(names)}: {name} is no section.")
    inner[names[-1]] = _value(text)


def _combinations(sweeps: Sequence[str]) -> list[list[tuple[list[str], str]]]:
    """Every combination of the swept values; one, of none, where nothing is swept."""
    axes = []
    for sweep in sweeps:
        names, text = _split(sweep, "--sweep")
        if len(names) < 2 or names[0] not in STAGES:
            raise BadInput(f"--sweep {sweep}: what is swept is a value of {', '.join(STAGES)}.")
        axes.append([(names, value.strip()) for value in text.split(",") if value.strip()])
    return [list(chosen) for chosen in itertools.product(*axes)]


def _varied(values: Mapping[str, Any], chosen: Sequence[tuple[list[str], str]]) -> dict[str, Any]:
    """The recipe with these values; what they change, and all that follows from it, is named after them."""
    varied = {
        name: dict(section) if isinstance(section, dict) else section for name, section in values.items()
    }
    suffix = ""
    for names, text in chosen:
        _put(varied, names, text)
    for stage in STAGES:
        suffix += "".join(f"-{names[1]}-{_in_a_name(text)}" for names, text in chosen if names[0] == stage)
        section = varied.get(stage)
        if suffix and stage in NAMED and isinstance(section, dict):
            section["name"] = f"{section.get('name') or values.get('name')}{suffix}"
    return varied


def _in_a_name(text: str) -> str:
    return "".join(one if one.isalnum() or one in "._-" else "-" for one in text)


def _validated(values: dict[str, Any], place: str) -> Recipe:
    faults, maker = [], ""
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        faults = [_fault(dict(fault)) for fault in error.errors()]
        if any(fault["type"] == "extra_forbidden" for fault in error.errors()):
            maker = _said_maker(values)
    if faults := [*faults, *_faults_between(values)]:
        told = "; ".join(faults)
        raise BadInput(f"{place}: {told}{'' if told.endswith('?') else '.'}{maker}")
    return recipe


def _said_maker(values: Mapping[str, Any]) -> str:
    """Of a recipe that a run of another lhcq recorded: which one reads it."""
    made_by = values.get("made_by")
    maker = made_by.get("lhcq") if isinstance(made_by, dict) else None
    if maker in (None, version()):
        return ""
    return f" It was recorded by lhcq {maker}, and this is {version()}: what the later one added, it alone reads."


def _faults_between(values: Mapping[str, Any]) -> list[str]:
    """What no section is at fault for alone, and names that cannot be."""
    sections = {stage: values[stage] for stage in STAGES if isinstance(values.get(stage), dict)}
    faults = [] if sections else [f"it has none of the sections {', '.join(STAGES)}"]
    if {"fetch", "generate"} <= sections.keys():
        faults.append("fetch and generate: give one of them")
    made = bool({"fetch", "generate"} & sections.keys())
    if "cluster" in sections and made and sections["cluster"].get("file"):
        faults.append("cluster.file: the events are those that are fetched or generated, so leave it out")
    if "cluster" in sections and not made and not sections["cluster"].get("file"):
        faults.append("cluster: whose events? Give file, or a section fetch or generate")
    names = {"name": values.get("name")} | {f"{one}.name": sections[one].get("name") for one in sections}
    for where, name in names.items():
        try:
            if isinstance(name, str):
                check_name(name, what="result")
        except BadInput as error:
            faults.append(f"{where}: {str(error).rstrip('.')}")
    return faults


def _fault(fault: dict[str, Any]) -> str:
    """One fault: where, what, and for an unknown name which one may be meant."""
    where = ".".join(str(place) for place in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _known(fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, 1, 0.7)
        return f"{where}: there is no such {'value' if len(fault['loc']) > 1 else 'section'}" + (
            f", did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
        )
    return explain_fault(fault)


def _known(place: Sequence[Any]) -> list[str]:
    model: Any = Recipe
    for name in place:
        model = _SECTIONS.get(str(name), model)
    return list(model.model_fields)


_SECTIONS: dict[str, type[Frozen]] = {
    "fetch": FetchStage,
    "generate": GenerateStage,
    "cluster": ClusterStage,
    "prepare": PrepareStage,
    "train": TrainStage,
    "predict": PredictStage,
}


def config_of(section: Frozen, model: type[Frozen]) -> dict[str, Any]:
    """The values of a section that are its stage's configuration."""
    return {name: getattr(section, name) for name in model.model_fields}
