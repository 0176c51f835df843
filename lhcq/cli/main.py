"""The program `lhcq`: collects the verbs, and turns an expected error into one line and exit code 1."""

import importlib
import keyword
import signal
import sys
from typing import Any

import click

from lhcq import __version__
from lhcq.errors import LhcqError
from lhcq.own_tasks import refuse_other_tasks

VERBS = (
    "fetch",
    "inspect",
    "generate",
    "cluster",
    "import",
    "export",
    "plot",
    "prepare",
    "train",
    "pause",
    "resume",
    "cancel",
    "predict",
    "ask",
    "compare",
    "export-adapter",
    "status",
    "why",
    "logs",
    "retry",
    "watch",
    "tag",
    "report",
    "ls",
    "rm",
    "prune",
    "up",
    "worker",
    "workers",
    "doctor",
    "metrics",
    "flower",
)
INTERRUPTED = 130
_ENDLESS = {"logs", "watch"}
"""What is left by Ctrl-C, as a rule."""


class Verbs(click.Group):
    """Imports a verb when it is asked for, so that `lhcq --version` loads nothing else."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the work, not of the alphabet."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command `cmd_name`, from the module of that name."""
        if cmd_name not in VERBS:
            return None
        # `import` cannot name a module, nor can one have a dash.
        module = cmd_name.replace("-", "_") + "_" * keyword.iskeyword(cmd_name)
        command: click.Command = importlib.import_module(f"lhcq.cli.{module}").command
        return command


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lhcq")
def cli() -> None:
    """LHC Olympics collision events in, a language model that tells signal from background out.

    All results stand in the workspace: LHCQ_WORKSPACE, by default ./lhcq-workspace. With LHCQ_BROKER_URL set, work
    goes to the workers of that broker; without it, lhcq brings its own broker and workers and stops them when the
    job is done.

    Exit codes: 0 done, 1 an error that one line explains, 2 wrong usage, 3 the job ended incomplete, 128 and the
    signal's number for a command that was ended by one.
    """


class Signals:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: it stops its workers and its broker first."""

    def __init__(self) -> None:
        self.received = 0
        self._ending = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup has SIGHUP ignored, and means it
                signal.signal(number, self._end)

    def _end(self, number: int, _: Any) -> None:
        if number != signal.SIGINT:
            if self._ending:
                return  # it must not cut off the stopping, as a person may
            self.received = number
        self._ending = True
        raise KeyboardInterrupt


def main() -> None:
    """Run the program."""
    signals = Signals()
    code = run()
    sys.exit(128 + signals.received if signals.received else code)


def run() -> int:
    """Run the command that the arguments name; gives its exit code, after one line about an expected error."""
    try:
        refuse_other_tasks()
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except LhcqError as error:
        click.echo(f"lhcq: {error}", err=True)
        return 1
    except (click.Abort, KeyboardInterrupt):
        if not _ENDLESS.intersection(sys.argv[1:2]):
            click.echo("lhcq: interrupted. Nothing is half-written, and the same command goes on.", err=True)
        return INTERRUPTED
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
