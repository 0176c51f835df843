"""The same no-op on plain Celery: late acknowledgement and the settings that its documentation gives for it."""

import os
import time
from pathlib import Path

from celery import Celery

VISIBILITY_TIMEOUT_SECONDS = 30

app = Celery("plain", broker=os.environ.get("PLAIN_BROKER_URL"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,  # as short as a task allows: what is lost comes back soon
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    },
)


@app.task(name="plain.noop")
def noop(index: int) -> None:
    """Wait as a part of the storm does, and say that it was done."""
    time.sleep(float(os.environ.get("LHCQ_NOOP_SECONDS", "0")))
    done(Path(os.environ["PLAIN_DONE"]), index)


def done(path: Path, index: int) -> None:
    """Append one line, whole."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{index}\n".encode())
    os.close(descriptor)
