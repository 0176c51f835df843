"""Clustering: one task a chunk of events, merged by a chord into one dataset."""

from pathlib import Path

from lhcq.config import ClusterConfig
from lhcq.errors import BadInput
from lhcq.workspace import MANIFEST, Workspace
from tasks.app import app
from tasks.jobs import Job
from tasks.parts import perform_merge, perform_part


@app.task(name="lhcq.cluster_part")
def cluster_part(name: str, index: int) -> str:
    """Cluster the events of one chunk."""
    return perform_part("cluster", name, index, _make)


@app.task(name="lhcq.cluster_merge")
def cluster_merge(name: str) -> str:
    """Merge all chunks into the dataset."""
    return perform_merge("cluster", name, _merge)


def _make(job: Job, index: int, path: Path) -> None:
    from lhcq.events.layout import open_event_file, read_rows
    from lhcq.jets.clustering import cluster_events
    from lhcq.jets.parts import fingerprint, write_part
    from lhcq.jets.plan import plan_chunks

    source = Path(job.spec["source"])
    file = open_event_file(source)
    if (source.stat().st_size, source.stat().st_mtime_ns) != (job.spec["bytes"], job.spec["mtime_ns"]):
        raise BadInput(f"{source}: changed since this job started. Start it again under another name.")
    chunk = plan_chunks(file.n_events, storage_rows=file.storage_rows, target=job.spec["events_per_chunk"])[
        index
    ]
    block = read_rows(file, chunk.start, chunk.stop)
    config = ClusterConfig.checked(**job.spec["config"])
    table = cluster_events(block.particles, config, rows=block.rows, labels=block.labels)
    write_part(path, table, fingerprint())


def _merge(workspace: Workspace, job: Job, parts: list[Path]) -> str:
    from lhcq.jets.merge import merge_parts

    final = workspace.dataset(job.name)
    if not (final / MANIFEST).exists():
        fields = {key: job.spec[key] for key in ("source", "source_sha256", "config")}
        merge_parts(parts, final, n_events=job.spec["n_events"], manifest_fields={"name": job.name, **fields})
    return f"{job.spec['n_events']} events in {final}"
