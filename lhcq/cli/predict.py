"""`lhcq predict RUN DATASET`."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import (
    force_option,
    json_option,
    max_parallel_option,
    priority_option,
    step_option,
    traced,
    wait_option,
)
from lhcq.cli.parameters import FilePath, NameOf, NumberRange, example

if TYPE_CHECKING:
    from lhcq.cli.session import Waited
    from lhcq.records.jobs import Job, Priority
    from lhcq.workspace import Workspace


@click.command("predict", epilog=example("lhcq predict first box1 --select 0.001"))
@click.argument("run", type=NameOf("runs"))
@click.argument("dataset", type=NameOf("datasets"))
@step_option
@click.option(
    "--labels",
    "key",
    type=FilePath(),
    help="The master key of a dataset without labels: one number an event, 0 background. Default: none.",
)
@click.option("--name", help="Name of the prediction. Default: RUN-DATASET, or RUN-DATASET-select-P.")
@click.option(
    "--select",
    "largest_p_value",
    type=NumberRange(min=0, max=1, min_open=True),
    default=0.01,
    show_default=True,
    help="The largest p-value of a selected event: the share of background that passes.",
)
@click.option(
    "--events-per-chunk",
    type=click.IntRange(min=1),
    help="Events in one task. Default: by the size of DATASET.",
)
@force_option
@priority_option
@max_parallel_option
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
    force: bool,
    priority: "Priority",
    max_parallel: int | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Score every event of DATASET with a checkpoint of RUN: P(signal), p-value, rank, and the m_jj spectrum.

    The p-value is (1 + background events of the split's calibration subset with a score at least as high) over (1 +
    all of them). With labels, in the dataset or by --labels, the full statistics are given; where DATASET is what RUN
    was trained on, of its test subset alone. A command that was stopped or killed goes on when it is given again.
    Another --select on a finished prediction is a prediction of its own, of the same scores.
    """
    from lhcq.cli.session import conclude, find_workspace, have_done, say
    from lhcq.records.specs import PredictSpec, PredictTerms
    from lhcq.requests.predict import predict_request
    from tasks.client import events_done, workers_for

    workspace = find_workspace()
    lines: list[str] = []
    job = predict_request(
        workspace,
        run,
        dataset,
        step=step,
        name=name,
        key=key,
        largest_p_value=largest_p_value,
        chunk=events_per_chunk,
        say=lines.append,
    )
    job = job.asking(priority=priority, max_parallel=max_parallel)
    total = job.spec_of(PredictSpec).n_events

    def begin(*_: Any) -> None:
        for line in lines:  # what is refused is refused in one line, before
            say(line)

    if wait and job.terms_of(PredictTerms).scores_of:  # sooner done than a worker starts
        waited = _select(workspace, job, begin, force=force)
    else:
        waited = have_done(
            workspace,
            job,
            workers_for(job),
            measure=lambda: events_done(workspace, job, total),
            again="Run the same command again to go on.",
            wait=wait,
            force=force,
            begin=begin,
        )
    return conclude(waited, job, lambda: _told(workspace, job, waited), as_json=as_json)


def _select(workspace: "Workspace", job: "Job", begin: "Callable[[], None]", *, force: bool) -> "Waited":
    """Have the job done in this process, which is harmless where workers are at it too."""
    from lhcq.cli.session import Waited, clear_way
    from lhcq.errors import JobEnded
    from tasks.client import do_here, refuse_taken_name

    if force:
        clear_way(workspace, job.kind, job.name, workspace.prediction(job.name))
    refuse_taken_name(workspace, job)
    begin()
    began = time.monotonic()
    outcome = do_here(workspace, job)
    if outcome.state != "done":
        raise JobEnded(f"{job.title}: {outcome.message}")
    return Waited(code=0, seconds=time.monotonic() - began)


def _told(workspace: "Workspace", job: "Job", waited: "Waited") -> tuple[dict[str, Any], str]:
    from lhcq.records.jobs import load_job
    from lhcq.records.predictions import page_file, read_summary, scores_file
    from lhcq.records.specs import PredictTerms
    from lhcq.report.prediction import prediction_metrics, prediction_verdict

    final = workspace.prediction(job.name)
    summary = read_summary(final)
    scores_of = (
        load_job(workspace, job.kind, job.name).terms_of(PredictTerms).scores_of
    )  # of an earlier command too
    total = summary["n_events"]
    rate = None if scores_of else waited.rate(total)
    already = " (done already)" if waited.seconds is None else ""
    done = (
        f"selected among the {total:,} events that prediction {scores_of} had scored{already}"
        if scores_of
        else f"scored {total:,} events{waited.took(total)}"
    )
    files = {"scores": str(scores_file(final)), "report": str(page_file(final))}
    lines = [
        f"{done} by step {summary['step']} of {summary['run']}: {final}",
        *(f"  {sentence}" for sentence in prediction_verdict(summary)),
        *(f"  {name}: {value}" for name, value in prediction_metrics(summary)),
        f"  most signal-like rows: {', '.join(str(event['row']) for event in summary['top'])}",
        str(page_file(final)),
    ]
    told = {**summary, **files, "scores_of": scores_of, "seconds": waited.seconds, "events_per_second": rate}
    return told, "\n".join(lines)
