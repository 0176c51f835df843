"""The process of a further rank: `lhcq.model.ranks` starts it, tells it what to do, and is told what came of it.

It does nothing by itself. Told of a training it loads the model, if it has another one, and says how large its passes
can be; told of a step it takes the weights, and gives the gradient of its share of the step's rows.
"""

import json
import os
import queue
import signal
import sys
import threading
import traceback
from typing import Any, TextIO

from lhcq.errors import PermanentError


def main() -> None:
    """Follow rank 0 until it is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # rank 0 is asked to end, and may end its segment first
    place = json.loads(sys.argv[1])
    commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(commands,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        _follow(commands, answers, **place)
    except Exception as error:
        permanent = isinstance(error, PermanentError)
        if not permanent:
            traceback.print_exc()
        said = str(error) if permanent else f"{type(error).__name__}: {error}"
        _say(answers, {"error": said, "permanent": permanent})
        sys.stderr.flush()
        os._exit(1)  # without waiting for transfers that nobody takes part in any more


def _receive(commands: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Take in commands while the process works; end it, in whatever it is, when rank 0 is gone."""
    try:
        for line in sys.stdin.buffer:
            commands.put(json.loads(line))
    finally:  # also where rank 0 was killed in the middle of a line
        os._exit(0)


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _follow(
    commands: "queue.SimpleQueue[dict[str, Any]]",
    answers: TextIO,
    *,
    rank: int,
    ranks: int,
    cpu: bool,
    meeting: str,
) -> None:
    from lhcq.model.ranks import Follower, join_group

    _say(answers, {})
    join_group(rank, ranks, cpu=cpu, meeting=meeting)
    follower = None
    while True:
        command = commands.get()
        if "model" in command:
            follower = Follower(rank, ranks, **command)
            _say(answers, follower.size.model_dump())
        elif follower is not None:
            follower.work(**command)


if __name__ == "__main__":
    main()
