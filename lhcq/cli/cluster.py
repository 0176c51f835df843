"""`lhcq cluster FILE --name NAME`."""

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.conventions import label_map_option, padding_option
from lhcq.cli.options import answer, json_option, traced, wait_option, workers_option
from lhcq.errors import BadInput

if TYPE_CHECKING:
    from lhcq.events.layout import EventFile
    from tasks.jobs import Job

_BYTES_PER_EVENT = {"jets": 600, "full": 1000}  # a clustered event, once in a part and once in the dataset
_LONG_TO_HASH = 500_000_000  # bytes


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
@click.option(
    "--features",
    type=click.Choice(["jets", "full"]),
    help="jets: momenta and constituents; full: N-subjettiness, soft drop, D2 and more too; overrides the preset.",
)
@click.option(
    "--labels",
    "key",
    type=click.Path(path_type=Path),
    help="The master key of a file without labels: one number an event, 0 background.",
)
@click.option(
    "--axes",
    type=click.Choice(["kt", "onepass-kt", "wta-kt"]),
    help="Axes of N-subjettiness. Default: kt; the others agree with the released files in shape.",
)
@padding_option
@label_map_option
@click.option(
    "--tolerate",
    type=click.FloatRange(min=0, max=1),
    default=0.0,
    show_default=True,
    help="Fraction of the events that may be left out because they cannot be used.",
)
@click.option(
    "--events-per-chunk", type=click.IntRange(min=1), help="Events in one task; default: about 3 s of it."
)
@workers_option
@wait_option
@json_option
@traced
def command(
    file: Path,
    name: str,
    key: Path | None,
    tolerate: float,
    events_per_chunk: int | None,
    workers: int | None,
    wait: bool,
    as_json: bool,
    **jets: Any,
) -> int:
    """Cluster the events of FILE into jets: one task a chunk, merged into the dataset NAME.

    Presets: lhco is anti-kt R=1.0, pt > 20 GeV, two leading jets; diary is anti-kt R=0.5, pt > 1200 GeV, all jets.
    A command that was stopped or killed goes on when it is given again, and does only what is missing.
    """
    from lhcq.cli.session import check_room, default_processes, open_workspace, run_job, session
    from lhcq.cli.status import done_parts
    from lhcq.events.apart import read_apart
    from lhcq.events.layout import open_event_file
    from lhcq.workspace import read_manifest
    from tasks.clustering import chunks_of
    from tasks.jobs import refuse_taken_name, renew_terms
    from tasks.workers import LocalWorker

    config = _config(**jets)
    if math.isnan(tolerate):  # which lies in every range
        raise click.BadParameter("nan is not a fraction.", param_hint="'--tolerate'")
    workspace = open_workspace()
    final = workspace.dataset(name)
    source = workspace.permitted(file.absolute())
    (events,) = read_apart(source, lambda: [open_event_file(source, config)])
    check_room(workspace.root, events.n_events * _BYTES_PER_EVENT[config.features])
    job = _job(name, events, config, key, tolerate, events_per_chunk)
    refuse_taken_name(workspace, job)
    renew_terms(workspace, job)  # before workers start that find messages of a command that was killed
    chunks = chunks_of(job)
    cut = f"{len(chunks)} chunks of about {job.spec['events_per_chunk']:,} events"
    if sys.stderr.isatty():
        click.echo(f"{job.title}: {events.n_events:,} events in {cut}", err=True)

    def count() -> tuple[int, str]:
        return events.n_events * done_parts(workspace, job) // len(chunks), ""

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
        text = _text(final, manifest, seconds, rate, cut)
        if events.ignored:
            text += f"\n  columns that were not read: {', '.join(events.ignored)}"
        answer(as_json, {**value, **_facts(manifest), "ignored_columns": list(events.ignored)}, text)
    return waited.code


def _job(
    name: str, events: "EventFile", config: Any, key: Path | None, tolerate: float, chunk: int | None
) -> "Job":
    """The request: its spec decides the result, its terms do not."""
    from lhcq.jets.plan import events_per_chunk, plan_chunks
    from lhcq.workspace import sha256_of
    from tasks.jobs import Job

    if key and events.labelled:
        raise BadInput(f"{events.path}: has labels of its own. Leave --labels out.")
    if key:
        from lhcq.events.masterkey import read_master_key

        read_master_key(key, events.n_events)  # a wrong one is refused before anything starts
    if sys.stderr.isatty() and events.size > _LONG_TO_HASH:
        click.echo(f"reading {events.path} once for its sha256 ({events.size / 1e9:.1f} GB)", err=True)
    status = events.path.stat()
    spec = {
        "source_sha256": sha256_of(events.path),
        "labels_sha256": sha256_of(key) if key else None,
        "n_events": events.n_events,
        "storage_rows": events.storage_rows,
        "events_per_chunk": chunk or events_per_chunk(events.n_events, config.features),
        "config": config.model_dump(),
    }
    terms = {
        "source": str(events.path),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "labels": str(key.absolute()) if key else None,
        "tolerate": tolerate,
    }
    parts = len(
        plan_chunks(events.n_events, storage_rows=events.storage_rows, target=spec["events_per_chunk"])
    )
    return Job(kind="cluster", name=name, created=time.time(), spec=spec, terms=terms, parts=parts)


def _config(preset: str, **overrides: Any) -> Any:
    from lhcq.config import CLUSTER_PRESETS, ClusterConfig

    given = {name: value for name, value in overrides.items() if value is not None}
    if given.get("max_jets") == 0:
        given["max_jets"] = None
    return ClusterConfig.checked(**{**CLUSTER_PRESETS[preset].model_dump(), **given})


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    keys = ("rows", "gaps", "duplicates", "labels", "events_by_n_jets", "config", "source_sha256", "files")
    return {key: manifest[key] for key in keys}


def _text(final: Path, manifest: dict[str, Any], seconds: float, rate: float, cut: str) -> str:
    from lhcq.duplicates import describe_duplicates

    labels, counts = manifest["labels"], manifest["events_by_n_jets"]
    duplicates = manifest["duplicates"]
    jets = ", ".join(f"{n}: {counts[n]:,}" for n in sorted(counts, key=int)[:8])
    jets += ", ..." if len(counts) > 8 else ""
    left_out = sum(gap["stop"] - gap["start"] for gap in manifest["gaps"])
    lines = [
        f"clustered {manifest['rows']:,} events in {seconds:.1f} s ({rate:,.0f} events/s, {cut}): {final}",
        f"  signal {labels['signal']:,}, background {labels['background']:,}, unlabelled {labels['unknown']:,}",
        f"  events by number of jets above {manifest['config']['pt_min']:g} GeV: {jets}",
        *(
            [f"  rows left out, since they cannot be used: {left_out:,} (the manifest lists them)"]
            if left_out
            else []
        ),
        *(
            [f"  {describe_duplicates(duplicates)}: a split keeps them together"]
            if duplicates and duplicates["rows"]
            else []
        ),
    ]
    return "\n".join(lines)
