"""What the quality benchmark trains: the rows of its table, and the levers, each one change of the same recipe."""

from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.quality_prompts import (
    COMPACT_FULL,
    FINE,
    JETS,
    NOISE,
    RECIPE,
    WIDE,
    WIDER,
    Column,
    Write,
    decimals,
    integers,
    letters,
    named,
    packed,
    percentiles,
)
from lhcq.config import TrainConfig
from lhcq.prompts.features import features_of
from lhcq.records.events import schema_of

RECIPE_CONFIG = TrainConfig(
    rank=16, alpha=32.0, dropout=0.05, learning_rate=1e-3, batch_size=512, epochs=2.0, checkpoints=1
)
ONE_EPOCH = RECIPE_CONFIG.model_copy(update={"epochs": 1.0})
STACKED = ("full", "wide")
"""Variants on whose features trees are fitted out of fold, to have their score in a prompt."""


def score_of(name: str) -> str:
    """The feature that the trees' stage adds: their P(signal)."""
    return f"trees_of_{name}"


def logit_of(name: str) -> str:
    """The same as 100 + 10 times its logit, between 0 and 200, which tells apart what is almost sure."""
    return f"logit_of_{name}"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One training."""

    what: str
    split: Literal["diary", "jets", "full"]
    columns: tuple[str, ...]
    """The features that its prompt holds."""
    write: Write | None = None
    """None: the prompt as the split has it."""
    config: TrainConfig = RECIPE_CONFIG
    way: Literal["lhcq", "dora", "channel"] = "lhcq"
    noise: dict[str, float] = field(default_factory=dict)
    """How far a feature of a training event is moved at random, at most, anew for each of the copies."""
    copies: int = 1
    """How often each training event comes."""
    table: Literal["templates", "levers"] = "levers"
    more: bool = False
    """Whether the events of `--more` are trained on too, by the trees beside it as well."""

    @property
    def measured(self) -> tuple[str, ...]:
        """The features that are measured: those of the trees beside it."""
        added = {feature(name) for name in STACKED for feature in (score_of, logit_of)}
        return tuple(name for name in self.columns if name not in added)


def _names(columns: tuple[tuple[str, float], ...]) -> tuple[str, ...]:
    return tuple(name for name, _ in columns)


_BOTH = ("heavy", "light")
DIARY = ("mjj", *(f"{name}_{jet}" for name in ("m", "pt") for jet in _BOTH), "delta_r", "n_particles")
JETS_COMPACT = ("mjj", "m_heavy", "m_light", "n_particles", "n_heavy", "n_light")
LEVERED = COMPACT_FULL
REFERENCE = "epochs-1"
"""What the levers are levers of."""


def _lever(what: str, way: Any = "lhcq", **changes: Any) -> Variant:
    """One change of the training."""
    config = ONE_EPOCH.model_copy(update=changes)
    return Variant(
        what=what, split="full", columns=_names(LEVERED), write=integers(LEVERED), config=config, way=way
    )


def _prompt(what: str, write: Write, columns: tuple[str, ...] = _names(LEVERED)) -> Variant:
    """Another prompt."""
    return Variant(what=what, split="full", columns=columns, write=write, config=ONE_EPOCH)


def _moved(what: str, columns: tuple[Column, ...] = LEVERED, **changes: Any) -> Variant:
    """Whole numbers, moved at random in each of four copies."""
    told = {"config": ONE_EPOCH, "noise": NOISE, "copies": 4, **changes}
    return Variant(what=what, split="full", columns=_names(columns), write=integers(columns), **told)


VARIANTS: dict[str, Variant] = {
    "diary": Variant(
        what="the study's prompt: four-momenta with ten decimals, half an epoch",
        split="diary",
        columns=DIARY,
        config=RECIPE_CONFIG.model_copy(update={"batch_size": 128, "epochs": 0.5}),
        table="templates",
    ),
    "jets": Variant(
        what="compact, on `--features jets`", split="jets", columns=JETS_COMPACT, table="templates"
    ),
    "full": Variant(
        what="compact, on `--features full`", split="full", columns=_names(COMPACT_FULL), table="templates"
    ),
    "recipe": Variant(
        what="m_jj, jet masses and tau21 in thousandths",
        split="full",
        columns=_names(RECIPE),
        write=integers(RECIPE),
        table="templates",
    ),
    "recipe-noise": _moved(
        "`recipe`, 4 epochs, each number moved a little at random, anew each time", RECIPE, table="templates"
    ),
    "wide": Variant(
        what="14 features", split="full", columns=_names(WIDE), write=integers(WIDE), table="templates"
    ),
    "wide-fine": Variant(
        what="14 features, those of `wide` with all their digits",
        split="full",
        columns=_names(FINE),
        write=integers(FINE),
        table="templates",
    ),
    "wide-noise": _moved("`wide`, the same way", WIDE, table="templates"),
    "wide-fine-noise": _moved("`wide-fine`, the same way", FINE, table="templates"),
    "wide-fine-more": _moved(
        "`wide-fine-noise`, and 400,000 more events to train on", FINE, table="templates", more=True
    ),
    "wide-fine-noise-8": _moved("`wide-fine-noise` with 8 epochs", FINE, copies=8, table="templates"),
    "wide-tree": _moved(
        "`wide-fine-noise` with the score of the trees beside it in the prompt, 2 epochs",
        (*FINE, (logit_of("wide"), 1.0)),
        copies=2,
        table="templates",
    ),
    "wider": Variant(
        what="27 features, 1 epoch",
        split="full",
        columns=_names(WIDER),
        write=integers(WIDER),
        config=ONE_EPOCH.model_copy(update={"batch_size": 256}),  # 512 do not fit twice into 80 GB
        table="templates",
    ),
    "jets-wide": Variant(
        what="9 features of `--features jets`",
        split="jets",
        columns=_names(JETS),
        write=integers(JETS),
        table="templates",
    ),
    "epochs-1": _lever("1 epoch, as all of these"),
    "rate-3e-4": _lever("learning rate 3e-4", learning_rate=3e-4),
    "rate-3e-3": _lever("learning rate 3e-3", learning_rate=3e-3),
    "constant": _lever("constant rate", schedule="constant"),
    "epochs-4": _lever("4 epochs", epochs=4.0),
    "rank-4": _lever("rank 4, alpha 8", rank=4, alpha=8.0),
    "rank-64": _lever("rank 64, alpha 128", rank=64, alpha=128.0),
    "query-value": _lever("LoRA on q and v alone", target="query-value"),
    "rslora": _lever("rsLoRA: alpha over the root of the rank (the same as alpha 128)", alpha=128.0),
    "no-dropout": _lever("no dropout", dropout=0.0),
    "batch-128": _lever("batch 128", batch_size=128),
    "packed": _prompt("digits without spaces", packed(LEVERED)),
    "decimals": _prompt("decimals", decimals(LEVERED)),
    "percentiles": _prompt("percentiles", percentiles(LEVERED)),
    "letters": _prompt("letters: 26 bins, a token each", letters(LEVERED)),
    "named": _prompt("named integers", named(LEVERED)),
    "reversed": _prompt("the features in the reverse order", integers(LEVERED[::-1])),
    "noise-4": _moved("4 epochs, each number moved a little at random, anew each time"),
    "rounding-4": _moved(
        "4 epochs, rounded at random, anew each time", noise={name: unit / 2 for name, unit in LEVERED}
    ),
    "noise-4-batch-128": _moved(
        "`noise-4` and batch 128", config=ONE_EPOCH.model_copy(update={"batch_size": 128})
    ),
    "dropout-3": _lever("dropout 0.3", dropout=0.3),
    "with-tree": _prompt(
        "the trees' score in the prompt",
        integers((*LEVERED, (score_of("full"), 0.001))),
        (*_names(LEVERED), score_of("full")),
    ),
    "letters-14": _prompt("letters, of 14 features", letters(WIDE), _names(WIDE)),
    "letters-27": _prompt("letters, of 27 features", letters(WIDER), _names(WIDER)),
    "dora": _lever("DoRA", "dora"),
    "channel": _lever("numeric channel: the same features as soft tokens before the text", "channel"),
    "channel-all": Variant(
        what="numeric channel: all 34 features as soft tokens before the text",
        split="full",
        columns=tuple(feature.name for feature in features_of(schema_of("full"))),
        write=integers(LEVERED),
        config=ONE_EPOCH,
        way="channel",
    ),
}
