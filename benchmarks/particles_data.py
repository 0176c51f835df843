"""The events of the benchmark of particles: those of the quality benchmark, with their constituents kept."""

from benchmarks.quality_data import SEED, key_of, make_parts
from lhcq.config import ClusterConfig, GenerateConfig
from lhcq.jets.merge import merge_parts
from lhcq.workspace import Workspace

CLUSTERING = ClusterConfig(features="full", constituents=40)
DATASET = "particles"


def make_events(place: Workspace, n_events: int, processes: int) -> None:
    """`n_events` of each class, clustered; what stands already is left."""
    config = GenerateConfig(background=n_events, signal=n_events, seed=SEED)
    scratch, n_parts = make_parts(place, config, processes, {DATASET: CLUSTERING})
    merge_parts(
        [scratch / DATASET / f"{index:05d}.parquet" for index in range(n_parts)],
        place.dataset(DATASET),
        n_events=2 * n_events,
        manifest_fields={
            "name": DATASET,
            "source": f"{n_events} + {n_events} events, seed {SEED}",
            "source_sha256": key_of(config),
            "config": CLUSTERING.model_dump(mode="json"),
        },
        features="full",
        constituents=True,
    )
