"""What a batch system is given: a script that runs one worker, and a description for HTCondor. Pure text."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from lhcq.frozen import Frozen

IDLE_SECONDS = 300
"""A worker that found nothing to do for this long ends, and does not come back."""
DRAIN_SECONDS = 120
"""So long before its time limit a worker takes no more work."""
_MARGIN_SECONDS = 30
"""What of that is left for handing back what did not end."""
COME_BACK = 85
"""Exit code by which the script asks HTCondor to be run again."""

_SCRIPT = """\
#!/bin/bash
{directives}# One worker of lhcq. It ends when it finds nothing to do, and comes back while there is work left.
set -u
trap 'kill $(jobs -p) 2>/dev/null' EXIT
{exports}

# Warm shutdown: no more work is taken, and what runs may end. What does not end in time goes back to the queue.
drained=
again={again}
drain() {{
    drained=yes
    kill -TERM "$worker" 2>/dev/null
    {{ sleep {patience}; kill -QUIT "$worker"; }} >/dev/null 2>&1 &
}}

{lhcq} worker {kind} --processes {processes} --idle {idle} &
worker=$!
trap drain TERM
{limit}wait "$worker"
code=$?
while kill -0 "$worker" 2>/dev/null; do  # a signal ends the waiting
    wait "$worker"
    code=$?
done
trap - TERM
[ -z "$drained" ] && exit "$code"
[ -n "$again" ] || exit 0
[ "$({lhcq} workers pending {kind})" -gt 0 ] || exit 0
{come_back}
"""

# scancel means it, so what says that the time is up is another signal than what that sends.
_ON_LIMIT = "trap 'again=yes; drain' USR1\n"
_TIMER = """\
{{ sleep {seconds}; kill -TERM $$; }} >/dev/null 2>&1 &
"""

_CONDOR = """\
universe = vanilla
executable = {script}
output = {stem}.$(ProcId).log
error = {stem}.$(ProcId).log
log = {stem}.condor
should_transfer_files = NO
request_cpus = {processes}
request_memory = {megabytes}
kill_sig = SIGTERM
job_max_vacate_time = {drain}
on_exit_remove = (ExitBySignal =?= False) && (ExitCode =!= {come_back})
{options}queue {count}
"""


class Worker(Frozen):
    """What each of the workers is to be."""

    kind: str
    lhcq: Path
    """The program, under the path that it has on every node."""
    environment: Mapping[str, str]
    """Variables that it needs; none may hold a secret, since a script is for all to read."""
    processes: int
    megabytes: int
    """Memory of one worker."""
    seconds: int
    """How long it may run."""
    idle: int = IDLE_SECONDS
    drain: int = DRAIN_SECONDS


def slurm_script(worker: Worker, count: int, script: Path, options: Sequence[str]) -> str:
    """A job array of `count` workers; a worker that ran out of time requeues its own place of the array.

    `script` is where it will stand; the logs come beside it.
    """
    minutes = -(-worker.seconds // 60)
    log = (
        str(script.with_suffix("")).replace("%", "%%").replace('"', r"\"")
    )  # %j and others are Slurm's patterns
    wanted = [
        f"--job-name=lhcq-{worker.kind}",
        f"--array=1-{count}",
        "--ntasks=1",
        f"--cpus-per-task={worker.processes}",
        f"--mem={worker.megabytes}M",
        f"--time={minutes}",
        f"--signal=B:USR1@{worker.drain}",
        "--requeue",
        "--open-mode=append",
        "--export=NONE",
        f'--output="{log}.%a.log"',
        *(f"--{option.removeprefix('--')}" for option in options),
    ]
    return _script(
        worker,
        directives="".join(f"#SBATCH {option}\n" for option in wanted) + "\n",
        again="",
        limit=_ON_LIMIT,
        come_back='scontrol requeue "$SLURM_JOB_ID"',
    )


def condor_script(worker: Worker) -> str:
    """The script of an HTCondor job, which keeps the time by itself."""
    return _script(
        worker,
        directives="",
        again="yes",  # condor_rm takes it from the queue, whatever it asks for
        limit=_TIMER.format(seconds=worker.seconds - worker.drain),
        come_back=f"exit {COME_BACK}",
    )


def condor_description(worker: Worker, count: int, script: Path, options: Sequence[str]) -> str:
    """What `condor_submit` reads: `count` jobs, each run again while it asks for it."""
    return _CONDOR.format(
        script=_literally(script),
        stem=_literally(script.with_suffix("")),
        processes=worker.processes,
        megabytes=worker.megabytes,
        drain=worker.drain,
        come_back=COME_BACK,
        options="".join(f"{option}\n" for option in options),
        count=count,
    )


def _literally(path: Path) -> str:
    """A path for HTCondor, which would put the value of a macro for `$(NAME)`."""
    return str(path).replace("$", "$(DOLLAR)")


def _script(worker: Worker, *, directives: str, again: str, limit: str, come_back: str) -> str:
    return _SCRIPT.format(
        directives=directives,
        exports="\n".join(
            f"export {name}={shlex.quote(value)}" for name, value in worker.environment.items()
        ),
        patience=max(1, worker.drain - _MARGIN_SECONDS),
        lhcq=shlex.quote(str(worker.lhcq)),
        kind=worker.kind,
        processes=worker.processes,
        idle=worker.idle,
        again=again,
        limit=limit,
        come_back=come_back,
    )
