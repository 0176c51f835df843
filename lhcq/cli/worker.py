"""`lhcq worker cpu|gpu|validate`."""

import os
from typing import TYPE_CHECKING

import click

from lhcq.cli.parameters import example
from tasks.settings import QUEUES

if TYPE_CHECKING:
    from tasks.client import WorkerKind


@click.command("worker", epilog=example("lhcq worker cpu --processes 4"))
@click.argument("kind", type=click.Choice(QUEUES))
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Processes of a cpu worker. Default: one a core. The other kinds have one.",
)
@click.option(
    "--idle",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Leave after this long without work. Default: never.",
)
def command(kind: "WorkerKind", processes: int | None, idle: int | None) -> None:
    """Run one worker for the broker at LHCQ_BROKER_URL until Ctrl-C.

    cpu: clustering, generation, prompts, baseline. gpu: validation first, then training, on all GPUs that it sees
    (CUDA_VISIBLE_DEVICES). validate: validation alone, on a GPU of its own. SIGTERM lets it end what it works on and
    take no more.
    """
    from lhcq.cli.session import open_workspace
    from lhcq.environment import Settings
    from lhcq.errors import BadInput
    from tasks.client import (
        IDLE_VARIABLE,
        ask_broker,
        connect,
        default_processes,
        is_up,
        running_broker,
        worker_command,
        worker_environment,
    )

    workspace = open_workspace()
    url = Settings.from_environment().broker_url or (running_broker(workspace) if is_up(workspace) else None)
    if url is None:
        raise BadInput(
            "a worker needs a broker: set LHCQ_BROKER_URL, or start `lhcq up`, which runs workers itself."
        )
    connect(url)
    ask_broker(workspace)
    arguments = worker_command(kind, processes=processes or default_processes(), name=f"{os.getpid()}@%h")
    environment = worker_environment(workspace, url, kind)
    if idle:
        environment[IDLE_VARIABLE] = str(idle)
    os.execve(arguments[0], arguments, environment)  # noqa: S606
