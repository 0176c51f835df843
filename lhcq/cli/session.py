"""How a verb has its job done: what is shown while it lasts, and what is said when it did not end well."""

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer
from lhcq.cli.progress import progress
from lhcq.interrupts import heard
from lhcq.workspace import Workspace

if TYPE_CHECKING:
    from lhcq.records.jobs import Job, Outcome
    from tasks.client import Following, LocalWorker, Progress, Session

INTERRUPTED = 130
EXIT_CODES = {"done": 0, "failed": 1, "incomplete": 3, "cancelled": 3}


def open_workspace() -> Workspace:
    """The workspace that the environment names, to work in; made if it is not there."""
    workspace = Workspace.of_environment()
    workspace.create()
    return workspace


def find_workspace() -> Workspace:
    """The workspace that the environment names, to ask what stands in it: a question makes nothing."""
    workspace = Workspace.of_environment()
    workspace.require_readable()
    return workspace


def say(line: str) -> None:
    """Tell people something beside the answer."""
    click.echo(f"lhcq: {line}", err=True)


def stop_at_signals(stop: threading.Event) -> None:
    """Set `stop` at Ctrl-C, SIGTERM and, unless it is ignored (nohup), SIGHUP: a service that ends so ends well."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())


@dataclass(frozen=True, kw_only=True)
class Waited:
    """What came of a job that was published."""

    code: int
    """The command's exit code; why it is not 0 has been printed."""
    seconds: float | None = None
    """From publishing to the outcome; None where there was nothing to do."""
    finished: bool = True
    """False when nobody waited."""
    ended: dict[str, str] | None = None
    """Of a job that did not end well, for a script: `job`, `state` and `message`."""

    def rate(self, n: int) -> float | None:
        """Of `n`, a second; None where there was nothing to do."""
        return n / self.seconds if self.seconds else None

    def took(self, n: int, *, more: str = "") -> str:
        """` in 3.0 s (333 events/s)` for `n` events, or that they were done already; `more` follows the rate."""
        if self.seconds is None:
            return " (done already)"
        rate = self.rate(n) or 0.0
        return f" in {self.seconds:.1f} s ({rate:,.{1 if rate < 100 else 0}f} events/s{more})"


def have_done(
    workspace: Workspace,
    job: "Job",
    workers: "Sequence[LocalWorker]",
    *,
    measure: "Callable[[], Progress]",
    again: str,
    wait: bool,
    begin: "Callable[[Session], None]" = lambda _: None,
    force: bool = False,
) -> Waited:
    """Have a job done with a broker and `workers` for it; nothing is done where the same request was done before.

    `begin` is called once it is known that there is something to do, and `again` says how to go on with it. `force`
    removes what stands under the job's name first, unless something else was made of it.
    """
    from lhcq.errors import NameTaken
    from tasks.client import (
        done_already,
        mend_record,
        refuse_taken_name,
        renew_terms,
        result_of,
        session,
        submit,
    )

    with telling_what_is_left(workspace, job, again):
        mend_record(workspace, job)
        if force:
            clear_way(workspace, job.kind, job.name, result_of(workspace, job))
        if done_already(workspace, job):
            return Waited(code=0)
        workspace.create()  # a question before it has made nothing; says so where nothing can be written
        try:
            refuse_taken_name(workspace, job)
            renew_terms(
                workspace, job
            )  # before workers start that find messages of a command that was killed
            with session(workspace, list(workers), detach=not wait, say=say) as current:
                begin(current)
                waited = follow(
                    current, job, lambda: submit(current, job), measure=measure, again=again, wait=wait
                )
                answer_end(waited)
                return waited
        except NameTaken:
            if done_already(workspace, job):  # workers that were at it ended it in between
                return Waited(code=0)
            raise


def conclude(
    waited: Waited,
    job: "Job",
    tell: Callable[[], tuple[dict[str, Any], str]],
    *,
    as_json: bool,
    shown_by: str = "status",
) -> int:
    """Print what came of a verb's job, and give the verb's exit code.

    `tell` gives what a job that is done has made, as JSON has it and as people read it. Of one that nobody waits for
    the answer is which command shows it; why one did not end well has been said.
    """
    if not waited.finished:
        answer(as_json, {"job": job.title}, f"{job.title} is queued. `lhcq {shown_by}` shows it.")
    elif waited.code == 0:
        answer(as_json, *tell())
    return waited.code


def clear_way(workspace: Workspace, kind: str, name: str, result: Path) -> None:
    """Remove what stands under a job's name, or where its `result` goes; not what something else was made of."""
    from lhcq.errors import NameTaken
    from tasks.client import await_workers
    from tasks.jobs.holdings import foreign_result, in_the_way, refuse_removal, remove_holding

    for holding in in_the_way(workspace, kind, name, result):
        refuse_removal(workspace, holding)
        if foreign_result(holding) is not None:
            raise NameTaken(f"{result}: is not, or not any more, what lhcq made there. Choose another file.")
        remove_holding(workspace, holding, wait_for_workers=lambda job: await_workers(workspace, job))
        say(f"{holding.title} is made anew: what stood was removed")


@contextlib.contextmanager
def telling_what_is_left(workspace: Workspace, job: "Job", again: str) -> Iterator[None]:
    """At Ctrl-C, wherever it comes, say what was left and how to go on."""
    try:
        with heard():
            yield
    except KeyboardInterrupt:
        click.echo(f"\n{what_is_left(workspace, job, again)}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def what_is_left(workspace: Workspace, job: "Job", again: str) -> str:
    """Of a job that nobody works for any more, for whoever stopped it."""
    from lhcq.errors import LhcqError
    from lhcq.records.jobs import find_job
    from tasks.client import progress_of

    with contextlib.suppress(LhcqError, OSError):
        if find_job(workspace, job.kind, job.name) is None:
            return f"{job.title} was not begun: nothing of it was made. {again}"
        done, total, unit, _ = progress_of(workspace, job)
        return f"{job.title} stopped; what is finished is kept: {done:,} of {total:,} {unit}. {again}"
    return f"{job.title} stopped; what is finished is kept. {again}"


def have_all_done(
    workspace: Workspace,
    jobs: "Sequence[Job]",
    workers: "Sequence[LocalWorker]",
    opened: "Callable[[], Session]",
) -> dict[str, Waited]:
    """Have jobs done side by side, by as many workers as there are; what came of each, by its title.

    `opened` gives the session to do it in, once it is known that there is something to do.
    """
    from tasks.client import done_already, progress_of, refuse_taken_name, renew_terms, submit

    waited = {job.title: Waited(code=0) for job in jobs if done_already(workspace, job)}
    left = [job for job in jobs if job.title not in waited]
    for job in left:
        refuse_taken_name(workspace, job)
    if not left:
        return waited
    for job in left:
        renew_terms(workspace, job)
    current = opened()
    current.bring(list(workers), say)

    @functools.cache
    def publish_all() -> "dict[str, Following]":
        return {job.title: submit(current, job) for job in left}

    for job in left:
        waited[job.title] = follow(
            current,
            job,
            lambda job=job: publish_all()[job.title],  # type: ignore[misc]
            measure=lambda job=job: progress_of(workspace, job),  # type: ignore[misc]
            again="Run the same command again to go on.",
            wait=True,
            beside=[other for other in left if other is not job],
        )
    return waited


def follow(
    current: "Session",
    job: "Job",
    publish: "Callable[[], Following]",
    *,
    measure: "Callable[[], Progress]",
    again: str,
    wait: bool,
    beside: "Sequence[Job]" = (),
) -> Waited:
    """Publish a job, and wait for its outcome unless told not to. `again` says how to go on with it.

    Jobs `beside` it are published with it, and stop where it stops.
    """
    from lhcq.errors import LhcqError

    try:
        following = publish()
        if not wait:
            return Waited(code=0, finished=False)
        _, total, unit, _ = measure()
        with progress(job.title, total, unit) as update:
            outcome = following.wait(
                measure,
                on_progress=lambda at: update(at.done, at.note),
                on_trouble=lambda message: say(f"{message} (it will be tried again)"),
            )
    except KeyboardInterrupt:
        if current.lasting:
            left = f"{job.title} goes on. `lhcq status` shows it."
        else:  # said at once: stopping takes a moment
            _note_stops(
                current, [job, *beside], "Ctrl-C, or another signal, ended the command that worked for it."
            )
            left = what_is_left(current.workspace, job, again)
        click.echo(f"\n{left}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    except LhcqError as error:
        if not current.lasting:
            _note_stops(current, [job, *beside], str(error))
        raise
    with contextlib.suppress(KeyboardInterrupt):  # the job is done
        following.tidy_up()
    if outcome is not None and outcome.state == "done":
        return Waited(code=0, seconds=following.seconds)
    return _not_well(following, outcome, again)


def _note_stops(current: "Session", jobs: "Sequence[Job]", message: str) -> None:
    """Note of each of these jobs that is open why nobody works for it any more."""
    from lhcq.errors import LhcqError
    from lhcq.records.failures import note_stop
    from lhcq.records.jobs import outcome_of

    for job in jobs:
        with contextlib.suppress(LhcqError, OSError):  # a damaged record is told of when it is asked for
            if outcome_of(current.workspace, job) is None:
                note_stop(current.workspace, job, message)


def _not_well(following: "Following", outcome: "Outcome | None", again: str) -> Waited:
    """Say why a job did not end well; None stands for one that is paused."""
    job = following.job
    if outcome is None:
        state, message = "paused", f"{job.title} is paused. `lhcq resume {job.name}` goes on."
    else:
        remedy = f" {again}" if following.can_be_tried_again(outcome) else ""
        state, message = outcome.state, f"{outcome.message}{remedy}"
    say(message)
    return Waited(
        code=EXIT_CODES["incomplete" if outcome is None else state],
        seconds=following.seconds,
        ended={"job": job.title, "state": state, "message": message},
    )


def answer_end(waited: Waited) -> None:
    """Tell a script that asked the verb for JSON how its job ended, where it did not end well."""
    if waited.ended and click.get_current_context().params.get("as_json"):
        answer(True, waited.ended, "")
