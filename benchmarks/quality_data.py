"""The events of the quality benchmark: generated, clustered as they come, split; the released ones beside them."""

import json
import multiprocessing
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.rows import say
from lhcq.config import ClusterConfig, FeatureSet, GenerateConfig, SplitConfig, on_cluster_preset
from lhcq.errors import BadInput
from lhcq.events.contents import hash_events
from lhcq.events.pythia import GeneratePart, generate_part, plan_parts
from lhcq.jets.clustering import cluster_events, compile_kernels
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import fingerprint, with_contents, write_part
from lhcq.prompts.features import compute_features
from lhcq.prompts.templates import render
from lhcq.prompts.writing import write_split
from lhcq.records.chunks import Chunk
from lhcq.storage import sha256_of_json, staged_file
from lhcq.workspace import Workspace

SEED = 20
MORE, CONFIG_KEY = "more.parquet", b"lhcq.config"
RELEASED = "events_anomalydetection_tiny.h5"
CLUSTERING: dict[FeatureSet, ClusterConfig] = {
    name: ClusterConfig(**on_cluster_preset("lhco", {"features": name})) for name in ("jets", "full")
}
# By name of the split: the dataset that it is of, and its template.
SPLITS: dict[str, tuple[FeatureSet, Any]] = {
    "diary": ("jets", "diary"),
    "jets": ("jets", "compact"),
    "full": ("full", "compact"),
}

Features = Mapping[str, NDArray[np.float64]]


def make_data(place: Workspace, n_events: int, processes: int) -> None:
    """`n_events` of each class, clustered and split; what stands already is left."""
    config = GenerateConfig(background=n_events, signal=n_events, seed=SEED)
    scratch, n_parts = make_parts(place, config, processes, CLUSTERING)
    for features, clustering in CLUSTERING.items():
        merge_generated(place, features, clustering, config, scratch / features, n_parts)
    for name, (features, template) in SPLITS.items():
        write_split(place.dataset(features), place.split(name), config=SplitConfig(template=template))


def make_more(place: Workspace, n_events: int, processes: int) -> None:
    """`n_events` of each class for training alone: their features, as a training part of a split has them."""
    path = place.root / MORE
    config = GenerateConfig(background=n_events, signal=n_events, seed=SEED + 1)
    if path.exists():
        if (there := events_of_more(place)) != (asked := config.model_dump(mode="json")):
            raise BadInput(
                f"{path}: holds the events of {there}, not of {asked}. Remove it, or take another --place."
            )
        return
    scratch, n_parts = make_parts(place, config, processes, {"full": CLUSTERING["full"]})
    chunks = (Chunk(scratch / "full" / f"{index:05d}.arrows") for index in range(n_parts))
    records = pa.Table.from_batches(batch for chunk in chunks for batch in chunk.batches())
    events = {"row": records["row"], "label": records["label"], **compute_features(records)}
    with staged_file(path) as temporary:
        table = pa.table(events).replace_schema_metadata(
            {CONFIG_KEY: json.dumps(config.model_dump(mode="json"))}
        )
        pq.write_table(table, temporary, compression="zstd")


def events_of_more(place: Workspace) -> dict[str, Any] | None:
    """What `make_more` generated; None where it has not."""
    path = place.root / MORE
    return json.loads(pq.read_schema(path).metadata[CONFIG_KEY]) if path.exists() else None


def merge_generated(
    place: Workspace,
    name: str,
    clustering: ClusterConfig,
    config: GenerateConfig,
    scratch: Path,
    n_parts: int,
) -> None:
    """Commit the dataset `name` of the events that `config` generates, of the parts of `make_parts` in `scratch`."""
    merge_parts(
        [scratch / f"{index:05d}.arrows" for index in range(n_parts)],
        place.dataset(name),
        n_events=config.background + config.signal,
        manifest_fields={
            "name": name,
            "source": f"{config.background} + {config.signal} events, seed {config.seed}",
            "source_sha256": key_of(config),
            "config": clustering.model_dump(mode="json"),
        },
        features=clustering.features,
        axes=clustering.axes,
        constituents=clustering.constituents > 0,
    )


def make_parts(
    place: Workspace, config: GenerateConfig, processes: int, sets: Mapping[str, ClusterConfig]
) -> tuple[Path, int]:
    """Generate and cluster; the directory of the parts, by name of the clustering, and how many there are."""
    parts = plan_parts(config)
    asked = {name: one.model_dump(mode="json") for name, one in sets.items()}
    scratch = place.root / "parts" / sha256_of_json([key_of(config), asked])[:12]
    say(f"data: {config.background + config.signal:,} events in {len(parts)} parts on {processes} processes")
    compile_kernels()
    starts = np.cumsum([0, *(part.n_events for part in parts)]).tolist()
    # Both classes from the start, so that the slower one does not come last.
    work = sorted(
        ((part, start, scratch, sets) for part, start in zip(parts, starts, strict=False)),
        key=lambda one: one[0].seed * 7 % 1009,
    )
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(make_part, work), start=1):
            if done % 100 == 0:
                say(f"data: {done} of {len(parts)} parts")
    return scratch, len(parts)


def key_of(config: GenerateConfig) -> str:
    """What tells generated events from others; that of a dataset made of them."""
    return sha256_of_json([config.model_dump(), version("pythia8mc")])


def make_part(work: tuple[GeneratePart, int, Path, Mapping[str, ClusterConfig]]) -> None:
    """Generate one part and cluster it; the particles themselves are not kept."""
    part, start, scratch, sets = work
    paths = {name: scratch / name / f"{part.index:05d}.arrows" for name in sets}
    if all(path.exists() for path in paths.values()):
        return
    particles, labels = generate_part(part)
    rows = np.arange(start, start + part.n_events)
    contents = hash_events(particles, np.count_nonzero(particles[:, :, 0], axis=1))
    for name, path in paths.items():
        table = cluster_events(particles, sets[name], rows=rows, labels=labels)
        write_part(path, [with_contents(table, contents)], fingerprint())


def make_released(place: Workspace, sets: Mapping[str, ClusterConfig]) -> None:
    """Cluster the released events, where LHCQ_TEST_DATA names their directory; `sets` are by name."""
    from lhcq.events.layout import open_event_file, read_rows

    if "LHCQ_TEST_DATA" not in os.environ:
        say("data: no released events, since LHCQ_TEST_DATA does not name their directory")
        return
    file = open_event_file(Path(os.environ["LHCQ_TEST_DATA"]) / RELEASED)
    block = read_rows(file, 0, file.n_events)
    for name, clustering in sets.items():
        table = cluster_events(
            block.particles, clustering, rows=np.arange(file.n_events), labels=block.labels
        )
        with staged_file(released_path(place, name)) as temporary:
            pq.write_table(table, temporary)


def released_path(place: Workspace, name: str) -> Path:
    """The released events, clustered as the set of this name."""
    return place.root / f"released-{name}.parquet"


def row_path(place: Workspace, name: str) -> Path:
    """What is known of a trained variant."""
    return place.root / "rows" / f"{name}.json"


def read_events(place: Workspace, split: str, part: str) -> pa.Table:
    """Row, label, prompt and features of one part of a split; of the part `released`, of the released events."""
    if part != "released":
        return pq.read_table(place.split(split) / f"{part}.parquet")
    features, template = SPLITS[split]
    records = pq.read_table(released_path(place, features))
    return pa.table(
        {
            "row": records["row"],
            "label": records["label"],
            "prompt": render(template, records),
            **compute_features(records),
        }
    )


def training_events(place: Workspace, split: str, *, more: bool) -> pa.Table:
    """The training part of a split, and with `more` what `make_more` made, which has no prompts."""
    events = read_events(place, split, "train")
    if not more:
        return events
    others = pq.read_table(place.root / MORE)
    events = events.select(others.column_names)
    return pa.concat_tables([events, others.cast(events.schema)])


def parts_of(place: Workspace) -> list[str]:
    """The parts that a classifier is scored on."""
    return ["validation", "test", *(["released"] if released_path(place, "full").exists() else [])]


def features_in(events: pa.Table) -> dict[str, NDArray[np.float64]]:
    """The feature columns, (n_events,) each."""
    return {
        name: events[name].to_numpy().astype(np.float64)
        for name in events.column_names
        if name not in ("row", "label", "prompt")
    }
