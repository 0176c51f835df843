"""`lhcq search DATASET`."""

import functools
import re
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import (
    choice_of,
    json_option,
    max_parallel_option,
    preset_option,
    priority_option,
    seed_option,
    told_by_option,
    traced,
    wait_option,
    workers_option,
)
from lhcq.cli.parameters import NameOf, NumberRange, example
from lhcq.config import TREES, WEAK_TRAINING, SearchConfig
from lhcq.records.specs import REGIONS_ASKED_AS

if TYPE_CHECKING:
    from lhcq.cli.session import Waited
    from lhcq.records.jobs import Job, Priority
    from lhcq.workspace import Workspace

_training = functools.partial(preset_option, presets={"default": WEAK_TRAINING})


def _numbers(count: int) -> Any:
    """Reads `count` numbers with `..` between."""

    def read(_: click.Context, parameter: click.Parameter, text: str | None) -> tuple[float, ...] | None:
        if text is None:
            return None
        pieces = text.split("..")
        if len(pieces) != count or not all(re.fullmatch(r"\d+(\.\d+)?", piece) for piece in pieces):
            form = "..".join(("LOW", "HIGH", "WIDTH")[:count])
            raise click.BadParameter(f"{text!r} is not {form} in GeV", param=parameter)
        return tuple(map(float, pieces))

    return read


def _counts(_: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise click.BadParameter(
            f"{text!r} is no list of numbers of events such as 0,300,600", param=parameter
        )
    return tuple(int(piece) for piece in text.split(","))


def _shares(_: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(piece) for piece in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no list of shares such as 0.01,0.001", param=parameter
        ) from None


@click.command(
    "search",
    epilog=example(
        "lhcq search box1 --regions 3000..6000..500",
        "lhcq search box1 --regions 3000..6000..500 --model smollm2 --max-steps 500",
        "lhcq search generated --scan 0,200,400,700,1000 --seeds 5",
    ),
)
@click.argument("dataset", type=NameOf("datasets"))
@click.option(
    "--regions",
    default="2900..5100..400",
    show_default=True,
    callback=_numbers(3),
    metavar="LOW..HIGH..WIDTH",
    help="Where in m_jj to look, GeV: regions of this width, each half a width further.",
)
@click.option(
    "--sideband",
    type=NumberRange(min=0, min_open=True),
    help="GeV at either side of a region, as far as the fit reaches, that its classifier compares it with. "
    "Default: a width.",
)
@click.option(
    "--fit",
    callback=_numbers(2),
    metavar="LOW..HIGH",
    help="Range of the background's fit, GeV; the spectrum has to fall from LOW on. Default: from half a width "
    "below the regions, or from a narrower --sideband, to six widths above.",
)
@click.option(
    "--folds",
    type=click.IntRange(2, 20),
    default=5,
    show_default=True,
    help="Each is scored by what learnt from the others.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    show_default="1; 3 with --scan",
    help="Trainings for each region and fold, whose scores are averaged; with --scan draws of the signal.",
)
@click.option(
    "--model",
    default=TREES,
    show_default=True,
    help="What tells regions from sidebands: trees, or a language model as `lhcq train` takes it.",
)
@_training("--epochs", type=float, help="Of a language model: how often each prompt is read.")
@_training(
    "--max-steps", type=int, none="as its epochs have", help="Of a language model: end after so many steps."
)
@click.option(
    "--batch-size",
    type=int,
    show_default=f"{WEAK_TRAINING.batch_size * WEAK_TRAINING.accumulation}, fewer of few events",
    help="Of a language model: prompts in a step.",
)
@_training(
    "--learning-rate",
    type=float,
    none="1e-3, or 2e-4 from a billion parameters on",
    help="Of a language model: peak rate.",
)
@click.option(
    "--beside",
    metavar="NAME",
    help="Of a language model: the search by trees to show beside it. Default: one of the same dataset, regions, "
    "folds, selections and fit.",
)
@click.option(
    "--template",
    type=choice_of(SearchConfig, "template"),
    default="compact-without-mass",
    show_default=True,
    help="Whose numbers the classifier sees; one without the mass.",
)
@click.option(
    "--select",
    "selections",
    default="0.01,0.001",
    show_default=True,
    callback=_shares,
    metavar="SHARES",
    help="Shares of all events to select, the most signal-like.",
)
@click.option(
    "--shuffles",
    type=click.IntRange(min=0),
    show_default="10; 0 with a language model",
    help="Whole searches among the same events with each other's m_jj, by which significances are calibrated.",
)
@click.option(
    "--pseudo-experiments",
    type=click.IntRange(min=10),
    show_default="1000",
    help="Of background alone, for the global p-value.",
)
@seed_option
@click.option(
    "--scan",
    "put_in",
    callback=_counts,
    metavar="N,N,...",
    help="Do not search: put so many of DATASET's signal events among its background, which needs labels, and tell "
    "what the region with most of them would show of each number. Default: a search.",
)
@click.option("--name", help="Name of the search. Default: DATASET, or DATASET-MODEL.")
@priority_option
@max_parallel_option
@workers_option
@wait_option
@json_option
@traced
def command(
    dataset: str,
    regions: tuple[float, float, float],
    sideband: float | None,
    fit: tuple[float, float] | None,
    model: str,
    epochs: float | None,
    max_steps: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    beside: str | None,
    put_in: tuple[int, ...] | None,
    name: str | None,
    priority: "Priority",
    max_parallel: int | None,
    workers: int | None,
    wait: bool,
    as_json: bool,
    **config: Any,
) -> int:
    """Look for a resonance in DATASET without labels: where in m_jj, how sure, and what its events look like.

    In each region trees, or a language model, learn to tell its events from those of its sidebands, by features that
    do not know m_jj; the events most like the region's are selected by what has not seen them, and the selected
    spectrum is compared with a fit beside the region. A command that was stopped or killed goes on when it is given
    again.
    """
    from lhcq.cli.session import conclude, find_workspace, have_done, say
    from lhcq.requests.fine_tuning import fine_tuning, training_config
    from lhcq.requests.scan import scan_config, scan_request
    from lhcq.requests.search import search_config, search_request
    from tasks.client import progress_of, workers_for

    workspace = find_workspace()
    given = {key: value for key, value in config.items() if value is not None}
    given |= {"regions": regions, "sideband": sideband, "fit": fit, "model": model}
    if put_in is not None:
        _refuse_what_a_scan_has_not(beside=beside, **given)
    with told_by_option(**_words(sideband, fit)):
        asked = search_config(**given) if put_in is None else scan_config(put_in, **given)
        training = training_config(
            asked, epochs=epochs, max_steps=max_steps, batch_size=batch_size, learning_rate=learning_rate
        )
    tuning = fine_tuning(workspace, dataset, asked, training, say=say)
    if isinstance(asked, SearchConfig):
        job = search_request(workspace, dataset, asked, name=name, tuning=tuning, beside=beside)
    else:
        job = scan_request(workspace, dataset, asked, name=name, tuning=tuning)
    job = job.asking(priority=priority, max_parallel=max_parallel)
    waited = have_done(
        workspace,
        job,
        workers_for(job, workers),
        measure=lambda: progress_of(workspace, job),
        again="Run the same command again to go on.",
        wait=wait,
        begin=lambda _: _say_what_it_takes(workspace, job),
    )
    told = _told if put_in is None else _told_of_scan
    return conclude(waited, job, lambda: told(workspace, job, waited), as_json=as_json)


def _words(sideband: float | None, fit: tuple[float, ...] | None) -> dict[str, str]:
    """What the places where a search looks were made of."""
    words = dict(REGIONS_ASKED_AS)
    if sideband is None:
        words["sideband"] = "--sideband, that width,"
    if fit is None:
        words |= {
            "fit_low": "where the fit begins, below --regions,",
            "fit_high": "where the fit ends",
        }
    return words


def _refuse_what_a_scan_has_not(**given: Any) -> None:
    from lhcq.errors import BadInput

    for name in ("beside", "shuffles", "pseudo_experiments"):
        if given.get(name) is not None:
            raise BadInput(
                f"--{name.replace('_', '-')}: of a search. With --scan there is none; leave it out."
            )


def _say_what_it_takes(workspace: "Workspace", job: "Job") -> None:
    """How many trainings a language model takes, and of this machine whether it can, and how long."""
    from lhcq.cli.session import say
    from lhcq.requests.fine_tuning import effort_of

    for line in effort_of(workspace, job):
        say(f"{job.title}: {line}")


def _told(workspace: "Workspace", job: "Job", waited: "Waited") -> tuple[dict[str, Any], str]:
    from lhcq.records.searches import page_file, read_found, scores_file
    from lhcq.records.specs import SearchSpec
    from lhcq.report.search import search_verdict, table_of_tests

    final = workspace.search(job.name)
    found = read_found(final)
    n_events = job.spec_of(SearchSpec).n_events
    lines = [
        f"searched {n_events:,} events{waited.took(n_events)}: {final}",
        table_of_tests(found),
        *(f"  {sentence}" for sentence in search_verdict(found)),
        str(page_file(final)),
    ]
    files = {"scores": str(scores_file(final)), "report": str(page_file(final))}
    return {**found, **files, "seconds": waited.seconds}, "\n".join(lines)


def _told_of_scan(workspace: "Workspace", job: "Job", waited: "Waited") -> tuple[dict[str, Any], str]:
    from lhcq.records.scans import page_file, read_found
    from lhcq.records.specs import ScanSpec
    from lhcq.report.scan import scan_verdict, table_of_points

    final = workspace.scan(job.name)
    found = read_found(final)
    n_points = len(job.spec_of(ScanSpec).config.points)
    lines = [
        f"scanned {n_points:,} points{waited.took(n_points)}: {final}",
        table_of_points(found),
        *(f"  {sentence}" for sentence in scan_verdict(found)),
        str(page_file(final)),
    ]
    return {**found, "report": str(page_file(final)), "seconds": waited.seconds}, "\n".join(lines)
