"""`lhcq generate OUT.h5`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import (
    force_option,
    json_option,
    max_parallel_option,
    priority_option,
    seed_option,
    told_by_option,
    traced,
    wait_option,
    workers_option,
)
from lhcq.cli.parameters import FilePath, example

if TYPE_CHECKING:
    from lhcq.records.jobs import Priority


@click.command("generate", epilog=example("lhcq generate events.h5 --background 5000 --signal 5000"))
@click.argument("out", type=FilePath())
@click.option("--background", type=click.IntRange(min=0), required=True, help="QCD dijet events.")
@click.option(
    "--signal", type=click.IntRange(min=0), required=True, help="W' (3.5 TeV) -> X Y -> qq qq events."
)
@seed_option
@click.option(
    "--detector/--no-detector",
    default=True,
    show_default=True,
    help="Particles as a CMS-like detector sees them, as in the released files, or as they were generated.",
)
@force_option
@workers_option
@priority_option
@max_parallel_option
@wait_option
@json_option
@traced
def command(
    out: Path,
    background: int,
    signal: int,
    seed: int,
    detector: bool,
    workers: int | None,
    force: bool,
    priority: "Priority",
    max_parallel: int | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Generate events of the LHC Olympics R&D process with Pythia 8, in the LHCO layout.

    The same seed gives the same bytes, whatever the number of workers.
    """
    from lhcq.cli.session import conclude, have_done, open_workspace
    from lhcq.config import GenerateConfig
    from lhcq.events.pythia import require_pythia
    from lhcq.requests.generate import generate_request
    from tasks.client import events_done, workers_for

    with told_by_option():
        config = GenerateConfig.checked(background=background, signal=signal, seed=seed, detector=detector)
    workspace = open_workspace()
    job = generate_request(workspace, out, config)
    job = job.asking(priority=priority, max_parallel=max_parallel)
    n_events = background + signal
    waited = have_done(
        workspace,
        job,
        workers_for(job, workers),
        measure=lambda: events_done(workspace, job, n_events),
        again="Run the same command again to go on.",
        wait=wait,
        force=force,
        begin=lambda current: require_pythia() if current.workers else None,
    )

    def told() -> tuple[dict[str, Any], str]:
        rate, file = waited.rate(n_events), out.absolute()
        value = {"file": str(file), "events": n_events, "seconds": waited.seconds, "events_per_second": rate}
        return value, f"generated {n_events:,} events{waited.took(n_events)}: {file}"

    return conclude(waited, job, told, as_json=as_json)
