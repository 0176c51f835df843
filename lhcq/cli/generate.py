"""`lhcq generate OUT.h5`."""

import re
import time
from pathlib import Path

import click

from lhcq.cli.options import answer, json_option, traced, wait_option, workers_option

_BYTES_PER_EVENT = 13_000  # a compressed event of the output, and its part


@click.command("generate")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--background", type=click.IntRange(min=0), required=True, help="QCD dijet events.")
@click.option(
    "--signal", type=click.IntRange(min=0), required=True, help="W' (3.5 TeV) -> X Y -> qq qq events."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--detector/--no-detector",
    default=True,
    show_default=True,
    help="Particles as a CMS-like detector sees them, as in the released files, or as they were generated.",
)
@workers_option
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
    wait: bool,
    as_json: bool,
) -> int:
    """Generate events of the LHC Olympics R&D process with Pythia 8, in the LHCO layout.

    The same seed gives the same bytes, whatever the number of workers.
    """
    from lhcq.cli.session import check_room, default_processes, open_workspace, run_job, session
    from lhcq.cli.status import done_parts
    from lhcq.config import GenerateConfig
    from lhcq.errors import BadInput
    from lhcq.events.pythia import plan_parts, require_pythia
    from lhcq.storage import sha256_of_json
    from tasks.jobs.store import Job, refuse_taken_name
    from tasks.workers.local import LocalWorker

    config = GenerateConfig.checked(background=background, signal=signal, seed=seed, detector=detector)
    n_events = background + signal
    out = out.absolute()
    if n_events == 0:
        raise BadInput("nothing to generate: give --background or --signal above 0.")
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: no such directory to write {out.name} into. Make it first.")
    workspace = open_workspace()
    workspace.permitted(out)
    check_room(workspace.root, n_events * _BYTES_PER_EVENT)
    check_room(out.parent, n_events * _BYTES_PER_EVENT)
    parts = plan_parts(config)
    spec = {"out": str(out), "config": config.model_dump()}
    stem = re.sub(r"[^A-Za-z0-9]+", "-", out.stem).strip("-")[:40]
    name = f"{stem or 'events'}-{sha256_of_json(spec)[:8]}"
    job = Job(kind="generate", name=name, created=time.time(), spec=spec, parts=len(parts))
    refuse_taken_name(workspace, job)

    def count() -> tuple[int, str]:
        return n_events * done_parts(workspace, job) // len(parts), ""

    local = [LocalWorker(kind="cpu", processes=min(workers or default_processes(), len(parts)))]
    with session(workspace, local, detach=not wait) as current:
        if current.workers:
            require_pythia()
        waited = run_job(
            current,
            job,
            total=n_events,
            unit="events",
            count=count,
            again="Run the same command again to go on.",
            wait=wait,
        )
    seconds = waited.seconds
    if waited.finished and waited.code == 0:
        rate = n_events / seconds
        value = {"file": str(out), "events": n_events, "seconds": seconds, "events_per_second": rate}
        answer(
            as_json, value, f"generated {n_events:,} events in {seconds:.1f} s ({rate:,.0f} events/s): {out}"
        )
    elif not waited.finished:
        answer(as_json, {"job": job.title}, f"{job.title} is queued. `lhcq status` shows it.")
    return waited.code
