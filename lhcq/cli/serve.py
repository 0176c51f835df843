"""`lhcq serve`."""

import threading

import click

from lhcq.cli.parameters import example


@click.command("serve", epilog=example("lhcq serve", "lhcq serve --port 8080"))
@click.option("--port", type=click.IntRange(min=1, max=65535), help="Default: 5550, or a free one.")
def command(port: int | None) -> None:
    """Show the workspace in a browser, on loopback, until Ctrl-C.

    Jobs with their progress, runs with losses and checkpoints as they come, logs and reports. It changes nothing,
    needs no broker, and its login is Flower's. `lhcq up` shows the page itself. From another machine:
    `ssh -L 5550:127.0.0.1:5550 HOST`.
    """
    from lhcq.cli.session import find_workspace, stop_at_signals
    from tasks.live.server import live_page

    stop = threading.Event()
    with live_page(find_workspace(), port) as page:
        stop_at_signals(stop)
        click.echo(f"page  {page.said}")
        click.echo("Ctrl-C ends it.")
        while not stop.wait(0.5):
            page.check()
