"""The making of a split: its subsets from a dataset, and the manifest that says what it was made from."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lhcq.config import SplitConfig
from lhcq.errors import BadInput, NameTaken
from lhcq.manifests import write_manifest
from lhcq.prompts.features import RATIOS, Feature, compute_features, features_of, record_columns
from lhcq.prompts.particles import Constituents, check_kept
from lhcq.prompts.split import Integers, assign_subsets, select
from lhcq.prompts.templates import describe_template, read_beside, render_as, render_moved
from lhcq.prompts.tokens import audit, tokens_of_letter
from lhcq.records.commits import differing
from lhcq.records.duplicates import duplicates_sha256, read_firsts
from lhcq.records.events import (
    events_sha256,
    jets_of,
    kept_constituents,
    read_dataset,
    read_event_batches,
    read_events,
    read_schema,
)
from lhcq.records.labels import LABELS
from lhcq.records.specs import Template
from lhcq.records.subsets import ROW_GROUP, split_schema, write_subset
from lhcq.storage import MANIFEST, read_json, staged_directory

Encode = Callable[[list[str]], list[list[int]]]


def write_split(
    dataset_dir: Path,
    final: Path,
    *,
    config: SplitConfig,
    encode: Encode | None = None,
    max_tokens: int = 512,
    model_name: str | None = None,
) -> dict[str, Any]:
    """Commit the split directory `final` from a dataset, and give its manifest.

    Events without a label are left out and counted. `encode` (a tokenizer of the model `model_name`) makes the token
    audit; without it, `tokens` is null. Raises `NotThere` without the dataset, `BadInput` where it has no labels or
    lacks what the template needs, is too small or damaged, or a prompt is longer than `max_tokens`, and `NameTaken`
    where `final` stands with another content; the same content is given.
    """
    dataset = read_dataset(dataset_dir)
    schema = read_schema(dataset_dir)
    with _naming(dataset_dir.name):
        template = describe_template(
            config.template, schema, constituents=config.constituents, frame=config.frame
        )
        if template.constituents:
            check_kept(template.constituents, kept_constituents(dataset))
    stored = _stored_features(schema, template)
    features = [feature.name for feature in stored]
    fields = {
        "dataset": dataset_dir.name,
        "dataset_sha256": events_sha256(dataset),
        "source_sha256": dataset["source_sha256"],
        "duplicates_sha256": duplicates_sha256(dataset),
        "config": config.model_dump(mode="json"),
        "template": template.model_dump(mode="json"),
        "features": features,
    }
    audited_for = model_name if encode else None
    if (final / MANIFEST).exists():
        return _check_standing(final, fields, audited_for)
    with _naming(dataset_dir.name):
        chosen, counts, unlabelled = _plan(dataset_dir, dataset, config)
    positions = np.sort(np.concatenate(list(chosen.values())))
    events = _render_events(dataset_dir, positions, template, stored)
    places = {name: np.searchsorted(positions, order) for name, order in chosen.items()}
    copies = []
    if config.copies > 1:
        train = places["train"]
        constituents = _read_constituents(dataset_dir, positions, template)
        copies = _moved_copies(
            events.take(pa.array(train)), template, config, constituents and constituents.take(train)
        )
    tokens = _audit([events, *copies], encode, max_tokens, model_name, template)
    with staged_directory(final) as directory:
        for name, order in places.items():
            moved = copies if name == "train" else []
            groups = (
                copy.slice(start, ROW_GROUP) for copy in moved for start in range(0, len(copy), ROW_GROUP)
            )
            write_subset(directory, name, groups if moved else _groups(events, order), features)
        made = {"counts": counts, "unlabelled": unlabelled, "tokens": tokens, "jets": jets_of(dataset)}
        write_manifest(directory, **fields, **made)
    return _check_standing(final, fields, audited_for)


def _check_standing(final: Path, fields: dict[str, Any], audited_for: str | None) -> dict[str, Any]:
    manifest: dict[str, Any] = read_json(final / MANIFEST)
    different = differing(manifest, fields)
    if (manifest["tokens"] or {}).get("model") != audited_for:
        different.append("token audit")
    if different:
        raise NameTaken(
            f"{final}: the split exists already, with another {', '.join(different)}. Choose another name."
        )
    return manifest


@contextlib.contextmanager
def _naming(dataset: str) -> Iterator[None]:
    """Put the dataset's name before what is wrong with it."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{dataset}: {error}") from error


def _plan(
    dataset_dir: Path, dataset: dict[str, Any], config: SplitConfig
) -> tuple[dict[str, Integers], dict[str, dict[str, int]], int]:
    """The events of each subset, how many of each class, and how many have no label."""
    table = read_events(dataset_dir, ["row", "label"])
    rows: Integers = table["row"].to_numpy()
    labels: NDArray[np.int8] = table["label"].fill_null(-1).to_numpy()
    firsts = read_firsts(dataset_dir, dataset, rows)
    subsets = assign_subsets(rows, labels, dataset_key=str(dataset["source_sha256"]), firsts=firsts)
    try:
        chosen = select(subsets, labels, config)
    except BadInput as error:
        if repeated := np.count_nonzero(firsts != rows):
            raise BadInput(
                f"{error} {repeated:,} of its rows repeat others, and all rows of one event are in one subset."
            ) from error
        raise
    counts = {
        name: {LABELS[label]: int(np.count_nonzero(labels[order] == label)) for label in (1, 0)}
        for name, order in chosen.items()
    }
    return chosen, counts, int(np.count_nonzero(labels < 0))


def _stored_features(schema: pa.Schema, template: Template) -> list[Feature]:
    """All of the dataset's, and what else the prompts hold: trees and copies read their numbers there."""
    own = [one for one in features_of(schema, RATIOS) if one.name in template.columns]
    return [*features_of(schema), *own]


def _render_events(
    dataset_dir: Path, positions: Integers, template: Template, features: Sequence[Feature]
) -> pa.Table:
    """The events at `positions` (sorted) with prompt and features."""
    # In pieces: in one, a million events with all features would be in memory twice for a moment.
    return pa.concat_tables(
        _to_prompts(records, template, features)
        for records in _read_records(dataset_dir, positions, template)
    )


def _read_constituents(dataset_dir: Path, positions: Integers, template: Template) -> Constituents | None:
    """The constituents that the prompts of the events at `positions` (sorted) hold; None where they hold none."""
    if not template.constituents:
        return None
    pieces = _read_records(dataset_dir, positions, template)
    return Constituents.joined(Constituents.of(records, template.constituents) for records in pieces)


def _read_records(dataset_dir: Path, positions: Integers, template: Template) -> Iterator[pa.Table]:
    start = 0
    columns = record_columns(read_schema(dataset_dir), *read_beside(template))
    for batch in read_event_batches(dataset_dir, columns, size=ROW_GROUP):
        stop = start + batch.num_rows
        low, high = np.searchsorted(positions, [start, stop])
        if low < high:
            yield pa.Table.from_batches([batch]).take(pa.array(positions[low:high] - start))
        start = stop


def _to_prompts(records: pa.Table, template: Template, features: Sequence[Feature]) -> pa.Table:
    computed = compute_features(records, features)
    columns = [records["row"], records["label"], pa.array(render_as(template, records), pa.large_string())]
    # In memory the prompts of a whole split may exceed the 2 GiB that 32-bit offsets address.
    return pa.Table.from_arrays(
        [*columns, *(pa.array(values) for values in computed.values())],
        schema=split_schema(list(computed), prompt=pa.large_string()),
    )


def _moved_copies(
    events: pa.Table, template: Template, config: SplitConfig, constituents: Constituents | None
) -> list[pa.Table]:
    """The training events as often as asked for, with other numbers in each copy's prompts."""
    features = {name: events[name].to_numpy() for name in template.columns}
    place = events.schema.get_field_index("prompt")
    return [
        events.set_column(
            place,
            events.schema.field(place),
            pa.array(render_moved(template, features, [config.seed, copy], constituents), pa.large_string()),
        )
        for copy in range(config.copies)
    ]


def _audit(
    tables: list[pa.Table],
    encode: Encode | None,
    max_tokens: int,
    model_name: str | None,
    template: Template,
) -> dict[str, Any] | None:
    if encode is None:
        return None
    events = pa.concat_tables(table.select(["row", "prompt"]) for table in tables)
    found = audit(events["prompt"].to_pylist(), encode, max_tokens=max_tokens, rows=events["row"].to_pylist())
    letter = {"letter": tokens_of_letter(encode)} if template.constituents else {}
    return {"model": model_name, "mean": found.mean, "p99": found.p99, "max": found.max, **letter}


def _groups(events: pa.Table, order: Integers) -> Iterator[pa.Table]:
    for start in range(0, len(order), ROW_GROUP):
        yield events.take(pa.array(order[start : start + ROW_GROUP]))
