"""Asking for the scores of a dataset's events."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lhcq.errors import BadInput, NotThere
from lhcq.events.masterkey import read_master_key
from lhcq.jets.definitions import compare_axes, unknown_jets
from lhcq.jets.plan import Chunks, plan_chunks
from lhcq.manifests import read_manifest
from lhcq.prompts.features import KNOWN, compute_features
from lhcq.prompts.particles import check_kept
from lhcq.prompts.templates import check_renders
from lhcq.records.checkpoints import adapter_sha256, require_checkpoint
from lhcq.records.commits import read_verified
from lhcq.records.events import (
    events_sha256,
    kept_constituents,
    names_of_jet,
    read_dataset,
    read_event_batches,
    read_schema,
)
from lhcq.records.jobs import Job, load_job
from lhcq.records.predictions import has_scores_of
from lhcq.records.shared_events import TOLD_BY, count_shared, describe_shared
from lhcq.records.specs import PredictSpec, PredictTerms, Template, TrainSpec
from lhcq.records.subsets import count_events, split_of_run, subset_sha256
from lhcq.records.tags import resolve_step
from lhcq.storage import MANIFEST, check_room, read_json, sha256_of
from lhcq.workspace import Workspace

# A stretch is some seconds on a GPU; a small dataset is cut finer, so that several workers share it.
_MOST_EVENTS, _FEWEST_EVENTS, _STRETCHES = 4096, 250, 16
_BYTES_PER_EVENT = 100
_JETS = ("algorithm", "radius", "pt_min", "max_jets")


REFERENCE = "calibration"
"""The subset of a split whose background p-values are taken against."""


class Stretches(NamedTuple):
    """What the chunks of a prediction score, the reference first, each by positions in its file."""

    reference: Chunks
    events: Chunks


def stretches_of(spec: PredictSpec) -> Stretches:
    """The stretches of a prediction."""
    reference, events = (
        plan_chunks(count, storage_rows=1, target=spec.events_per_chunk)
        for count in (spec.n_reference, spec.n_events)
    )
    return Stretches(reference, events)


def predict_request(
    workspace: Workspace,
    run: str,
    dataset: str,
    *,
    step: str = "best",
    name: str | None = None,
    key: Path | None = None,
    largest_p_value: float = 0.01,
    chunk: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Job:
    """The job that scores a dataset with a checkpoint of a run: a step, a tag, best or latest.

    `key` is the master key of a dataset without labels, `largest_p_value` that of a selected event, `chunk` the
    events of one task (None: by the dataset's size).

    Where a finished prediction has the same scores, they are used, and the job has no chunks. `name` None is
    RUN-DATASET; where that is such a prediction with another selection, it is RUN-DATASET-select-P.
    """
    usual = f"{run}-{dataset}"
    workspace.prediction(name or usual)
    trained = load_job(workspace, "train", run).spec_of(TrainSpec)
    at = resolve_step(workspace.run(run), step)
    checkpoint = require_checkpoint(workspace.checkpoint(run, at), what=f"checkpoint {at} of run {run!r}")
    split = split_of_run(workspace.split(trained.split), run, trained.split_sha256)
    directory = workspace.dataset(dataset)
    events = read_dataset(directory)
    check_events(directory, events, trained_on=workspace.dataset(split["dataset"]), split=split, say=say)
    n_source = events["rows"] + sum(gap["stop"] - gap["start"] for gap in events["gaps"])
    if key:
        _check_key(key, dataset, events, n_source)
    trained_on = events["source_sha256"] == split["source_sha256"]
    shared = None if trained_on else _count_shared(directory, workspace.split(trained.split), split)
    for warning in describe_shared(shared):
        say(warning)
    say(_what_can_be_selected(split["counts"][REFERENCE]["background"], largest_p_value))
    fine = max(_FEWEST_EVENTS, -(-events["rows"] // _STRETCHES))
    spec = PredictSpec.resolved(
        run=run,
        step=at,
        checkpoint_sha256=adapter_sha256(checkpoint),
        config=trained.config.model_dump(),
        model=trained.model,
        model_dir=trained.model_dir,
        base=trained.base.model_dump() if trained.base else None,
        split=trained.split,
        template=split["template"],
        n_reference=count_events(split, REFERENCE),
        reference_sha256=subset_sha256(split, REFERENCE),
        dataset=dataset,
        dataset_sha256=events_sha256(events),
        trained_on=trained_on,
        n_events=events["rows"],
        n_source=n_source,
        labels_sha256=sha256_of(key) if key else None,
        largest_p_value=largest_p_value,
        events_per_chunk=chunk or min(_MOST_EVENTS, fine),
    )
    check_room(workspace.root, _BYTES_PER_EVENT * spec.n_events)
    counted: dict[str, Any] = {} if shared is None else {"shared": shared}
    terms = PredictTerms(labels=str(key.absolute()) if key else None, **counted)
    alike = _with_the_same_scores(workspace, spec)
    if name is None:
        taken = alike.get(usual, largest_p_value) != largest_p_value
        name = f"{usual}-select-{largest_p_value}" if taken else usual
    if alike and name not in alike:
        scores_of = next(iter(alike))
        read_verified(
            workspace.prediction(scores_of), what=f"prediction {scores_of!r}", remedy="Predict again."
        )
        say(f"the scores of prediction {scores_of} are used: nothing is scored again.")
        return Job(
            kind=spec.kind, name=name, spec=spec, terms=terms.model_copy(update={"scores_of": scores_of})
        )
    n_chunks = sum(map(len, stretches_of(spec)))
    return Job(kind=spec.kind, name=name, spec=spec, terms=terms, parts=n_chunks)


def _count_shared(directory: Path, split_dir: Path, split: dict[str, Any]) -> dict[str, int] | None:
    """A dataset's events that stand in each subset of a split; None where one of both keeps no m_jj."""
    schema = read_schema(directory)
    if "mjj" not in schema.names:
        return None
    wanted = [one for one in KNOWN if one.name in TOLD_BY]
    of_jet = {*names_of_jet(schema)} & {"m", *(column for one in wanted if one.jet for column in one.columns)}
    columns = ["mjj", *(f"jets.list.element.{name}" for name in sorted(of_jet))]
    batches = (pa.Table.from_batches([one]) for one in read_event_batches(directory, columns))
    parts = [compute_features(batch, wanted) for batch in batches]
    features = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return count_shared(split_dir, split, features)


def _with_the_same_scores(workspace: Workspace, spec: PredictSpec) -> dict[str, float]:
    """The finished predictions with the scores that `spec` asks for: by name, the p-value that each selects by."""
    found = {}
    for directory in workspace.predictions:
        # One that is damaged must not stand in the way of others: whoever asks for it is told.
        with contextlib.suppress(FileNotFoundError, BadInput):
            manifest = read_json(directory / MANIFEST)
            if has_scores_of(manifest, spec):
                found[directory.name] = manifest["largest_p_value"]
    return found


def _what_can_be_selected(n_background: int, largest_p_value: float) -> str:
    """Before hours of scoring: what selection the background to compare with allows."""
    smallest = 1.0 / (n_background + 1)
    said = (
        f"p-values are taken against {n_background:,} background events of the split's {REFERENCE} subset: none is "
        f"below {smallest:.3g}"
    )
    if smallest <= largest_p_value:
        return f"{said}."
    return (
        f"{said}, so that no event will be selected by --select {largest_p_value:g}. Select by a larger one, or "
        "train on a larger split."
    )


def check_events(
    directory: Path,
    events: dict[str, Any],
    *,
    trained_on: Path,
    split: dict[str, Any],
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Refuse a dataset whose events cannot be written as the training's prompts were, or have other jets.

    `events` is its manifest, `split` that of the training, `trained_on` the dataset that this was made of.
    """
    dataset, template = directory.name, Template.checked(**split["template"])
    if events["rows"] == 0:
        raise BadInput(f"{dataset}: has no events.")
    try:
        check_renders(template, read_schema(directory))
        check_kept(template.constituents, kept_constituents(events))
    except BadInput as error:
        raise BadInput(f"{dataset}: {error}") from error
    own = split.get("jets") or _manifest_of_training(trained_on, split)
    if own is None:
        say(
            f"{split['dataset']}, which the run was trained on, is gone: whether the jets of {dataset} were found as "
            "those were cannot be told."
        )
        return
    if warning := compare_axes(template.columns, own, events, dataset=dataset):
        say(warning)
    ours, theirs = own.get("config"), events.get("config")
    if not ours or not theirs:  # imported: clustered elsewhere
        if warning := unknown_jets(ours, theirs, trained_on=split["dataset"], dataset=dataset):
            say(warning)
        return
    different = [f"{one} {theirs[one]}, not {ours[one]}" for one in _JETS if theirs[one] != ours[one]]
    if different:
        again = " of before" * (dataset == split["dataset"])
        raise BadInput(
            f"{dataset}: its jets are others than those of {split['dataset']}{again}, which the run was trained on "
            f"({'; '.join(different)}). Cluster its events as those were."
        )


def _manifest_of_training(directory: Path, split: dict[str, Any]) -> dict[str, Any] | None:
    """Of the dataset that a split of an earlier lhcq was made of; None where it is gone, or another by now."""
    try:
        own = read_manifest(directory, what="", remedy="")
    except NotThere:
        return None
    return own if events_sha256(own) == split["dataset_sha256"] else None


def _check_key(key: Path, dataset: str, events: dict[str, Any], n_source: int) -> None:
    if events["labels"]["unknown"] < events["rows"]:
        raise BadInput(f"{dataset}: has labels of its own. Leave --labels out.")
    read_master_key(key, n_source)  # a wrong one is refused before anything starts
