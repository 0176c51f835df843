"""`lhcq flower`."""

import threading

import click

from lhcq.cli.parameters import example


@click.command("flower", epilog=example("lhcq flower --port 5556"))
@click.option("--port", type=click.IntRange(min=1, max=65535), help="Default: 5555, or a free one.")
def command(port: int | None) -> None:
    """Run Flower, the page of all workers and tasks, on loopback until Ctrl-C.

    Its login is made on first use and kept in the workspace, and so is what it has seen. `lhcq up` runs one itself.
    From another machine: `ssh -L 5555:127.0.0.1:5555 HOST`.
    """
    from lhcq.cli.session import open_workspace, stop_at_signals
    from lhcq.environment import Settings
    from lhcq.errors import BadInput
    from tasks.client import ask_broker, connect, running_broker
    from tasks.workers.flower import local_flower

    workspace = open_workspace()
    url = Settings.from_environment().broker_url or running_broker(workspace)
    if url is None:
        raise BadInput(
            "Flower needs a broker: set LHCQ_BROKER_URL, or start `lhcq up`, which runs Flower itself."
        )
    connect(url)
    ask_broker(workspace)
    stop = threading.Event()
    with local_flower(workspace, url, port) as flower:
        stop_at_signals(stop)
        click.echo(f"Flower  {flower.url}  login {flower.login} (kept in {flower.login_file})")
        click.echo("Ctrl-C stops it.")
        while not stop.wait(0.5):
            flower.check()
