"""The recipe of a run, from the records of the jobs that made it: what `lhcq run` makes it again from.

What stands in the recipe is what was resolved, every default and seed included, so that another version's defaults
change nothing. What has no record (a dataset that was imported, a split whose job was removed) is named, and has to
stand in the workspace.
"""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lhcq.config import TRAIN_PRESETS, ClusterConfig, GenerateConfig, SplitConfig, TrainConfig
from lhcq.events.archive import CATALOGUE
from lhcq.records.jobs import MADE, Job, directory_of, find_job, list_jobs, load_job
from lhcq.records.specs import ClusterSpec, ClusterTerms, GenerateSpec, PrepareSpec, TrainSpec, TrainTerms
from lhcq.records.threads import threads_of
from lhcq.storage import read_json, staged_file
from lhcq.version import version as own_version
from lhcq.workspace import RunPaths, Workspace

Section = dict[str, Any]
_MAKERS = (
    "lhcq",
    "numpy",
    "numba",
    "fastjet",
    "pythia8mc",
    "scikit-learn",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
)
"""Packages whose versions a result may depend on."""


def write_recipe(workspace: Workspace, run: str) -> Path:
    """Write the recipe of a run beside its report; gives its path. A recipe that stands is left as it is."""
    path = RunPaths(workspace.run(run)).recipe
    if not path.exists():
        with staged_file(path) as temporary:
            temporary.write_text(recorded_recipe(workspace, run), "utf-8")
    return path


def recorded_recipe(workspace: Workspace, run: str) -> str:
    """The recipe of a run, as TOML; raises `NotThere` without the run."""
    job = load_job(workspace, "train", run)
    spec = job.spec_of(TrainSpec)
    sections: dict[str, Section] = {"train": _train(workspace, job)}
    notes = []
    prepared = find_job(workspace, "prepare", spec.split)
    if prepared is None:
        notes.append(f"the split {spec.split!r} has to stand in the workspace: its job is not recorded")
    else:
        of_split = prepared.spec_of(PrepareSpec)
        sections["prepare"] = _prepare(workspace, spec.split, of_split)
        clustered = find_job(workspace, "cluster", of_split.dataset)
        if clustered is None:
            notes.append(
                f"the dataset {of_split.dataset!r} has to stand in the workspace, made as it was, by `lhcq import`"
            )
        else:
            sections |= _events(workspace, clustered)
    order = ("fetch", "generate", "cluster", "prepare", "train")
    lines = [
        f"# Makes the run {run!r} again, from its events on: lhcq run recipe.toml",
        *(f"# Beforehand, {note}." for note in notes),
        f"name = {_toml(run)}",
    ]
    for name in order:
        if name in sections:
            lines += ["", f"[{name}]", *_lines(sections[name])]
    return "\n".join([*lines, "", "[made_by]", *_lines(made_by()), ""])


def made_by() -> dict[str, str]:
    """The versions, and the processor, that results may depend on; what is not installed is left out."""
    found = {"python": platform.python_version(), "system": f"{platform.system()}-{platform.machine()}"}
    found["lhcq"] = own_version()
    for package in _MAKERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _train(workspace: Workspace, job: Job) -> Section:
    spec = job.spec_of(TrainSpec)
    config = {name: value for name, value in _values(spec.config, TrainConfig).items() if value is not None}
    # What is None has no word in TOML: the usual preset has None wherever a configuration may.
    preset = (
        spec.preset
        if all(
            getattr(spec.config, name) is not None or value is None
            for name, value in _values(TRAIN_PRESETS[spec.preset], TrainConfig).items()
        )
        else "default"
    )
    found: Section = {
        "split": spec.split,
        "preset": preset,
        "model": _model(workspace, spec.model, spec.model_dir),
    }
    if spec.base is not None:
        found["weights"] = spec.base.weights
    if (track := job.terms_of(TrainTerms).track) is not None:
        found["track"] = track
    if (threads := threads_of(workspace, job)) is not None:
        found["threads"] = threads
    return found | config


def _prepare(workspace: Workspace, name: str, spec: PrepareSpec) -> Section:
    found: Section = {"name": name, "dataset": spec.dataset, "max_tokens": spec.max_tokens}
    if spec.model is not None:
        found["model"] = _model(workspace, spec.model, spec.model_dir or "")
    return found | {
        key: value for key, value in _values(spec.config, SplitConfig).items() if value is not None
    }


def _model(workspace: Workspace, name: str, directory: str) -> str:
    """A model as a recipe names it: what lhcq obtains by its name, or a directory by its whole path."""
    return str(workspace.root / directory) if Path(name).expanduser().is_dir() else name


def _events(workspace: Workspace, job: Job) -> dict[str, Section]:
    """The section that makes a dataset, and the one that its events came by."""
    spec, terms = job.spec_of(ClusterSpec), job.terms_of(ClusterTerms)
    config = _values(spec.config, ClusterConfig)
    cluster: Section = {
        "name": job.name, "sha256": spec.source_sha256, "tolerate": terms.tolerate,
        "events_per_chunk": spec.events_per_chunk,
    }  # fmt: skip
    cluster |= {key: 0 if key == "max_jets" and value is None else value for key, value in config.items()}
    if terms.labels is not None:
        cluster["labels"] = terms.labels
    source = Path(terms.source)
    if (generated := _generated(workspace, terms.source, spec.source_sha256)) is not None:
        return {"generate": {"name": job.name, **_values(generated, GenerateConfig)}, "cluster": cluster}
    for entry in CATALOGUE:
        if entry.file == source.name and entry.size == terms.bytes:
            return {"fetch": {"file": entry.name}, "cluster": cluster}
    return {"cluster": {"file": terms.source, **cluster}}


def _generated(workspace: Workspace, source: str, sha256: str) -> GenerateConfig | None:
    """What the events of a file were generated by in this workspace; None where they were not."""
    for job in list_jobs(workspace):
        if isinstance(job.spec, GenerateSpec) and job.spec.out == source:
            made = directory_of(workspace, job) / MADE
            if made.is_file() and read_json(made)["sha256"] == sha256:
                return job.spec.config
    return None


def _values(config: Any, model: Any) -> Section:
    return {name: getattr(config, name) for name in model.model_fields}


def _lines(section: Section) -> list[str]:
    return [f"{_key(name)} = {_toml(value)}" for name, value in section.items()]


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)  # whose words, numbers and truths are TOML's as well
