"""`lhcq cluster FILE --name NAME`."""

import time
from pathlib import Path
from typing import Any

import click

from lhcq.cli.options import answer, json_option, wait_option, workers_option

_BYTES_PER_EVENT = 600  # a clustered event, once in a part and once in the dataset


@click.command("cluster")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the dataset to make.")
@click.option("--preset", type=click.Choice(["lhco", "diary"]), default="lhco", show_default=True)
@click.option("--algorithm", type=click.Choice(["antikt", "kt", "cambridge"]), help="Overrides the preset.")
@click.option("--radius", type=float, help="Jet radius R; overrides the preset.")
@click.option("--pt-min", type=float, help="GeV; jets below are dropped; overrides the preset.")
@click.option(
    "--max-jets", type=click.IntRange(min=0), help="Leading jets to keep, 0 for all; overrides the preset."
)
@click.option("--events-per-chunk", type=click.IntRange(min=1), help="Events in one task, about.")
@workers_option
@wait_option
@json_option
def command(
    file: Path,
    name: str,
    events_per_chunk: int | None,
    workers: int | None,
    wait: bool,
    as_json: bool,
    **jets: Any,
) -> int:
    """Cluster the events of FILE into jets: one task a chunk, merged into the dataset NAME.

    Presets: lhco is anti-kt R=1.0, pt > 20 GeV, two leading jets; diary is anti-kt R=0.5, pt > 1200 GeV, all jets.
    """
    from lhcq.cli.session import check_room, default_processes, open_workspace, run_job, session
    from lhcq.events.layout import open_event_file
    from lhcq.jets.plan import DEFAULT_EVENTS_PER_CHUNK, plan_chunks
    from lhcq.workspace import read_manifest, sha256_of
    from tasks.jobs import Job, refuse_taken_name
    from tasks.pending import finished_parts
    from tasks.workers import LocalWorker

    config = _config(**jets)
    workspace = open_workspace()
    final = workspace.dataset(name)
    source = file.absolute()
    events = open_event_file(source)
    target = events_per_chunk or DEFAULT_EVENTS_PER_CHUNK
    chunks = plan_chunks(events.n_events, storage_rows=events.storage_rows, target=target)
    check_room(workspace.root, events.n_events * _BYTES_PER_EVENT)
    status = source.stat()
    spec = {
        "source": str(source),
        "source_sha256": sha256_of(source),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "n_events": events.n_events,
        "events_per_chunk": target,
        "config": config.model_dump(),
    }
    job = Job(kind="cluster", name=name, created=time.time(), spec=spec, parts=len(chunks))
    refuse_taken_name(workspace, job)

    def count() -> tuple[int, str]:
        done = finished_parts(workspace, job)
        return sum(chunks[index].stop - chunks[index].start for index in done), ""

    processes = min(workers or default_processes(), len(chunks))
    with session(workspace, [LocalWorker(kind="cpu", processes=processes)], detach=not wait) as current:
        waited = run_job(
            current,
            job,
            total=events.n_events,
            unit="events",
            count=count,
            again="Run the same command again to go on.",
            wait=wait,
        )
    seconds = waited.seconds
    if not waited.finished:
        answer(as_json, {"job": job.title}, f"{job.title} is queued. `lhcq status` shows it.")
    elif waited.code == 0:
        manifest = read_manifest(final, what=f"dataset {name!r}", remedy="Run `lhcq cluster`.")
        rate = events.n_events / seconds
        value = {"dataset": str(final), "seconds": seconds, "events_per_second": rate, "chunks": len(chunks)}
        answer(as_json, {**value, **_facts(manifest)}, _text(final, manifest, seconds, rate, len(chunks)))
    return waited.code


def _config(preset: str, **overrides: Any) -> Any:
    from lhcq.config import CLUSTER_PRESETS, ClusterConfig

    given = {name: value for name, value in overrides.items() if value is not None}
    if given.get("max_jets") == 0:
        given["max_jets"] = None
    return ClusterConfig.checked(**{**CLUSTER_PRESETS[preset].model_dump(), **given})


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    keys = ("rows", "labels", "events_by_n_jets", "config", "source_sha256", "files")
    return {key: manifest[key] for key in keys}


def _text(final: Path, manifest: dict[str, Any], seconds: float, rate: float, chunks: int) -> str:
    labels, counts = manifest["labels"], manifest["events_by_n_jets"]
    jets = ", ".join(f"{n}: {counts[n]:,}" for n in sorted(counts, key=int)[:8])
    jets += ", ..." if len(counts) > 8 else ""
    return (
        f"clustered {manifest['rows']:,} events in {seconds:.1f} s ({rate:,.0f} events/s, {chunks} chunks): {final}\n"
        f"  signal {labels['signal']:,}, background {labels['background']:,}, unlabelled {labels['unknown']:,}\n"
        f"  events by number of jets above {manifest['config']['pt_min']:g} GeV: {jets}"
    )
