"""`lhcq up`."""

import contextlib
import threading

import click

from lhcq.cli.options import workers_option
from lhcq.cli.parameters import example


@click.command("up", epilog=example("lhcq up"))
@click.option(
    "--port", type=click.IntRange(min=1, max=65535), help="Flower's port. Default: 5555, or a free one."
)
@click.option(
    "--gpu/--no-gpu", default=None, help="Run a training worker. Default: when lhcq[train] is installed."
)
@workers_option
def command(port: int | None, gpu: bool | None, workers: int | None) -> int:
    """Keep a broker, workers, the live page and Flower running for this workspace until Ctrl-C.

    Other commands of the workspace use them, and their jobs go on when the command ends. With LHCQ_BROKER_URL set,
    workers and Flower join that broker. `lhcq serve` shows the page alone.
    """
    from lhcq.cli.session import open_workspace, stop_at_signals
    from lhcq.environment import Settings
    from lhcq.extras import missing_for_training
    from tasks.client import (
        LocalWorker,
        ask_broker,
        connect,
        default_processes,
        embedded_broker,
        explained_silence,
        local_workers,
        staying_up,
    )
    from tasks.live.server import live_page
    from tasks.workers.flower import local_flower

    workspace = open_workspace()
    train = missing_for_training() is None if gpu is None else gpu
    wanted = [LocalWorker(kind="cpu", processes=workers or default_processes())]
    wanted += [LocalWorker(kind="gpu")] if train else []
    configured = Settings.from_environment().broker_url
    stop = threading.Event()
    with staying_up(workspace), contextlib.ExitStack() as stack:
        url = configured or stack.enter_context(embedded_broker(workspace))
        connect(url)
        ask_broker(workspace)
        stack.enter_context(explained_silence(workspace))
        running = stack.enter_context(local_workers(workspace, url, wanted, click.echo))
        flower = stack.enter_context(local_flower(workspace, url, port))
        page = stack.enter_context(live_page(workspace, None))
        stop_at_signals(stop)
        click.echo(f"workspace  {workspace.root}")
        click.echo(f"workers    {', '.join(worker.kind for worker in wanted)} (logs in {workspace.logs})")
        click.echo(f"page       {page.said}")
        click.echo(f"Flower     {flower.url}  login {flower.login} (kept in {flower.login_file})")
        click.echo("Ctrl-C stops them; open jobs go on with the next `lhcq up`.")
        while not stop.wait(0.5):
            running.check()
            page.check()
    return 0
