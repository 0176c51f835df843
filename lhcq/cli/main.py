"""The program `lhcq`: collects the verbs, and turns an expected error into one line and exit code 1."""

import importlib
import keyword
import os
import signal
import sys
from typing import Any

import click

from lhcq.cli.parameters import workspace_option
from lhcq.environment import spin_briefly
from lhcq.errors import Denied, LhcqError
from lhcq.interrupts import hear_in_finalizers, heard
from lhcq.own_tasks import refuse_other_tasks
from lhcq.spelling import did_you_mean
from lhcq.version import version

SECTIONS: dict[str, tuple[str, ...]] = {
    "The whole pipeline": ("run",),
    "Events": ("fetch", "inspect", "generate"),
    "Datasets": ("cluster", "import", "export", "mix", "plot"),
    "Training": ("prepare", "train"),
    "Results": ("report", "compare", "tag", "predict", "search", "ask", "export-adapter"),
    "Jobs": ("status", "why", "logs", "retry", "watch", "pause", "resume", "cancel"),
    "Clearing up": ("ls", "rm", "prune"),
    "Broker and workers": ("up", "worker", "workers", "doctor", "serve", "metrics", "flower"),
}
"""The verbs by what they are for, in the order of the work."""
VERBS = tuple(verb for section in SECTIONS.values() for verb in section)
_WIDEST = max(map(len, VERBS))
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
        for one in [command, *(command.commands.values() if isinstance(command, click.Group) else ())]:
            if not any("--workspace" in parameter.opts for parameter in one.params):
                one.params.append(workspace_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that is asked for, or which one may have been meant."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = did_you_mean(args[0], VERBS)
            raise click.UsageError(f"No such command {args[0]!r}.{near}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs under what they are for, each with its whole first sentence."""
        for title, verbs in SECTIONS.items():
            commands = {verb: self.get_command(ctx, verb) for verb in verbs}
            with formatter.section(title):
                # One column for all sections.
                formatter.write_dl(
                    [
                        (f"{verb:<{_WIDEST}}", command.get_short_help_str(1000))
                        for verb, command in commands.items()
                        if command is not None
                    ]
                )


def _show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        click.echo(f"lhcq, version {version()}")
        ctx.exit()


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """LHC Olympics collision events in, a language model that tells signal from background out.

    All results stand in the workspace: --workspace or LHCQ_WORKSPACE, by default ./lhcq-workspace. With
    LHCQ_BROKER_URL set, work goes to the workers of that broker; without it, lhcq brings its own broker and workers
    and stops them when the job is done.

    Exit codes: 0 done, 1 an error that one line explains, 2 wrong usage, 3 the job ended incomplete, 128 and the
    signal's number for a command that was ended by one.
    """


cli.params.append(workspace_option())


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
    spin_briefly(os.environ)  # before libraries that compute are loaded: `ask` does so in this process
    signals = Signals()
    hear_in_finalizers()
    code = run()
    sys.exit(128 + signals.received if signals.received else code)


def run() -> int:
    """Run the command that the arguments name; gives its exit code, after one line about an expected error."""
    try:
        refuse_other_tasks()
        with heard():
            code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (LhcqError, PermissionError) as error:
        told = Denied.of(error) if isinstance(error, PermissionError) else error
        click.echo(f"lhcq: {told}", err=True)
        return 1
    except (click.Abort, KeyboardInterrupt):
        if not _ENDLESS.intersection(sys.argv[1:2]):
            click.echo("lhcq: interrupted. Nothing is half-written, and the same command goes on.", err=True)
        return INTERRUPTED
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
