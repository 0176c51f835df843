"""What `lhcq doctor` finds about a broker and the workers behind it; each worker is asked to prove what it shares."""

import contextlib
import os
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from lhcq.address import BrokerAddress
from lhcq.config import TrainConfig
from lhcq.errors import LhcqError
from lhcq.model.gpus import Gpu
from lhcq.storage import staged_file
from lhcq.workspace import Workspace
from tasks.app import app, foreign_settings
from tasks.broker.acceptance import ask_broker
from tasks.broker.connection import broker_address, redis_client
from tasks.broker.refused import REFUSED_KEY, refused_messages
from tasks.doctor.finding import Finding
from tasks.doctor.security import is_private
from tasks.doctor.worker_probe import (
    ASKER,
    Examined,
    clock_ahead,
    mark_of,
    marks_in,
    meeting_place,
    versions_here,
)
from tasks.settings import QUEUES, VISIBILITY_TIMEOUT_SECONDS
from tasks.workers.flower import foreign_variables

_BEATS_SECONDS = 3.0  # a worker's heart beats every two
_REPLY_SECONDS = 20.0  # a worker that has not imported numpy yet, on a busy host
_VISIBLE_SECONDS = 10.0
_SLOW_SECONDS = 2.0
_CLOCK_SECONDS = 2.0
GIB = 1 << 30


def broker_findings(workspace: Workspace) -> list[Finding]:
    """Whether the broker can be worked with and keeps what it is given, and how far its clock is from this host's."""
    try:
        ask_broker(workspace)
    except LhcqError as error:
        return [Finding.of_error("broker", error)]
    answers = Finding(check="broker", state="ok", found=f"{broker_address().shown} answers")
    return [answers, *_keeping(), *refused_findings(), clock_finding({"this host": clock_ahead()})]


def refused_findings() -> list[Finding]:
    """Messages in queues of lhcq's that were none of lhcq's, and so were put aside."""
    count, tasks = refused_messages()
    if not count:
        return []
    whose = ", ".join(task for task, _ in tasks.most_common(3)) + (" and others" if len(tasks) > 3 else "")
    address = broker_address()
    return [
        Finding(
            check="foreign messages",
            state="warning",
            found=f"{count} in lhcq's queues were not for lhcq and lie in the broker's list {REFUSED_KEY}: {whose}",
            remedy=f"Give the program that sends them another database than {address.database}, or another queue "
            f"than {', '.join(QUEUES)}. `LMOVE {REFUSED_KEY} QUEUE RIGHT LEFT` there hands it the oldest, "
            f"`DEL {REFUSED_KEY}` forgets them.",
        )
    ]


def environment_findings() -> list[Finding]:
    """Celery's and Flower's variables of another project, of which lhcq takes no notice; names alone, no values."""
    if not (ignored := [*foreign_settings, *foreign_variables()]):
        return []
    found = f"{', '.join(ignored)}: set, and ignored by lhcq's commands, workers and Flower"
    return [Finding(check="environment", state="ok", found=found)]


def _keeping() -> list[Finding]:
    """Whether it writes what it has, and has room: by its INFO; its settings have been asked for."""
    client = redis_client()
    try:
        told: dict[str, Any] = {**client.info("persistence"), **client.info("memory")}
    except redis.ResponseError as error:
        return [
            Finding(
                check="persistence",
                state="warning",
                found=f"the broker does not tell its state ({error})",
                remedy="See to it that maxmemory-policy is noeviction and that it writes to disk.",
            )
        ]
    return [persistence_finding(told), memory_finding(told)]


def persistence_finding(told: Mapping[str, Any]) -> Finding:
    """Whether the broker keeps what it has, and whether its last writes to its disk went well, by its INFO."""
    failed = [
        key
        for key in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        if told.get(key, "ok") != "ok"
    ]
    policy = told.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":  # which a broker that forbids CONFIG does not tell at the start
        found, remedy = f"the broker may evict work ({policy})", "Set maxmemory-policy to noeviction on it."
    elif failed:
        found = f"the broker's last write to its disk failed ({failed[0]})"
        remedy = "Free space on the broker's disk; its log says what failed."
    elif not told.get("aof_enabled", 1):
        found = "the broker writes at its save points alone, if it has any: what came since is lost with it"
        return Finding(
            check="persistence", state="warning", found=found, remedy="Set appendonly to yes on it."
        )
    else:
        found = "what is queued is written as it comes, nothing is evicted"
        return Finding(check="persistence", state="ok", found=found)
    return Finding(check="persistence", state="error", found=found, remedy=remedy)


def memory_finding(told: Mapping[str, Any]) -> Finding:
    """Whether the broker has room for more messages, by its INFO."""
    used, most = int(told["used_memory"]), int(told["maxmemory"])
    full = most > 0 and used > 0.8 * most
    return Finding(
        check="broker memory",
        state="warning" if full else "ok",
        found=f"{used / 1e6:.0f} MB used" + (f" of {most / 1e6:.0f}" if most else ", no limit"),
        remedy="Raise maxmemory: a full broker takes no more messages." if full else "",
    )


def clock_finding(ahead: Mapping[str, float | None], *, check: str = "clock") -> Finding:
    """How far clocks are from the broker's; `ahead` are its seconds ahead of each, None for one that did not tell."""
    known = {who: seconds for who, seconds in ahead.items() if seconds is not None}
    if not known:
        return Finding(check=check, state="warning", found="the broker does not tell its time")
    who, seconds = max(known.items(), key=lambda item: abs(item[1]))
    found = f"{who}: {abs(seconds):.2f} s {'behind' if seconds > 0 else 'ahead of'} the broker's"
    if abs(seconds) < _CLOCK_SECONDS:
        return Finding(
            check=check,
            state="ok",
            found=found if len(known) == 1 else f"{len(known)} compared, the furthest is {found}",
        )
    return Finding(
        check=check,
        # Past the visibility timeout, the transport takes what is under way for abandoned, or never what is.
        state="error" if abs(seconds) > VISIBILITY_TIMEOUT_SECONDS else "warning",
        found=found,
        remedy="Run an NTP client (`chronyd`, `systemd-timesyncd`) on that host and on the broker's.",
    )


def worker_findings(workspace: Workspace) -> list[Finding]:
    """What all workers of the broker say of themselves and prove about the workspace."""
    beats = hear_workers()
    if not beats:
        remedy = "Start `lhcq up`, or `lhcq worker cpu` on each host."
        return [Finding(check="workers", state="warning", found="none", remedy=remedy)]
    if not os.access(workspace.root, os.W_OK | os.X_OK):
        found = f"{len(beats)} are there; what they share was not tried, since this user may not write here"
        return [Finding(check="workers", state="ok", found=found)]
    token = secrets.token_hex(8)
    directory = meeting_place(workspace, token)
    try:
        with staged_file(directory / ASKER) as temporary:
            temporary.write_text(token, "utf-8")
        workers, silent = _examine(sorted(beats), token)
        findings = [_presence(workers), *(_silence(node, said, beats[node]) for node, said in silent.items())]
        if not workers:
            return findings
        return [
            *findings,
            *_sharing(workspace, directory, workers),
            *comparisons(workers),
            *confinement_findings(broker_address(), workers),
            *_fits(workspace, workers),
        ]
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def hear_workers() -> dict[str, float]:
    """The workers whose hearts beat, and how many seconds the clock of each seems to be ahead of this host's.

    Not a ping: a worker that is there and does not answer is worth knowing of.
    """
    heard: dict[str, float] = {}
    until = time.monotonic() + _BEATS_SECONDS

    def hear(event: dict[str, Any]) -> None:
        heard[event["hostname"]] = event["timestamp"] - time.time()
        receiver.should_stop = time.monotonic() > until

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"worker-heartbeat": hear})
        with contextlib.suppress(TimeoutError):  # not a beat in all that time
            receiver.capture(limit=None, timeout=_BEATS_SECONDS, wakeup=False)
    return heard


def _examine(nodes: list[str], token: str) -> tuple[dict[str, Examined], dict[str, str]]:
    """What each of `nodes` says of itself, and of those that do not, why."""
    workers: dict[str, Examined] = {}
    silent = dict.fromkeys(nodes, "it does not answer")
    for node, reply in _ask("lhcq_examine", nodes, token).items():
        if "error" in reply:
            silent[node] = f"it answers {reply['error']}"
        else:
            try:
                workers[node] = Examined.checked(**reply)
            except LhcqError:
                silent[node] = "it answers as another version of lhcq does"
            else:
                silent.pop(node, None)
    return workers, silent


def _ask(command: str, nodes: Sequence[str], token: str) -> dict[str, Any]:
    replies = app.control.broadcast(
        command, arguments={"token": token}, destination=list(nodes), reply=True, timeout=_REPLY_SECONDS
    )
    return {node: reply for answer in replies or [] for node, reply in answer.items()}


def _presence(workers: Mapping[str, Examined]) -> Finding:
    hosts = {worker.host for worker in workers.values()}
    missing = [queue for queue in QUEUES if not any(queue in worker.queues for worker in workers.values())]
    found = f"{len(workers)} on {len(hosts)} hosts: {', '.join(sorted(workers))}"
    if not missing:
        return Finding(check="workers", state="ok", found=found)
    kind = "cpu" if "cpu" in missing else "gpu"
    return Finding(
        check="workers",
        state="warning",
        found=f"{found}; none listens to {', '.join(missing)}",
        remedy=f"Run `lhcq worker {kind}` where that work is to be done.",
    )


def _silence(node: str, said: str, ahead: float) -> Finding:
    clock = f"; its clock is {ahead:+.0f} s from this host's" if abs(ahead) > _CLOCK_SECONDS else ""
    return Finding(
        check="workers",
        state="error",
        found=f"{node} beats, but {said}{clock}",
        remedy="See its log (`lhcq logs`), set its clock, install this version of lhcq there and start it again.",
    )


def _sharing(workspace: Workspace, directory: Path, workers: Mapping[str, Examined]) -> list[Finding]:
    """Whether all workers have this workspace, and see each other's commits."""
    outside = {node: worker for node, worker in workers.items() if not worker.shares}
    findings = [_outside(workspace, node, worker) for node, worker in sorted(outside.items())]
    inside = sorted(workers.keys() - outside.keys())
    if inside:
        seconds, blind = _await_marks(directory, inside)
        findings += [visibility_finding(inside, seconds, blind)]
    return findings


def _outside(workspace: Workspace, node: str, worker: Examined) -> Finding:
    why = worker.trouble or f"it works in {worker.workspace} on {worker.host}, where this host's file is not"
    return Finding(
        check="workspace",
        state="error",
        found=f"{node} does not share {workspace.root}: {why}",
        remedy="Set LHCQ_WORKSPACE on both to one directory of a shared file system that both may write to.",
    )


def _await_marks(directory: Path, nodes: list[str]) -> tuple[float, dict[str, int]]:
    """Seconds until everybody saw everybody's mark, and how many marks each still misses at the end."""
    wanted = {ASKER, *map(mark_of, nodes)}
    started = time.monotonic()
    while True:
        seen = {node: set(marks) for node, marks in _ask("lhcq_seen", nodes, directory.name).items()}
        seen["this host"] = set(marks_in(directory))
        blind = {node: len(wanted - seen.get(node, set())) for node in ("this host", *nodes)}
        blind = {node: missing for node, missing in blind.items() if missing}
        waited = time.monotonic() - started
        if not blind or waited > _VISIBLE_SECONDS:
            return waited, blind
        time.sleep(0.2)


def visibility_finding(nodes: Sequence[str], seconds: float, blind: Mapping[str, int]) -> Finding:
    """How soon commits are seen by others; `blind` are those that do not see some, and how many."""
    remedy = "Mount the workspace so that names are looked up anew (NFS: `lookupcache=none`, or `actimeo=1`)."
    if blind:
        who, missing = next(iter(sorted(blind.items())))
        found = f"{who} does not see {missing} of {len(nodes) + 1} commits after {seconds:.0f} s"
        return Finding(check="workspace", state="error", found=found, remedy=remedy)
    slow = seconds > _SLOW_SECONDS
    return Finding(
        check="workspace",
        state="warning" if slow else "ok",
        found=f"{len(nodes)} workers and this host share it; a commit was seen by all within {seconds:.1f} s",
        remedy=remedy if slow else "",
    )


def comparisons(workers: Mapping[str, Examined]) -> list[Finding]:
    """Whether all workers, and this host, have the same versions, fingerprint and time."""
    versions = {node: worker.versions for node, worker in workers.items()}
    prints = {node: worker.fingerprint for node, worker in workers.items() if worker.fingerprint}
    return [
        _compared(
            "versions",
            {"this host": versions_here(), **versions},
            # Another lhcq may ask for what this one does not know.
            state=lambda keys: "error" if "lhcq" in keys else "warning",
            remedy="Install one lhcq everywhere, from the same place and with its constraints.txt (docs/cluster.md).",
        ),
        _compared(
            "fingerprint",
            prints,
            state=lambda _: "warning",
            remedy="Results agree to rounding only. For equal bytes, use hosts of one kind for one dataset.",
        ),
        clock_finding({node: worker.clock for node, worker in workers.items()}, check="worker clocks"),
    ]


def _compared(check: str, values: Mapping[str, Mapping[str, str]], *, state: Any, remedy: str) -> Finding:
    """One finding about the keys in which `values` differ among those that have them."""
    owners: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for who, facts in values.items():
        for key, value in facts.items():
            owners[key][value].append(who)
    differing = {key: by_value for key, by_value in owners.items() if len(by_value) > 1}
    if not differing:
        return Finding(
            check=check, state="ok", found=f"the same on {len(values)}" if values else "no cpu worker"
        )
    told = [
        f"{key} {' and '.join(f'{value} ({who[0]})' for value, who in sorted(by_value.items()))}"
        for key, by_value in sorted(differing.items())
    ]
    return Finding(check=check, state=state(differing.keys()), found="; ".join(told), remedy=remedy)


def confinement_findings(address: BrokerAddress, workers: Mapping[str, Examined]) -> list[Finding]:
    """Whether workers open only what is meant for them, where people on other hosts may ask them to."""
    if is_private(address):
        return []
    free = sorted(node for node, worker in workers.items() if not worker.confined)
    if not free:
        found = "every worker reads in the workspace and its data roots alone"
        return [Finding(check="data roots", state="ok", found=found)]
    return [
        Finding(
            check="data roots",
            state="warning",
            found=f"{', '.join(free)}: opens whatever its account may, for everybody who reaches the broker",
            remedy="Set LHCQ_DATA_ROOTS there to the directories of event files and models.",
        )
    ]


def _fits(workspace: Workspace, workers: Mapping[str, Examined]) -> list[Finding]:
    """Whether each model of the workspace can be trained by default settings on each worker that trains."""
    training = {node: worker for node, worker in workers.items() if "gpu" in worker.queues}
    return [
        fit_finding(workspace, node, worker.gpus, worker.memory) for node, worker in sorted(training.items())
    ]


def fit_finding(workspace: Workspace, who: str, gpus: Sequence[Gpu], memory: int) -> Finding:
    """Whether the models of the workspace fit where `who` trains: on each of its GPUs, else in its host's memory."""
    from lhcq.model.preflight import estimate_needs

    smallest = min(gpus, key=lambda gpu: gpu.total, default=None)
    there = smallest.total if smallest else memory
    bfloat16 = bool(gpus) and all(gpu.bfloat16 for gpu in gpus)
    device = f"{smallest.name if smallest else 'CPU'} with {there / GIB:.1f} GiB"
    device += f", the smallest of {len(gpus)}" if len(gpus) > 1 else ""
    config = TrainConfig()
    needed = {}
    for model in workspace.models:
        needs = estimate_needs(model, config, longest=config.max_tokens, bfloat16=bfloat16)
        if needs is not None:
            needed[model.name] = needs.total
    large = {name: size for name, size in needed.items() if size > there}
    if large:
        told = ", ".join(f"{name} needs {size / GIB:.1f} GiB" for name, size in large.items())
        remedy = "Take a smaller model, a lower --rank, or shorter prompts."
        return Finding(check="model fit", state="warning", found=f"{who}: {device}; {told}", remedy=remedy)
    fitting = f"; {', '.join(needed)} fit" if needed else "; no model is in the workspace yet"
    return Finding(check="model fit", state="ok", found=f"{who}: {device}{fitting}")
