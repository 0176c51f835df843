"""Injection points: loaded into a worker by `--include tests.faults.points`, so that the product holds no test code.

A point is armed by a file of its name in the directory `LHCQ_FAULTS`; the first process that reaches it takes the
file, says so, and does what the file says. What commits and what runs is written to the file `LHCQ_JOURNAL`.
"""

import contextlib
import fcntl
import functools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import celery.backends.redis
import kombu.transport.redis
from celery.backends.redis import RedisBackend
from celery.signals import task_prerun, worker_init

_ARMS = Path(os.environ["LHCQ_FAULTS"])
_JOURNAL = os.environ["LHCQ_JOURNAL"]
_rename = os.rename


def reach(point: str, detail: str = "") -> None:
    """Do what was armed for `point`, or for `point@detail`."""
    for name in (point, f"{point}@{detail}"):
        if os.path.exists(_ARMS / name):  # noqa: PTH110
            _reach(name)


def _reach(name: str) -> None:
    armed = _ARMS / name
    if _passes(_ARMS / f"{name}.passes"):
        return
    action = ""
    with contextlib.suppress(FileNotFoundError):
        told = armed.read_text()
        if not told.endswith("!"):  # armed for good otherwise
            _rename(armed, _ARMS / f"{name}.taken")
        action = told  # now: of two processes that read it at once, one finds it taken, and lives
    if action:
        (_ARMS / f"{name}.reached").write_text(f"{time.time()} {os.getpgid(0)}\n")
        _ACTIONS[action.rstrip("!")](name)


def _passes(left: Path) -> bool:
    """Whether the point lets this one pass: as many as the file has bytes."""
    with contextlib.suppress(FileNotFoundError), left.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(file.fileno()).st_size
        if size:
            file.truncate(size - 1)
            return True
    return False


def _hold(name: str) -> None:
    """Wait until somebody opens the pipe for writing."""
    (_ARMS / f"{name}.pipe").read_bytes()


_ACTIONS: dict[str, Callable[[str], Any]] = {
    "kill": lambda _: os.killpg(0, signal.SIGKILL),
    "kill-child": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda _: os.killpg(0, signal.SIGSTOP),
    "hold": _hold,
    "pass": lambda _: None,
}


def record(event: str, what: str, **more: str) -> None:
    """Add a line to the journal; lines are short, so an append is whole."""
    line = json.dumps({"event": event, "what": what, "group": os.getpgid(0), "time": time.time(), **more})
    descriptor = os.open(_JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


def _stage_of(path: str) -> str:
    """What is committed under this name."""
    if path.endswith("/outcome.json"):
        return "outcome"
    for place, stage in (
        ("/parts/", "part"),
        ("/datasets/", "merge"),
        ("/checkpoints/", "checkpoint"),
        ("/validations/", "validation"),
        ("/alarms/", "alarm"),
        ("/answers/", "answer"),
    ):
        if place in path and ".tmp" not in path.rpartition(place)[2]:
            return stage
    return ""


def _watched(commit: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(commit)
    def watched(source: Any, target: Any, **options: Any) -> None:
        stage = _stage_of(os.fspath(target))
        if not stage:
            commit(source, target, **options)
            return
        reach(f"before-{stage}-commit")
        try:
            commit(source, target, **options)
        except OSError:
            record("late", os.fspath(target))
            raise
        record("commit", os.fspath(target))
        reach(f"after-{stage}-commit")

    return watched


def _watch_commits() -> None:
    os.link = _watched(os.link)
    os.rename = _watched(os.rename)


def _watch_transport() -> None:
    append = kombu.transport.redis.QoS.append

    def watched(self: Any, message: Any, delivery_tag: str) -> None:
        if task := (message.headers or {}).get("task"):
            reach("popped", task)
        append(self, message, delivery_tag)
        if task:
            reach("delivered", task)

    kombu.transport.redis.QoS.append = watched

    put = kombu.transport.redis.Channel._put

    def putting(self: Any, queue: str, message: Any, **options: Any) -> None:
        put(self, queue, message, **options)
        reach("sent", message["headers"].get("task", ""))

    kombu.transport.redis.Channel._put = putting


def _watch_chord() -> None:
    part_return = RedisBackend.on_chord_part_return

    def counting(self: Any, request: Any, *arguments: Any, **options: Any) -> None:
        if request.group:
            reach("result-stored")
        part_return(self, request, *arguments, **options)

    def count_script(backend: Any) -> Callable[..., Any]:
        script = backend.client.register_script(celery.backends.redis.CHORD_PART_RETURN_LUA)

        def count(**arguments: Any) -> Any:
            answer = script(**arguments)
            reach("chord-claimed" if answer[3] else "chord-counted")
            return answer

        return count

    def cleanup_script(backend: Any) -> Callable[..., Any]:
        script = backend.client.register_script(celery.backends.redis.CHORD_CLEANUP_LUA)

        def clean(**arguments: Any) -> Any:
            reach("merge-published")
            return script(**arguments)

        return clean

    RedisBackend.on_chord_part_return = counting
    RedisBackend._chord_part_return_script = property(count_script)
    RedisBackend._chord_cleanup_script = property(cleanup_script)


@task_prerun.connect
def _before_start(sender: Any, args: Any, **_: Any) -> None:
    unit = ":".join((sender.name, *map(str, args)))
    record("start", unit)
    reach("before-start", sender.name)
    reach("before-start", unit)


def _watch_clustering() -> None:
    """Mid-work is after the clustering and before a byte is written; the no-op clusters nothing."""
    import tasks.stages.cluster
    from tasks.jobs.kinds import chunk_unit

    make = tasks.stages.cluster._make
    if os.environ.get("LHCQ_NOOP"):
        from tests.faults.noop import noop_merge, noop_part

        make = noop_part
        tasks.stages.cluster._merge = noop_merge
        worker_init.disconnect(tasks.stages.cluster.warm_up)

    def working(workspace: Any, job: Any, index: int, path: Path, *rest: Any) -> Any:
        unit = chunk_unit(job, index).key
        record("work", unit, path=str(path))
        reach("working")
        reach("working", unit)
        return make(workspace, job, index, path, *rest)

    tasks.stages.cluster._make = working


def _watch_publishing() -> None:
    """Around the two steps of a submitter: units wait for their turns, then some become messages."""
    from tasks.engine import publish

    enter, put = publish.enter, publish.put_messages

    def entering(*arguments: Any, **options: Any) -> bool:
        reach("before-enter")
        entered = enter(*arguments, **options)
        reach("after-enter")
        return entered

    def putting(client: Any, messages: Any) -> None:
        put(client, messages)
        for _, message in messages:
            reach("sent", json.loads(message)["headers"]["task"])

    publish.enter, publish.put_messages = entering, putting


def _watch_reconciler() -> None:
    import tasks.engine.reconciler

    publish = tasks.engine.reconciler.publish_unit

    def publishing(unit: Any, **how: Any) -> None:
        record("again", unit.key)
        publish(unit, **how)

    tasks.engine.reconciler.publish_unit = publishing


def _watch_training() -> None:
    """Around what a trainer does: a step, and the publishing of what comes next."""
    import tasks.stages.train
    from tasks.engine import publish

    if os.environ.get("LHCQ_NOOP"):
        from tests.faults.noop import noop_end, noop_segment, noop_validation

        tasks.stages.train._train = lambda place, job, *_: noop_segment(place, job, record)
        tasks.stages.train._validate = noop_validation
        tasks.stages.train._test = noop_end

    publish_at_once = publish.publish_unit
    write = tasks.stages.train.write_line

    def publishing(unit: Any, *arguments: Any, **options: Any) -> Any:
        reach("before-publish", unit.task)
        answer = publish_at_once(unit, *arguments, **options)
        reach("after-publish", unit.task)
        return answer

    def writing(run_dir: Path, line: Any) -> None:
        write(run_dir, line)
        if line.event == "step":
            record("step", f"{run_dir.name}:{line.step}")
            reach("step", str(line.step))

    tasks.stages.train.publish_unit = publishing
    tasks.stages.train.write_line = writing


def _set_visibility_timeout(seconds: str) -> None:
    """Have the transport deliver again what is not acknowledged after this long."""
    from tasks.app import app

    for options in (app.conf.broker_transport_options, app.conf.result_backend_transport_options):
        options |= {
            "visibility_timeout": int(seconds),
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }


def install() -> None:
    """Put every point in place."""
    if seconds := os.environ.get("LHCQ_VISIBILITY_TIMEOUT"):
        _set_visibility_timeout(seconds)
    _watch_commits()
    _watch_transport()
    _watch_chord()
    _watch_clustering()
    _watch_publishing()
    _watch_training()
    _watch_reconciler()


install()
