"""`lhcq predict RUN DATASET`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, json_option, traced, wait_option
from lhcq.errors import BadInput, NotThere

if TYPE_CHECKING:
    from lhcq.workspace import Workspace
    from tasks.jobs import Job

# A stretch is some seconds on a GPU; a small dataset is cut finer, so that several workers share it.
_MOST_EVENTS, _FEWEST_EVENTS, _STRETCHES = 4096, 250, 16
_BYTES_PER_EVENT = 100
_JETS = ("algorithm", "radius", "pt_min", "max_jets")


@click.command("predict")
@click.argument("run")
@click.argument("dataset")
@click.option("--step", default="best", show_default=True, help="A step of RUN, a tag, best or latest.")
@click.option(
    "--labels",
    "key",
    type=click.Path(path_type=Path),
    help="The master key of a dataset without labels: one number an event, 0 background.",
)
@click.option("--name", help="Name of the prediction. Default: RUN-DATASET.")
@click.option(
    "--select",
    "largest_p_value",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=0.01,
    show_default=True,
    help="The largest p-value of a selected event: the share of background that passes.",
)
@click.option("--events-per-chunk", type=click.IntRange(min=1), help="Events in one task.")
@wait_option
@json_option
@traced
def command(
    run: str,
    dataset: str,
    step: str,
    key: Path | None,
    name: str | None,
    largest_p_value: float,
    events_per_chunk: int | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Score every event of DATASET with a checkpoint of RUN: P(signal), p-value, rank, and the m_jj spectrum.

    The p-value is (1 + background events of the split's calibration part with a score at least as high) over (1 + all
    of them). With labels, in the dataset or by --labels, the full statistics are given; where DATASET is what RUN was
    trained on, of its test part alone. A command that was stopped or killed goes on when it is given again.
    """
    from lhcq.cli.session import check_room, open_workspace, run_job, session
    from lhcq.cli.status import done_parts
    from tasks.jobs import refuse_taken_name, renew_terms
    from tasks.workers import LocalWorker

    workspace = open_workspace()
    job = _job(
        workspace, run, dataset, step, key, name or f"{run}-{dataset}", largest_p_value, events_per_chunk
    )
    check_room(workspace.root, _BYTES_PER_EVENT * job.spec["n_events"])
    refuse_taken_name(workspace, job)
    renew_terms(workspace, job)
    total = job.spec["n_events"]
    with session(workspace, [LocalWorker(kind="gpu")], detach=not wait) as current:
        waited = run_job(
            current,
            job,
            total=total,
            unit="events",
            count=lambda: (total * done_parts(workspace, job) // job.parts, ""),
            again="Run the same command again to go on.",
            wait=wait,
        )
    if not waited.finished:
        answer(as_json, {"job": job.title}, f"{job.title} is queued. `lhcq status` shows it.")
    elif waited.code == 0:
        _tell(workspace, job, waited.seconds, as_json=as_json)
    return waited.code


def _job(
    workspace: "Workspace",
    run: str,
    dataset: str,
    step: str,
    key: Path | None,
    name: str,
    largest_p_value: float,
    events_per_chunk: int | None,
) -> "Job":
    """The request: its spec decides the result, its terms do not."""
    from lhcq.commits import read_verified, require_commit, split_of_run
    from lhcq.evaluate.tags import resolve_step
    from lhcq.workspace import sha256_of
    from tasks.jobs import Job, load_job
    from tasks.prediction import stretches_of

    workspace.prediction(name)
    trained = load_job(workspace, "train", run).spec
    at = resolve_step(workspace.run(run), step)
    checkpoint = require_commit(
        workspace.checkpoint(run, at), what=f"checkpoint {at} of run {run!r}", remedy="Look at `lhcq status`."
    )
    split = split_of_run(workspace.split(trained["split"]), run, trained["split_sha256"])
    events = read_verified(
        workspace.dataset(dataset),
        what=f"dataset {dataset!r}",
        remedy="Make it with `lhcq cluster` or `lhcq import`.",
    )
    _check_events(workspace, dataset, events, split)
    n_source = events["rows"] + sum(gap["stop"] - gap["start"] for gap in events["gaps"])
    if key:
        _check_key(key, dataset, events, n_source)
    fine = max(_FEWEST_EVENTS, -(-events["rows"] // _STRETCHES))
    spec = {
        "run": run,
        "step": at,
        "checkpoint_sha256": checkpoint["files"]["adapter_model.safetensors"]["sha256"],
        "config": trained["config"],
        "model": trained["model"],
        "model_dir": trained["model_dir"],
        **({"base": trained["base"]} if "base" in trained else {}),
        "split": trained["split"],
        "template": split["template"],
        "n_reference": sum(split["counts"]["calibration"].values()),
        "reference_sha256": split["files"]["calibration.parquet"]["sha256"],
        "dataset": dataset,
        "dataset_sha256": events["files"]["events.parquet"]["sha256"],
        "trained_on": events["source_sha256"] == split["source_sha256"],
        "n_events": events["rows"],
        "n_source": n_source,
        "labels_sha256": sha256_of(key) if key else None,
        "largest_p_value": largest_p_value,
        "events_per_chunk": events_per_chunk or min(_MOST_EVENTS, fine),
    }
    parts = sum(map(len, stretches_of(spec)))
    terms = {"labels": str(key.absolute()) if key else None}
    return Job(kind="predict", name=name, created=time.time(), spec=spec, terms=terms, parts=parts)


def _check_events(
    workspace: "Workspace", dataset: str, events: dict[str, Any], split: dict[str, Any]
) -> None:
    """Refuse a dataset whose events cannot be written as the training's prompts were, or have other jets."""
    import pyarrow.parquet as pq

    from lhcq.jets.definitions import compare_axes
    from lhcq.prompts.templates import Template, check_renders
    from lhcq.workspace import read_manifest

    directory = workspace.dataset(dataset)
    if events["rows"] == 0:
        raise BadInput(f"{dataset}: has no events.")
    try:
        check_renders(Template.checked(**split["template"]), pq.read_schema(directory / "events.parquet"))
    except BadInput as error:
        raise BadInput(f"{dataset}: {error}") from error
    try:
        own = read_manifest(workspace.dataset(split["dataset"]), what="", remedy="")
    except NotThere:  # it may have been removed since
        return
    if own["files"]["events.parquet"]["sha256"] != split["dataset_sha256"]:
        return
    if warning := compare_axes(split["template"]["columns"], own, events, dataset=dataset):
        click.echo(f"lhcq: {warning}", err=True)
    ours, theirs = own.get("config"), events.get("config")
    if not ours or not theirs:  # imported: clustered elsewhere
        return
    different = [f"{one} {theirs[one]}, not {ours[one]}" for one in _JETS if theirs[one] != ours[one]]
    if different:
        raise BadInput(
            f"{dataset}: its jets are others than those of {split['dataset']}, which the run was trained on "
            f"({'; '.join(different)}). Cluster its events as those were."
        )


def _check_key(key: Path, dataset: str, events: dict[str, Any], n_source: int) -> None:
    from lhcq.events.masterkey import read_master_key

    if events["labels"]["unknown"] < events["rows"]:
        raise BadInput(f"{dataset}: has labels of its own. Leave --labels out.")
    read_master_key(key, n_source)  # a wrong one is refused before anything starts


def _tell(workspace: "Workspace", job: "Job", seconds: float, *, as_json: bool) -> None:
    from lhcq.evaluate.predictions import PAGE, SCORES, SUMMARY
    from lhcq.report.prediction import prediction_figures, prediction_verdict
    from lhcq.workspace import read_json

    final = workspace.prediction(job.name)
    summary = read_json(final / SUMMARY)
    rate = summary["n_events"] / seconds
    files = {"scores": str(final / SCORES), "report": str(final / PAGE)}
    lines = [
        f"scored {summary['n_events']:,} events in {seconds:.1f} s ({rate:,.1f} events/s) by step {summary['step']} "
        f"of {summary['run']}: {final}",
        *(f"  {sentence}" for sentence in prediction_verdict(summary)),
        *(f"  {name}: {value}" for name, value in prediction_figures(summary)),
        f"  most signal-like rows: {', '.join(str(event['row']) for event in summary['top'])}",
        str(final / PAGE),
    ]
    answer(as_json, {**summary, **files, "seconds": seconds, "events_per_second": rate}, "\n".join(lines))
