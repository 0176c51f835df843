"""`lhcq workers submit|pending|ping`: workers on other machines."""

import re
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import example
from tasks.settings import QUEUES

if TYPE_CHECKING:
    from lhcq.workspace import Workspace
    from tasks.client import WorkerKind

KINDS = click.Choice(QUEUES)
_REPLY_SECONDS = 2.0
_NO_BROKER = "redis://BROKER:6379/0"
"""What a dry run shows where no broker is configured."""
_MEGABYTES_A_PROCESS = (
    1024  # benchmarks/results/memory.json has the peak of one, and Celery's main process comes with it
)


def read_duration(_: click.Context, parameter: click.Parameter, value: str) -> int:
    """Seconds of `H:MM`, `H:MM:SS`, one of these after `DAYS-`, or minutes; enough to work before the drain."""
    from lhcq.cli.batch import DRAIN_SECONDS

    found = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d)(?::([0-5]\d))?|(\d+)", value)
    if not found:
        raise click.BadParameter(f"{value!r} is neither minutes nor [DAYS-]H:MM[:SS].", param=parameter)
    days, hours, minutes, seconds, only = (int(word or 0) for word in found.groups())
    duration = ((days * 24 + hours) * 60 + minutes + only) * 60 + seconds
    if duration <= 2 * DRAIN_SECONDS:
        raise click.BadParameter(
            f"a worker takes no more work {DRAIN_SECONDS // 60} minutes before its limit, so give more than "
            f"{2 * DRAIN_SECONDS // 60}.",
            param=parameter,
        )
    return duration


@click.group("workers", epilog=example("lhcq workers submit --slurm 20 --time 4:00"))
def command() -> None:
    """Workers on other machines: submit them to a batch system, see what waits for them, ask whether they live."""


@command.command(
    "submit",
    epilog=example(
        "lhcq workers submit --slurm 20 --time 4:00 --option partition=long",
        "lhcq workers submit --condor 20 --dry-run",
    ),
)
@click.option("--slurm", type=click.IntRange(min=1), metavar="N", help="Submit a job array of N workers.")
@click.option("--condor", type=click.IntRange(min=1), metavar="N", help="Submit N jobs to HTCondor.")
@click.option("--queue", "kind", type=KINDS, default="cpu", show_default=True, help="Kind of the workers.")
@click.option(
    "--time",
    "seconds",
    callback=read_duration,
    default="2:00",
    show_default=True,
    help="Time limit of a worker.",
)
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of a worker."
)
@click.option("--memory", type=click.IntRange(min=1), help="MB of a worker. Default: 1,024 a process.")
@click.option(
    "--idle", type=click.IntRange(min=1), help="Seconds without work after which one ends. Default: 300."
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="LINE",
    help='One more line for the batch system, such as partition=long or +JobFlavour="longlunch".',
)
@click.option("--dry-run", is_flag=True, help="Print what would be submitted, and write nothing.")
@json_option
def submit(
    slurm: int | None,
    condor: int | None,
    kind: "WorkerKind",
    seconds: int,
    processes: int,
    memory: int | None,
    idle: int | None,
    options: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Have a batch system run workers that come back until the work is done.

    Each worker ends when it finds nothing to do for a while. Two minutes before its time limit it takes no more
    work, ends what it has, and, if something is left to do, asks to be run again. The scripts stand in
    WORKSPACE/batch, the logs beside them.
    """
    from lhcq.cli.batch import IDLE_SECONDS, Worker, condor_description, condor_script, slurm_script
    from lhcq.cli.session import find_workspace

    if (slurm is None) == (condor is None):
        raise click.UsageError("give either --slurm N or --condor N")
    workspace = find_workspace()
    worker = Worker.checked(
        kind=kind,
        lhcq=Path(sysconfig.get_path("scripts")) / "lhcq",
        environment=_environment(workspace, dry_run=dry_run),
        processes=processes,
        megabytes=memory or _MEGABYTES_A_PROCESS * processes,
        seconds=seconds,
        idle=idle or IDLE_SECONDS,
    )
    script = workspace.batch_script(f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}")
    if slurm:
        files = {script: slurm_script(worker, slurm, script, options)}
        order = ["sbatch", "--parsable", str(script)]
    else:
        description = script.with_suffix(".submit")
        files = {
            script: condor_script(worker),
            description: condor_description(worker, condor or 0, script, options),
        }
        order = ["condor_submit", "-terse", str(description)]
    if dry_run:
        shown = "\n".join(f"# {path}\n{text}" for path, text in files.items()) + f"# {' '.join(order)}"
        answer(as_json, {"files": {str(path): text for path, text in files.items()}, "command": order}, shown)
        return 0
    number = _submit(files, order)
    answer(
        as_json,
        {"files": list(map(str, files)), "command": order, "job": number},
        f"job {number}: {slurm or condor} {kind} workers; {script}",
    )
    return 0


@command.command("pending", epilog=example("lhcq workers pending cpu"))
@click.argument("kind", type=KINDS)
def pending(kind: "WorkerKind") -> int:
    """Print how many units of open jobs wait for a worker of this kind, or are under way, as the workspace tells."""
    from lhcq.cli.session import find_workspace
    from lhcq.records.jobs import list_jobs, outcome_of
    from tasks.client import pending_units, queue_of, queues_of

    workspace = find_workspace()
    queues = queues_of(kind)
    units = (
        unit
        for job in list_jobs(workspace)
        if outcome_of(workspace, job) is None
        for unit in pending_units(workspace, job)
    )
    click.echo(sum(queue_of(unit) in queues for unit in units))
    return 0


@command.command("ping", epilog=example("lhcq workers ping --host node1"))
@click.option("--host", help="Whose workers to ask. Default: this host's.")
@json_option
def ping(host: str | None, as_json: bool) -> int:
    """Ask the workers of a host whether they live; exit 1 if none answers within seconds."""
    import socket

    from lhcq.environment import Settings
    from lhcq.errors import BadInput, TransientError
    from tasks.client import app, ask_broker, own_workspace

    if Settings.from_environment().broker_url is None:
        raise BadInput("there is no broker to ask through: set LHCQ_BROKER_URL or LHCQ_BROKER_URL_FILE.")
    ask_broker(own_workspace())
    host = host or socket.gethostname()
    replies = app.control.broadcast(
        "ping", reply=True, timeout=_REPLY_SECONDS, pattern=f"*@{host}", matcher="glob"
    )
    names = sorted(name for reply in replies or [] for name in reply)
    if not names:
        raise TransientError(f"no worker of {host} answers.")
    answer(as_json, {"workers": names}, "\n".join(names))
    return 0


def _environment(workspace: "Workspace", *, dry_run: bool) -> dict[str, str]:
    """What a worker on another machine has to know; refuses a password that would stand in a script.

    In a `dry_run` without a broker an address that is none stands for its own.
    """
    import os

    from lhcq.cli.session import say
    from lhcq.environment import Settings, whole_path
    from lhcq.errors import BadInput
    from tasks.observe.tracing import public_variables

    settings = Settings.from_environment()
    environment = {"LHCQ_WORKSPACE": str(workspace.root)}
    if settings.broker_url is None:
        needed = "workers of a batch system need a broker: set LHCQ_BROKER_URL_FILE or LHCQ_BROKER_URL"
        if not dry_run:
            raise BadInput(f"{needed}.")
        say(f"{needed}. {_NO_BROKER} stands for it here.")
        environment["LHCQ_BROKER_URL"] = _NO_BROKER
    elif name := not os.environ.get("LHCQ_BROKER_URL") and os.environ.get("LHCQ_BROKER_URL_FILE"):
        environment["LHCQ_BROKER_URL_FILE"] = str(whole_path(name))
    elif "@" in settings.broker_url:
        raise BadInput(
            "LHCQ_BROKER_URL holds a password, and a batch script is for all to read. Write the address into a file "
            "of mode 0600 that the nodes can read, and name it by LHCQ_BROKER_URL_FILE instead."
        )
    else:
        environment["LHCQ_BROKER_URL"] = settings.broker_url
    for variable, path in (
        ("LHCQ_BROKER_CA", settings.broker_ca),
        ("LHCQ_BROKER_CERT", settings.broker_cert),
        ("LHCQ_BROKER_KEY", settings.broker_key),
    ):
        if path:
            environment[variable] = str(path)
    if settings.data_roots:
        environment["LHCQ_DATA_ROOTS"] = ":".join(map(str, settings.data_roots))
    if settings.log_format != "text":
        environment["LHCQ_LOG_FORMAT"] = settings.log_format
    return environment | public_variables()


def _submit(files: dict[Path, str], order: list[str]) -> str:
    """Write the files and hand them over; gives the batch system's number."""
    from lhcq.errors import BadInput, TransientError
    from lhcq.storage import explained_os_errors

    if not shutil.which(order[0]):
        raise BadInput(f"there is no {order[0]} here: run this where jobs are submitted, or use --dry-run.")
    for path, text in files.items():
        with explained_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
    done = subprocess.run(order, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TransientError(
            f"{order[0]} refused: {' '.join(done.stderr.split()).rstrip('.')}. See {order[-1]}."
        )
    return done.stdout.split()[0].partition(";")[0]
