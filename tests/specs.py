"""Specs and terms of jobs that could be, for tests that care about one or two of their values."""

from typing import Any

from lhcq.config import ClusterConfig, GenerateConfig, ScanConfig, SearchConfig, SplitConfig, TrainConfig
from lhcq.frozen import Frozen
from lhcq.records.jobs import Job
from lhcq.records.specs import SPECS, ClusterTerms, PredictTerms, Spec, Terms

_SHA = "0" * 64
_BASE = {"weights": _SHA, "config": _SHA, "tokenizer": _SHA}
_TEMPLATE = {"name": "compact", "version": 1, "sha256": _SHA, "columns": ["mjj"]}
_CONFIGS: dict[str, type[Frozen]] = {
    "generate": GenerateConfig,
    "cluster": ClusterConfig,
    "prepare": SplitConfig,
    "train": TrainConfig,
    "predict": TrainConfig,
    "search": SearchConfig,
    "scan": ScanConfig,
}
_REGIONS = {"low": 2900, "high": 3300, "width": 400, "sideband": 200, "fit_low": 2700, "fit_high": 5700}
_USUAL: dict[str, dict[str, Any]] = {
    "generate": {"out": "/out.h5", "config": {"background": 1, "signal": 1}},
    "cluster": {
        "source_sha256": _SHA,
        "labels_sha256": None,
        "n_events": 30,
        "storage_rows": 1,
        "events_per_chunk": 10,
        "config": {},
    },
    "prepare": {
        "dataset": "made",
        "dataset_sha256": _SHA,
        "config": {},
        "model": None,
        "model_dir": None,
        "max_tokens": 512,
    },
    "train": {
        "split": "made",
        "split_sha256": {},
        "model": "smollm2",
        "model_dir": "models/smollm2",
        "base": _BASE,
        "preset": "default",
        "config": {"learning_rate": 1e-3},
        "config_sha256": _SHA,
        "n_train": 80,
        "total_steps": 10,
        "checkpoint_steps": [10],
    },
    "predict": {
        "run": "run",
        "step": 10,
        "checkpoint_sha256": _SHA,
        "config": {},
        "model": "smollm2",
        "model_dir": "models/smollm2",
        "base": _BASE,
        "split": "made",
        "template": _TEMPLATE,
        "n_reference": 10,
        "reference_sha256": _SHA,
        "dataset": "made",
        "dataset_sha256": _SHA,
        "trained_on": False,
        "n_events": 20,
        "n_source": 20,
        "labels_sha256": None,
        "largest_p_value": 0.01,
        "events_per_chunk": 10,
    },
    "search": {
        "dataset": "made",
        "dataset_sha256": _SHA,
        "duplicates_sha256": None,
        "config": {
            **_REGIONS,
            **{"folds": 2, "shuffles": 1, "pseudo_experiments": 20},
        },
        "template": {**_TEMPLATE, "name": "compact-without-mass"},
        "n_events": 20,
        "per_chunk": 10,
    },
    "scan": {
        "dataset": "made",
        "dataset_sha256": _SHA,
        "duplicates_sha256": None,
        "config": {**_REGIONS, "folds": 2, "put_in": [0, 10], "seeds": 1},
        "region": [2900, 3300],
        "template": {**_TEMPLATE, "name": "compact-without-mass"},
        "n_background": 100,
        "n_signal": 80,
        "tuning": None,
    },
}


def spec_of(kind: str, **changes: Any) -> Spec:
    """A spec of a kind with some values of its own, or of its configuration, changed."""
    usual = _USUAL[kind]
    fields = set(_CONFIGS[kind].model_fields)
    config = {**usual["config"], **changes.pop("config", {})}
    config |= {name: changes.pop(name) for name in list(changes) if name in fields and name not in usual}
    return SPECS[kind].resolved(**{**usual, "config": _CONFIGS[kind](**config).model_dump(), **changes})


def terms_of(kind: str, **changes: Any) -> Terms:
    """Terms of a kind, with some values changed."""
    if kind == "cluster":
        usual: dict[str, Any] = {
            "source": "/events.h5",
            "bytes": 1,
            "mtime_ns": 1,
            "labels": None,
            "tolerate": 0.0,
        }
        return ClusterTerms(**{**usual, **changes})
    return PredictTerms(labels=None) if kind == "predict" else SPECS[kind].terms_model(**changes)


def job_of(
    kind: str = "cluster",
    name: str = "made",
    *,
    parts: int = 3,
    created: float = 1.0,
    terms: dict[str, Any] | None = None,
    **spec: Any,
) -> Job:
    """A job that could be asked for: a clustering into three chunks, unless told otherwise."""
    return Job(
        kind=kind,
        name=name,
        created=created,
        spec=spec_of(kind, **spec),
        terms=terms_of(kind, **(terms or {})),
        parts=parts,
    )
