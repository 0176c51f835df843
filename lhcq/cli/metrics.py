"""`lhcq metrics`."""

import threading

import click

from lhcq.cli.parameters import example

DEFAULT_ADDRESS = "127.0.0.1:9808"


@click.command("metrics", epilog=example("lhcq metrics --once"))
@click.option(
    "--listen",
    default=DEFAULT_ADDRESS,
    show_default=True,
    metavar="HOST:PORT",
    help="Where Prometheus finds them. There is no login: keep it on loopback or inside your network.",
)
@click.option("--once", is_flag=True, help="Print them and return.")
def command(listen: str, once: bool) -> None:
    """Tell Prometheus how jobs, runs, the broker and this host's GPUs are, until Ctrl-C.

    Read from the workspace and the broker when they are asked for. deploy/prometheus.yml scrapes them, and
    deploy/grafana/lhcq.json is a dashboard of them. Flower has its own beside them, at /metrics.
    """
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    from lhcq.cli.session import find_workspace, stop_at_signals
    from lhcq.errors import BadInput
    from tasks.observe.metrics import LhcqCollector

    host, port = _address(listen)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LhcqCollector(find_workspace()))
    if once:
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    stop = threading.Event()
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise BadInput(f"--listen {listen}: {error.strerror}. Choose another address.") from error
    stop_at_signals(stop)
    click.echo(f"metrics at http://{host}:{server.server_port}/metrics; Ctrl-C stops them")
    stop.wait()
    server.shutdown()
    thread.join()


def _address(listen: str) -> tuple[str, int]:
    """The host and the port of `HOST:PORT`."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{listen!r} is not HOST:PORT", param_hint="--listen")
    return host.strip("[]"), int(port)
