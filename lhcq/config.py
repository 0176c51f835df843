"""Configuration, one frozen model a stage, loaded once at the edge and stored with what it made.

Inner functions take plain values or one of these; nothing here reads a file or the environment.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from lhcq.errors import BadInput
from lhcq.frozen import Frozen, Grown, of_several_kinds

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST_NAME = 64

WITHOUT_MASS = "-without-mass"
"""How the names of templates end whose numbers neither hold m_jj nor determine it."""


def check_name(name: str, *, what: str, longest: int = LONGEST_NAME) -> str:
    """Give `name` back if it may name a `what` (a dataset, a split, a run); it becomes a directory's name."""
    if len(name) > longest or not NAME_PATTERN.fullmatch(name):
        raise BadInput(
            f"{name!r} cannot name a {what}: use 1 to {longest} letters, digits, '.', '_' and '-', starting with "
            "a letter or a digit."
        )
    return name


class GenerateConfig(Frozen):
    """How many events of each class to generate, and from which seed."""

    background: int = Field(ge=0)
    signal: int = Field(ge=0)
    seed: int = Field(default=1, ge=0, lt=2**31)
    detector: bool = True
    """False: the generated particles themselves."""


Algorithm = Literal["antikt", "kt", "cambridge"]
Axes = Literal["kt", "onepass-kt", "wta-kt"]
FeatureSet = Literal["jets", "full"]
Frame = Literal["principal-axis", "detector"]
"""How a jet is turned before its constituents are written (`lhcq.prompts.particles`)."""
ModelFormat = Literal["adapter", "merged", "classifier"]
"""What a checkpoint is exported as."""


class Conventions(Grown):
    """What the numbers of a file mean where it is not written as the released ones are."""

    LATER: ClassVar[Mapping[str, Any]] = {"padding": 0.0, "label_map": {}, "axes": "kt", "constituents": 0}

    model_config = ConfigDict(allow_inf_nan=False)

    padding: Annotated[
        float | Literal["nan"], of_several_kinds("it is neither 'nan' nor a finite number")
    ] = 0.0
    """The pt of a place without a particle."""
    label_map: dict[str, Literal[0, 1]] = {}  # noqa: RUF012 - pydantic copies it
    """What a label that is neither 0 nor 1 stands for: 1 signal, 0 background."""

    @field_validator("label_map")
    @classmethod
    def _numbers(cls, labels: dict[str, Literal[0, 1]]) -> dict[str, Literal[0, 1]]:
        for label in labels:
            if not re.fullmatch(r"-?[0-9]{1,9}", label):
                raise ValueError(f"{label!r} is no label, which are whole numbers of nine digits at most")
        return labels


AS_RELEASED = Conventions()


class ClusterConfig(Conventions):
    """What the events are, and how jets are found in them."""

    algorithm: Algorithm = "antikt"
    radius: float = Field(default=1.0, gt=0, le=3.0)
    pt_min: float = Field(default=20.0, ge=0)
    """GeV; jets below are dropped."""
    max_jets: int | None = Field(default=2, ge=1)
    """Leading jets kept in a record; None keeps all above `pt_min`."""
    features: FeatureSet = "jets"
    """`jets`: momenta and constituents; `full`: the substructure of the two leading jets too."""
    axes: Axes = "kt"
    """Of N-subjettiness (`lhcq.jets.axes`). Where a record has none they are kt: an earlier lhcq knew no others."""
    constituents: int = Field(default=0, ge=0, le=1000)
    """Hardest constituents kept of each of the two leading jets (`lhcq.jets.constituents`)."""


# `lhco` is the definition of the official features files, with what they hold and more (docs/dataset.md says why its
# axes are those); `diary` is the reference study's: R=0.5 in its diary, the 1200 GeV cut and all jets above it in its
# code. The study has no N-subjettiness; whoever wants it of those jets gets what every other dataset has.
CLUSTER_PRESETS: dict[str, ClusterConfig] = {
    "lhco": ClusterConfig(features="full", axes="wta-kt"),
    "diary": ClusterConfig(radius=0.5, pt_min=1200.0, max_jets=None, axes="wta-kt"),
}


def on_cluster_preset(preset: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values `given` over those of a preset, for `ClusterConfig`.

    Without substructure no axes are asked for, so the record of such a clustering names none, whatever the preset's.
    Raises `BadInput` where axes are given for that.
    """
    values = {**CLUSTER_PRESETS[preset].model_dump(), **given}
    if values.get("features") == "jets":
        if given.get("axes", "kt") != "kt":  # which a recipe of before says of all its clusterings
            raise BadInput(
                f"axes {given['axes']} are of N-subjettiness, which features jets has not: ask for features full too."
            )
        values.pop("axes", None)
    return values


class SplitConfig(Grown):
    """Which events of a dataset become prompts, and how they read."""

    LATER: ClassVar[Mapping[str, Any]] = {"copies": 1, "constituents": 10, "frame": "principal-axis"}

    ratio: str = "1:1"
    """signal:background as `1:K`, or `natural` for what the file holds."""
    template: Literal[
        "compact", "wide", "all", "particles", "diary", "compact-without-mass", "wide-without-mass"
    ] = "compact"
    """`-without-mass`: no m_jj and nothing that determines it, so that a selection can be looked for in m_jj."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    limit: int | None = Field(default=None, ge=20)
    """At most this many events over all subsets; None takes all."""
    copies: int = Field(default=1, ge=1, le=64)
    """How often the training subset holds each event. With more than one, the numbers of each copy are moved a little
    at random, which keeps a model from learning events by heart."""
    constituents: int = Field(default=10, ge=1, le=1000)
    """Hardest constituents of each leading jet in a prompt of `particles`."""
    frame: Frame = "principal-axis"
    """How `particles` turns a jet first: onto its principal axis, or not at all."""

    @field_validator("ratio")
    @classmethod
    def _readable(cls, ratio: str) -> str:
        if ratio != "natural" and not re.fullmatch(r"1:[1-9][0-9]{0,5}", ratio):
            raise ValueError(f"{ratio!r} is neither 'natural' nor '1:K'")
        return ratio

    @field_validator("copies")
    @classmethod
    def _movable(cls, copies: int, info: ValidationInfo) -> int:
        if copies > 1 and info.data.get("template") == "diary":
            raise ValueError(
                "whole numbers are moved, and the diary's prompts have none: take template compact or wide"
            )
        return copies

    @field_validator("constituents", "frame")
    @classmethod
    def _has_constituents(cls, value: Any, info: ValidationInfo) -> Any:
        template = info.data.get("template", "particles")
        if template != "particles" and value != cls.LATER[str(info.field_name)]:
            raise ValueError(f"is of what template particles writes, and {template} writes no constituents")
        return value

    @property
    def background_per_signal(self) -> int | None:
        """K of `1:K`; None for the natural ratio."""
        return None if self.ratio == "natural" else int(self.ratio.split(":")[1])


def knows_mass(template: str) -> bool:
    """Whether its prompts hold m_jj or determine it, so that a selection by them may make a bump in m_jj."""
    return not template.endswith(WITHOUT_MASS)


def template_without_mass(template: str) -> str:
    """The template of the same numbers without m_jj and what determines it; `BadInput` where there is none."""
    if template == "diary":
        raise BadInput("the diary's prompts are four-momenta, which determine m_jj: take compact or wide.")
    if template == "all":
        raise BadInput("all features determine m_jj: take compact or wide.")
    if template == "particles":
        raise BadInput(
            "constituents tell D2 and tau32, and by these a selection prefers background at high m_jj "
            "(docs/results.md): there is no particles without the mass. Take compact or wide."
        )
    return template.removesuffix(WITHOUT_MASS) + WITHOUT_MASS


TREES = "trees"
"""What a search learns by unless it is told a language model."""


class RegionsConfig(Frozen):
    """Where in m_jj something is looked for without labels, and by what."""

    model_config = ConfigDict(allow_inf_nan=False)

    low: float = Field(gt=0)
    """GeV; where the first region begins."""
    high: float = Field(gt=0, lt=13_000)
    """GeV; where the last one ends."""
    width: float = Field(gt=0)
    """GeV; of a region. The next one begins half a width further."""
    sideband: float = Field(gt=0)
    """GeV at either side of a region, as far as the fit reaches, of which its classifier learns what background looks
    like."""
    fit_low: float = Field(gt=0)
    """GeV; from where on the spectrum of background is fitted: it has to fall from there on."""
    fit_high: float = Field(gt=0, le=13_500)
    folds: int = Field(default=5, ge=2, le=20)
    model: str = Field(default=TREES, min_length=1)
    """`trees`, or a language model as it was asked for."""
    template: Literal["compact", "wide", "diary", "compact-without-mass", "wide-without-mass"] = (
        "compact-without-mass"
    )
    """Of whose numbers the classifier sees the features."""
    selections: tuple[float, ...] = (0.01, 0.001)
    """Shares of all events that are selected."""
    seed: int = Field(default=1, ge=0, lt=2**31)

    @field_validator("selections")
    @classmethod
    def _falling(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if not shares or not all(0 < share < 1 for share in shares):
            raise ValueError("each selection is a share between 0 and 1")
        return tuple(sorted(set(shares), reverse=True))

    @field_validator("width")
    @classmethod
    def _fits(cls, width: float, info: ValidationInfo) -> float:
        low, high = info.data.get("low"), info.data.get("high")
        if low is not None and high is not None and low + width > high:
            raise ValueError(f"between {low:g} and {high:g} GeV no region of {width:g} GeV fits")
        return width

    @field_validator("fit_low", "fit_high")
    @classmethod
    def _reaches_over(cls, edge: float, info: ValidationInfo) -> float:
        if {"low", "high"} <= info.data.keys():
            low, high = info.data["low"], info.data["high"]
            if edge >= low if info.field_name == "fit_low" else edge <= high:
                raise ValueError(
                    f"{edge:g} GeV; a fit has to reach beyond the regions, from below {low:g} to above {high:g} GeV"
                )
        return edge

    @field_validator("template")
    @classmethod
    def _without_mass(cls, template: str) -> str:
        if knows_mass(template):
            raise ValueError(
                f"{template} holds m_jj or determines it: a classifier of a region would learn nothing "
                f"but the region, and every selection by it be a bump. Use one that ends in {WITHOUT_MASS}"
            )
        return template

    @property
    def regions(self) -> list[tuple[float, float]]:
        """[low, high) of each region, GeV."""
        step = self.width / 2
        count = int((self.high - self.low - self.width) / step + 1e-9) + 1
        return [(self.low + at * step, self.low + at * step + self.width) for at in range(count)]


class SearchConfig(RegionsConfig):
    """A search for a resonance in m_jj without labels: where it is looked for, and by what."""

    seeds: int = Field(default=1, ge=1, le=100)
    """Trainings whose scores are averaged, for each region and fold."""
    shuffles: int = Field(default=10, ge=0, le=10_000)
    """Searches with the m_jj of other events, of which it is learnt how wide significances are spread by chance."""
    pseudo_experiments: int = Field(default=1000, ge=10, le=1_000_000)

    @property
    def n_trainings(self) -> int:
        """A training for each region, seed and fold."""
        return len(self.regions) * self.seeds * self.folds


class ScanConfig(RegionsConfig):
    """What a search would find of so many signal events: of its regions the one that holds most of them is tested."""

    put_in: tuple[int, ...] = Field(min_length=1)
    """Numbers of signal events among the background, in the range of the fit."""
    seeds: int = Field(default=3, ge=1, le=100)
    """Draws of each number of signal events, with folds and trainings of their own."""

    @field_validator("put_in")
    @classmethod
    def _rising(cls, numbers: tuple[int, ...]) -> tuple[int, ...]:
        if min(numbers) < 0:
            raise ValueError("each is a number of signal events, from 0 on")
        return tuple(sorted(set(numbers)))

    @property
    def points(self) -> list[tuple[int, int]]:
        """Each number of signal events with each seed."""
        return [(n_signal, self.seed + at) for n_signal in self.put_in for at in range(self.seeds)]


AlarmKind = Literal["nan", "divergence", "collapse", "unknown", "overfitting"]
"""What the watchdog raises alarms about."""

Act = Literal["tell", "pause", "stop", "rollback"]
"""What follows an alarm: nothing but its being told, a pause, the end of training, or going back to the best
checkpoint with a lower learning rate."""


class TrainConfig(Grown):
    """A QLoRA fine-tuning. The defaults are the recipe that passes 0.835 in two minutes of two CPU cores."""

    LATER: ClassVar[Mapping[str, Any]] = {"answer_weight": 0.0}

    model_config = ConfigDict(allow_inf_nan=False)

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target: Literal["all-linear", "query-value"] = "all-linear"
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak; None: 1e-3 below a billion parameters, 2e-4 above."""
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps over which the rate rises linearly from zero."""
    batch_size: int = Field(default=8, ge=1)
    """Prompts in one forward pass; a GPU takes more at once where its memory has room. How a step is cut changes its
    result by rounding alone, and with dropout by the places that are dropped."""
    accumulation: int = Field(default=1, ge=1)
    """An optimizer step has `batch_size * accumulation` prompts."""
    max_memory: int | None = Field(default=None, ge=1 << 28)
    """Bytes of GPU memory that training and validation may take; None: all that is there."""
    compute: Literal["auto", "bf16", "fp8"] = "auto"
    """What a GPU multiplies in: bfloat16 where it has it, or 8 bits, e4m3 with a scale a row. `auto` takes 8 bits
    nowhere yet, as long as no measurement shows that nothing is lost by them."""
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Ends a run before its epochs do."""
    checkpoints: int = Field(default=4, ge=1)
    """Checkpoints over the run, evenly spaced, when `checkpoint_every` is not given."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Optimizer steps between two checkpoints."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    answer_weight: float | None = Field(default=0.0, ge=0)
    """Of the term that has the model answer in words, beside the loss over the two labels; None: 0.03, and less where
    there are many steps. 0, as in runs of before there was one: nothing but the choice between them is learnt."""
    class_weighted: bool = True
    """Weigh each class by the inverse of its share, so that both count the same in the loss."""
    sampling: Literal["natural", "balanced"] = "natural"
    """`balanced`: each step takes as many prompts of either class, the rarer one more often than once an epoch; then
    nothing is left to weigh."""
    max_tokens: int = Field(default=512, ge=8)
    """A longer prompt is refused, never truncated."""
    evaluation_batch: int = Field(default=32, ge=1)
    select: Literal["auc", "nll"] = "auc"
    """Which of the validation subset's metrics chooses the best checkpoint."""
    patience: int | None = Field(default=None, ge=1)
    """Checkpoints in a row without a better one after which training ends; None: it goes to its last step."""
    keep: int | None = Field(default=None, ge=1)
    """Newest checkpoints that stay, beside the best, the tagged and those not validated yet; None keeps all."""
    on_nan: Literal["pause", "stop", "rollback"] = "rollback"
    """What follows when loss or gradient is no number; without a checkpoint to go back to the run fails."""
    on_divergence: Act = "rollback"
    on_collapse: Act = "tell"
    on_unknown: Act = "tell"
    on_overfitting: Act = "tell"
    seed: int = Field(default=1, ge=0, lt=2**31)

    @property
    def waits_for_validation(self) -> bool:
        """Whether a validation may decide how training goes on, so that the next segment waits for it."""
        acts = {self.on_collapse, self.on_unknown, self.on_overfitting}
        return self.patience is not None or acts != {"tell"}


ANSWER_WEIGHT = 0.03
"""Teaches a model the two words within some 150 steps, and takes nothing from the choice that five seeds could tell:
docs/results.md."""

WEAK_TRAINING = TrainConfig(epochs=3.0, accumulation=32, answer_weight=0.0, sampling="balanced")
"""Of the language model of a search, as measured (docs/search.md). Both labels come equally often, so nothing is left
to weigh; nobody asks these models, which are gone once they scored their fold, so no word is learnt."""

# `diary`: the reference study's settings (r, alpha, dropout, rate, accumulation, saving, q and v only).
TRAIN_PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(answer_weight=None),
    "diary": TrainConfig(
        answer_weight=ANSWER_WEIGHT,
        rank=12,
        alpha=48.0,
        dropout=0.15,
        target="query-value",
        learning_rate=3e-5,
        batch_size=1,
        accumulation=16,
        checkpoint_every=100,
    ),
}
