"""`lhcq cluster FILE --name NAME`."""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.conventions import label_map_option, labels_option, padding_option
from lhcq.cli.options import (
    choice_of,
    force_option,
    json_option,
    max_parallel_option,
    preset_choice,
    preset_option,
    priority_option,
    told_by_option,
    traced,
    wait_option,
    workers_option,
)
from lhcq.cli.parameters import FilePath, NumberRange, example
from lhcq.config import CLUSTER_PRESETS, ClusterConfig, on_cluster_preset

if TYPE_CHECKING:
    from lhcq.cli.session import Waited
    from lhcq.events.layout import EventFile
    from lhcq.records.jobs import Job, Priority

_option = functools.partial(preset_option, presets=CLUSTER_PRESETS)


@click.command("cluster", epilog=example("lhcq cluster data/events_anomalydetection_v2.h5 --name lhco"))
@click.argument("file", type=FilePath())
@click.option("--name", required=True, help="Name of the dataset to make.")
@preset_choice(CLUSTER_PRESETS)
@_option("--algorithm", type=choice_of(ClusterConfig, "algorithm"), help="How jets are found.")
@_option("--radius", type=float, help="Jet radius R.")
@_option("--pt-min", type=float, help="GeV; jets below are dropped.")
@_option("--max-jets", type=click.IntRange(min=0), none="all", help="Leading jets to keep, 0 for all.")
@_option(
    "--features",
    type=choice_of(ClusterConfig, "features"),
    help="jets: momenta and constituents; full: N-subjettiness, soft drop, D2 and more too.",
)
@labels_option
@_option(
    "--constituents",
    type=click.IntRange(min=0),
    help="Hardest constituents to keep of each of the two leading jets.",
)
@_option(
    "--axes",
    type=choice_of(ClusterConfig, "axes"),
    help="Axes of N-subjettiness, of --features full; all but kt agree with the released files in shape.",
)
@padding_option
@label_map_option
@click.option(
    "--tolerate",
    type=NumberRange(min=0, max=1),
    default=0.0,
    show_default=True,
    help="Fraction of the events that may be left out because they cannot be used.",
)
@click.option(
    "--events-per-chunk", type=click.IntRange(min=1), help="Events in one task. Default: about 3 s of it."
)
@force_option
@workers_option
@priority_option
@max_parallel_option
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
    force: bool,
    priority: "Priority",
    max_parallel: int | None,
    wait: bool,
    as_json: bool,
    **jets: Any,
) -> int:
    """Cluster the events of FILE into jets: one task a chunk, merged into the dataset NAME.

    Presets: lhco is anti-kt R=1.0, pt > 20 GeV, two leading jets; diary is anti-kt R=0.5, pt > 1200 GeV, all jets.
    A command that was stopped or killed goes on when it is given again, and does only what is missing.
    """
    from lhcq.cli.session import conclude, have_done, open_workspace, say
    from lhcq.records.specs import ClusterSpec
    from lhcq.requests.cluster import cluster_request, find_events
    from tasks.client import events_done, workers_for

    config = _config(**jets)
    workspace = open_workspace()
    final = workspace.dataset(name)
    events = find_events(workspace, file, config, warn=say)
    job = cluster_request(
        workspace,
        events,
        name,
        config,
        key=key,
        tolerate=tolerate,
        chunk=events_per_chunk,
        say=say if sys.stderr.isatty() else lambda _: None,
    )
    job = job.asking(priority=priority, max_parallel=max_parallel)
    cut = f"{job.parts} chunks of about {job.spec_of(ClusterSpec).events_per_chunk:,} events"

    def begin(_: Any) -> None:
        if sys.stderr.isatty():
            click.echo(f"{job.title}: {events.n_events:,} events in {cut}", err=True)

    waited = have_done(
        workspace,
        job,
        workers_for(job, workers),
        measure=lambda: events_done(workspace, job, events.n_events),
        again="Run the same command again to go on.",
        wait=wait,
        force=force,
        begin=begin,
    )
    return conclude(waited, job, lambda: _told(final, job, events, waited, cut), as_json=as_json)


def _told(
    final: Path, job: "Job", events: "EventFile", waited: "Waited", cut: str
) -> tuple[dict[str, Any], str]:
    from lhcq.manifests import read_manifest

    manifest = read_manifest(final, what=f"dataset {job.name!r}", remedy="Run `lhcq cluster`.")
    rate = waited.rate(events.n_events)
    value = {
        "dataset": str(final), "seconds": waited.seconds, "events_per_second": rate, "chunks": job.parts
    }  # fmt: skip
    text = _text(final, manifest, waited.took(events.n_events, more=f", {cut}"))
    if events.ignored:
        text += f"\n  columns that were not read: {', '.join(events.ignored)}"
    return {**value, **_facts(manifest), "ignored_columns": list(events.ignored)}, text


def _config(preset: str, **overrides: Any) -> Any:
    given = {name: value for name, value in overrides.items() if value is not None}
    if given.get("max_jets") == 0:
        given["max_jets"] = None
    with told_by_option():
        return ClusterConfig.checked(**on_cluster_preset(preset, given))


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    keys = ("rows", "gaps", "duplicates", "labels", "events_by_n_jets", "config", "source_sha256", "files")
    # None in a dataset that an earlier lhcq made
    return {**{key: manifest[key] for key in keys}, "ties": manifest.get("ties")}


def _text(final: Path, manifest: dict[str, Any], took: str) -> str:
    from lhcq.records.duplicates import describe_duplicates

    labels, counts = manifest["labels"], manifest["events_by_n_jets"]
    duplicates = manifest["duplicates"]
    jets = ", ".join(f"{n}: {counts[n]:,}" for n in sorted(counts, key=int)[:8])
    jets += ", ..." if len(counts) > 8 else ""
    left_out = sum(gap["stop"] - gap["start"] for gap in manifest["gaps"])
    lines = [
        f"clustered {manifest['rows']:,} events{took}: {final}",
        f"  signal {labels['signal']:,}, background {labels['background']:,}, unlabelled {labels['unknown']:,}",
        f"  events by number of jets above {manifest['config']['pt_min']:g} GeV: {jets}",
        *(
            [f"  rows left out, since they cannot be used: {left_out:,} (the manifest lists them)"]
            if left_out
            else []
        ),
        *(
            [f"  events in which equal distances decided (docs/dataset.md): {manifest['ties']:,}"]
            if manifest.get("ties")
            else []
        ),
        *(
            [f"  {describe_duplicates(duplicates)}: a split keeps them together"]
            if duplicates and duplicates["rows"]
            else []
        ),
    ]
    return "\n".join(lines)
