"""What decides the result of a job, one model a kind; and its terms, which do not.

A spec stands in the job's record and is hashed into its identity, with everything that is asked for resolved: no
field waits for a default that another version may choose otherwise. So a field that is added has to leave the record
as it was where it has its default. Above 400 lines, since all kinds stand here, each with its terms.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field

from lhcq.config import (
    AlarmKind,
    ClusterConfig,
    Frame,
    GenerateConfig,
    ScanConfig,
    SearchConfig,
    SplitConfig,
    TrainConfig,
)
from lhcq.frozen import Frozen, Grown
from lhcq.storage import sha256_of_json

MOST_STEPS = 10_000_000
MOST_THREADS = 1024

REGIONS_ASKED_AS = {
    "low": "LOW of --regions",
    "high": "HIGH of --regions",
    "width": "WIDTH of --regions",
    "fit_low": "LOW of --fit",
    "fit_high": "HIGH of --fit",
    "selections": "--select",
    "put_in": "--scan",
}
"""By which options the fields of a search's or a scan's configuration are given."""

OF_RECIPES = ("target", "warmup_fraction", "max_grad_norm", "weight_decay", "evaluation_batch")
"""What of a training a recipe or a program gives, and no option."""

_TUNED_BY_OPTION = ("epochs", "max_steps", "batch_size", "learning_rate")
_TUNING_ASKED_AS = {
    **{
        f"tuning.config.{field}": field for field in TrainConfig.model_fields if field not in _TUNED_BY_OPTION
    },
    "tuning.config.accumulation": "passes a step, by --batch-size,",
}
"""What the training of a search's language model is asked for by; most follows from nothing but the version."""

_OF_DATASET = {"dataset_sha256": ("dataset",), "duplicates_sha256": ("dataset", "dataset_sha256")}
"""What a search or a scan has of its dataset by the name of that."""


class Terms(Frozen):
    """What of a request does not decide the result: the latest request's count."""

    def recorded(self) -> dict[str, Any]:
        """As it stands in the job's record."""
        return self.model_dump(mode="json", exclude_unset=True)


class Spec(Frozen):
    """What decides the result of a job of one kind."""

    kind: str
    bytes_version: ClassVar[int] = 1
    """Which bytes lhcq makes of such a spec: raised with any change of them."""
    terms_model: ClassVar[type[Terms]] = Terms
    asked_as: ClassVar[Mapping[str, str]] = {}
    """What a value is called where it is asked for, by its place here, where that is not by an option of its name."""
    follows: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Fields that nobody asks for by themselves, each with those that it follows from."""

    @classmethod
    def resolved(cls, /, **values: Any) -> Self:
        """A spec of today's request, with every field set; raises `BadInput` for values that cannot be."""
        return cls.model_validate(cls.checked(**values).model_dump(mode="json"))

    def recorded(self) -> dict[str, Any]:
        """As it stands in the job's record: what an older lhcq did not know is not there."""
        return self.model_dump(mode="json", exclude={"kind"}, exclude_unset=True)

    def identity(self) -> str:
        """Of all that decides a job's bytes: what is asked for, and which bytes this lhcq makes of that."""
        return self._identity(self.bytes_version)

    def _identity(self, bytes_version: int) -> str:
        return sha256_of_json({"kind": self.kind, "spec": self.recorded(), "bytes": bytes_version})[:16]

    def differences(self, earlier: "Spec") -> list[str]:
        """The values in which it differs from an earlier one, such as `--radius 0.5, was 1.0`.

        What follows from another that differs is not told: it is that one which somebody asked for otherwise.
        """
        if self.kind != earlier.kind:
            return [f"kind {self.kind}, was {earlier.kind}"]
        differing = list(_differences(earlier.model_dump(mode="json"), self.model_dump(mode="json")))
        changed = {place.partition(".")[0] for place, _, _ in differing}
        follow = {field for field in changed if not changed.isdisjoint(self.follows.get(field, ()))}
        return [
            f"{self.called(place)} {now}, was {was}"
            for place, now, was in differing
            if place.partition(".")[0] not in follow
        ]

    @classmethod
    def called(cls, place: str) -> str:
        """By what the value in a place is asked for: an option; what none gives has the name of its place."""
        _, of_config, field = place.rpartition("config.")
        return cls.asked_as.get(place) or (f"--{field.replace('_', '-')}" if of_config else place)


class GenerateSpec(Spec):
    """Generated events in one file."""

    kind: Literal["generate"] = "generate"
    out: str
    """Path of the file."""
    config: GenerateConfig


class ClusterTerms(Terms):
    """Where the source of a dataset stands now, and how much of it may be missing."""

    source: str
    bytes: int
    mtime_ns: int
    labels: str | None
    """Path of the master key."""
    tolerate: float = Field(ge=0, le=1)


class ClusterSpec(Spec):
    """A dataset, from the events of a file."""

    kind: Literal["cluster"] = "cluster"
    bytes_version = 3
    terms_model = ClusterTerms
    follows: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "n_events": ("source_sha256",),
        "storage_rows": ("source_sha256",),
    }
    source_sha256: str
    labels_sha256: str | None
    """Of the master key."""
    n_events: int = Field(ge=0)
    storage_rows: int = Field(ge=1)
    """Rows of a storage chunk of the file, at which chunks are cut."""
    events_per_chunk: int = Field(ge=1)
    config: ClusterConfig


class PrepareSpec(Spec):
    """A split: the prompts of a dataset, and trees fitted to it."""

    kind: Literal["prepare"] = "prepare"
    follows: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dataset_sha256": ("dataset",),
        "model_dir": ("model",),
    }
    dataset: str
    dataset_sha256: str
    config: SplitConfig
    model: str | None
    """For which tokens are counted; None: for none."""
    model_dir: str | None
    """Its directory: relative to the workspace where it lies inside."""
    max_tokens: int


class ModelIdentity(Frozen):
    """Three sha256 that tell a base model from others; a run's record holds them from its beginning."""

    weights: str
    """Of names, types, shapes and bytes of all tensors (blake2b, which is twice as fast, of each one's bytes)."""
    config: str
    """Of `config.json` without what changes no number."""
    tokenizer: str
    """Of the tokenizer, and of what it puts before a prompt."""


class FromBase(Grown):
    """A record that names a base model; those of an older lhcq do not say which weights it had."""

    LATER: ClassVar[Mapping[str, Any]] = {"base": None}

    model: str
    """As it was asked for."""
    model_dir: str
    """Its directory: relative to the workspace where it lies inside."""
    base: ModelIdentity | None = None


class OfBase(FromBase, Spec):
    """A spec that names a base model."""


class TrainTerms(Terms):
    """What a run tells beside its records."""

    track: str | None = None
    """A tracker."""
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    """Of a CPU, to be begun with; None: those of the worker that begins it."""


class TrainSpec(OfBase):
    """A run: the adapters of a base model, trained on a split."""

    kind: Literal["train"] = "train"
    terms_model = TrainTerms
    asked_as: ClassVar[Mapping[str, str]] = {
        **{f"config.on_{alarm}": f"--on-alarm {alarm}" for alarm in get_args(AlarmKind)},
        **{f"config.{field}": field for field in OF_RECIPES},
    }
    follows: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "split_sha256": ("split",),
        "model_dir": ("model",),
        "base": ("model",),
        "preset": ("config",),
        "config_sha256": ("config",),
        "n_train": ("split", "split_sha256"),
        "total_steps": ("split", "split_sha256", "config"),
        "checkpoint_steps": ("split", "split_sha256", "config"),
    }
    split: str
    split_sha256: dict[str, str]
    """By file."""
    preset: str
    config: TrainConfig
    config_sha256: str
    n_train: int
    total_steps: int = Field(ge=0, le=MOST_STEPS)
    checkpoint_steps: tuple[int, ...] = Field(min_length=1)


class PredictTerms(Terms):
    """Where the master key of a prediction stands now, whether its scores stand already, and what was seen before."""

    labels: str | None
    scores_of: str | None = None
    """The finished prediction whose scores are used; None where a model gives them. They are the same."""
    shared: Mapping[str, int] | None = None
    """Events in each subset of the run's split, of a dataset from another source: they follow from both. None where
    the dataset is the run's own, or neither keeps m_jj."""


class Template(Grown):
    """The identity of a template on a dataset: two splits with the same `sha256` read alike."""

    LATER: ClassVar[Mapping[str, Any]] = {"constituents": 0, "frame": None}

    name: str
    version: int
    sha256: str
    columns: tuple[str, ...]
    """What a prompt consists of, in its order: features, except of `diary`."""
    constituents: int = Field(default=0, ge=0)
    """How many of each leading jet at most are written behind them."""
    frame: Frame | None = None
    """The one that those are written in."""


class PredictSpec(OfBase):
    """A prediction: the scores that one checkpoint gives the events of a dataset."""

    kind: Literal["predict"] = "predict"
    bytes_version = 2
    terms_model = PredictTerms
    asked_as: ClassVar[Mapping[str, str]] = {"largest_p_value": "--select"}
    follows: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "checkpoint_sha256": ("run", "step"),
        **dict.fromkeys(("config", "model", "model_dir", "base", "split", "template"), ("run",)),
        **dict.fromkeys(("n_reference", "reference_sha256"), ("run", "split")),
        "trained_on": ("run", "dataset", "dataset_sha256"),
        "dataset_sha256": ("dataset",),
        "n_events": ("dataset", "dataset_sha256"),
        "n_source": ("dataset", "dataset_sha256"),
    }
    run: str
    step: int
    checkpoint_sha256: str
    """Of the adapter's weights."""
    config: TrainConfig
    """The run's."""
    split: str
    template: Template
    """The split's."""
    n_reference: int
    """Events of the calibration subset."""
    reference_sha256: str
    dataset: str
    dataset_sha256: str
    trained_on: bool
    """Whether the dataset is the one that the run was trained on."""
    n_events: int
    n_source: int
    """Rows of the dataset's source, those that were left out of it included."""
    labels_sha256: str | None
    """Of the master key."""
    largest_p_value: float = Field(gt=0, le=1)
    events_per_chunk: int = Field(ge=1)


class FineTuning(FromBase):
    """How a search or a scan trains a language model, once for each region, seed and fold."""

    config: TrainConfig
    """With its learning rate; each training has a seed of its own."""


class Beside(Frozen):
    """A finished search whose rows stand beside a search's own."""

    name: str
    identity: str
    """Of its spec."""


class SearchSpec(Grown, Spec):
    """A search for a resonance in a dataset without labels."""

    LATER: ClassVar[Mapping[str, Any]] = {"tuning": None, "beside": None}

    kind: Literal["search"] = "search"
    bytes_version = 2
    asked_as: ClassVar[Mapping[str, str]] = {
        f"config.{field}": words
        for field, words in REGIONS_ASKED_AS.items()
        if field in SearchConfig.model_fields
    } | _TUNING_ASKED_AS
    follows: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **_OF_DATASET,
        "n_events": ("dataset", "dataset_sha256", "config"),
        "tuning": ("config",),
    }
    dataset: str
    dataset_sha256: str
    duplicates_sha256: str | None
    """Of the record of duplicates, which share a fold."""
    config: SearchConfig
    template: Template
    """What the classifier sees."""
    n_events: int
    """In the range of the fit."""
    per_chunk: int = Field(ge=1)
    """Pseudo-experiments in one task."""
    tuning: FineTuning | None = None
    """Of the language model that tells regions from sidebands; None where trees do."""
    beside: Beside | None = None
    """The search by trees that is shown beside one by a language model."""

    def identity(self) -> str:
        """As of any spec; where events stand several times, folds were dealt otherwise by earlier versions."""
        return self._identity(self.bytes_version + (self.duplicates_sha256 is not None))


class ScanSpec(Spec):
    """A scan: what a search would find of so many signal events that are put among a dataset's background."""

    kind: Literal["scan"] = "scan"
    bytes_version = 2
    asked_as: ClassVar[Mapping[str, str]] = {
        f"config.{field}": words for field, words in REGIONS_ASKED_AS.items()
    } | _TUNING_ASKED_AS
    follows: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **_OF_DATASET,
        "region": ("dataset", "dataset_sha256", "config"),
        "n_background": ("dataset", "dataset_sha256", "config"),
        "n_signal": ("dataset", "dataset_sha256", "config"),
        "tuning": ("config",),
    }
    dataset: str
    dataset_sha256: str
    duplicates_sha256: str | None
    """Of the record of duplicates, which share a fold."""
    config: ScanConfig
    region: tuple[float, float]
    """GeV; the one that is tested."""
    template: Template
    """What the classifiers see."""
    n_background: int
    """In the range of the fit, as the next."""
    n_signal: int
    """Of which some are put in."""
    tuning: FineTuning | None
    """Of the language model that tells the region from its sidebands; None where trees do."""


SPECS: dict[str, type[Spec]] = {
    one.model_fields["kind"].default: one
    for one in (GenerateSpec, ClusterSpec, PrepareSpec, TrainSpec, PredictSpec, SearchSpec, ScanSpec)
}
"""By kind of job."""


def _differences(
    earlier: dict[str, Any], later: dict[str, Any], below: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """The place of each value that differs, with what it is and what it was."""
    for key in sorted(earlier.keys() | later.keys()):
        was, now = earlier.get(key), later.get(key)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now, f"{below}{key}.")
        elif was != now:
            yield f"{below}{key}", now, was
