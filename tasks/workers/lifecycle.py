"""What every worker does besides tasks.

It runs the reconciler; a local one leaves when its parent died, one of a batch system when there is nothing to do.
"""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from typing import Any

from billiard.util import get_temp_dir
from celery.signals import worker_init, worker_process_shutdown, worker_ready, worker_shutting_down

from lhcq.errors import PermanentError, TransientError
from tasks.app import own_workspace
from tasks.broker.acceptance import ask_broker
from tasks.broker.connection import redis_client
from tasks.broker.transport import at_work
from tasks.engine.reconciler import start_reconciler
from tasks.observe.tracing import flush, traces_wanted

log = logging.getLogger(__name__)

READY_KEY = "lhcq:ready"
"""Redis set of the names of workers that came up."""
PARENT_VARIABLE = "LHCQ_LOCAL_PARENT"
"""Process id of the command that started a local worker."""
IDLE_VARIABLE = "LHCQ_IDLE_SECONDS"
"""After how long without work a worker leaves; not set: never."""

_LOOK_SECONDS = 0.05

_stop = threading.Event()
_AT_HANGUP = signal.getsignal(signal.SIGHUP)  # before Celery sets its own


@worker_init.connect
def leave_unfit_broker(**_: Any) -> None:
    """Leave, before anything is taken, a broker that would lose work, refuses what is needed or serves others; and a
    workspace of a newer lhcq."""
    try:
        own_workspace().require_known_format()
        ask_broker(own_workspace())
    except PermanentError as error:
        sys.exit(f"lhcq: {error}")  # Celery logs any other exception of a signal and goes on
    except TransientError as error:
        log.warning("%s It is waited for.", error)


@worker_ready.connect
def begin_duty(sender: Any, **_: Any) -> None:
    """Start the threads once the worker is up, and say that it is."""
    leave_unfit_broker()  # it may have come only now
    _end_at_hangup()
    start_reconciler(_stop)
    redis_client().sadd(READY_KEY, sender.hostname)
    leave_with_parent()
    leave_when_idle()


@worker_shutting_down.connect
def end_duty(**_: Any) -> None:
    """Stop the threads; a local worker, whose command waits for its end, does not wait for Celery's."""
    _stop.set()
    if os.environ.get(PARENT_VARIABLE):
        shutil.rmtree(get_temp_dir(), ignore_errors=True)  # the command ends what does not end in time
        if not traces_wanted():  # a child sends its last spans in order
            threading.Thread(target=_leave_once_idle, name="leaving", daemon=True).start()


@worker_process_shutdown.connect
def end_process(**_: Any) -> None:
    """Send a child's last spans."""
    flush()


def _end_at_hangup() -> None:
    """End as at SIGTERM when the terminal goes; Celery would start the worker anew, for nobody. Not under nohup."""
    if _AT_HANGUP != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))
    else:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def leave_with_parent() -> None:
    """Leave once the command that started this process is gone, if one did."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent:
        threading.Thread(target=_watch_parent, args=(int(parent),), name="parent-watch", daemon=True).start()


def leave_when_idle() -> None:
    """Leave, as at SIGTERM, after as long without work as the environment says, if it says so."""
    seconds = os.environ.get(IDLE_VARIABLE)
    if seconds:
        threading.Thread(target=_watch_work, args=(float(seconds),), name="idle-watch", daemon=True).start()


def _watch_work(seconds: float) -> None:
    worked = time.monotonic()
    while not _stop.wait(1.0):
        if at_work():
            worked = time.monotonic()
        elif time.monotonic() - worked > seconds:
            log.info("no work for %.0f s: leaving", seconds)
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _watch_parent(parent: int) -> None:
    """End this whole process group when `parent` is gone: nobody is left to stop it."""
    while not _stop.wait(1.0):
        if os.getppid() != parent:
            _leave_at_once()


def _leave_once_idle() -> None:
    """End this whole process group as soon as it has no work.

    In order it takes Celery some three seconds, of which it sleeps most: until its loop looks at the signal, until a
    child's end was heard of, until its own threads look again.
    """
    looks = 0
    while looks < 2:  # twice: at one moment it may be between two messages
        time.sleep(_LOOK_SECONDS)
        looks = 0 if at_work() else looks + 1
    _leave_at_once()


def _leave_at_once() -> None:
    """Everything that a worker does is idempotent, so nothing is lost by not waiting."""
    os.killpg(os.getpgid(0), signal.SIGKILL)
