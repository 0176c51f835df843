"""A further rank's process as rank 0 sees it: JSON lines to and fro, and how it ended. Imports no torch.

It is a child process with a pipe each way. When the process that started it is gone, the kernel closes the pipe of
its commands, and that ends it, in whatever it is (`lhcq.model.follower`).
"""

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from lhcq.errors import LhcqError, PermanentError, TransientError

_END_SECONDS = 10.0
"""How long a process that is ending may take, or its last words."""


class Peer:
    """One further rank. It is started at once."""

    def __init__(self, rank: int, ranks: int, *, threads: int, **arguments: Any) -> None:
        self.name = f"rank {rank} of {ranks}"
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "lhcq.model.follower"),
                json.dumps({"rank": rank, "ranks": ranks, **arguments}),
            ],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        os.set_blocking(self.process.stdin.fileno(), False)  # type: ignore[union-attr]
        self._reader = threading.Thread(target=self._read, name=f"answers-of-{rank}", daemon=True)
        self._reader.start()

    def send(self, line: bytes, seconds: float) -> None:
        """Send a command: a line of JSON. Raises what `failure` tells when it is not read within `seconds`."""
        assert self.process.stdin is not None  # noqa: S101  for the type checker
        pipe, left = self.process.stdin.fileno(), memoryview(line + b"\n")
        deadline = time.monotonic() + seconds
        try:
            while left:
                _, ready, _ = select.select([], [pipe], [], max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TransientError(f"{self.name} of a training has read nothing for {seconds:.0f} s.")
                left = left[os.write(pipe, left) :]
        except OSError as error:
            raise self.failure() from error

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next answer. Raises what `failure` tells when there is none, also not within `seconds`."""
        try:
            said = self._answers.get(timeout=seconds)
        except queue.Empty:
            raise TransientError(f"{self.name} of a training said nothing for {seconds:.0f} s.") from None
        if said is None:
            raise self.failure()
        if "error" in said:
            raise self._as_error(said)
        return said

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def failure(self) -> LhcqError:
        """Why the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        self._reader.join(_END_SECONDS)
        while not self._answers.empty():
            said = self._answers.get()
            if said is not None and "error" in said:
                return self._as_error(said)
        code = self.process.poll()
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = "does not listen" if code is None else f"ended with code {code}"
        return TransientError(f"{self.name} of a training {how}; the worker's log may say more.")

    def kill(self) -> None:
        """End the process at once: it holds nothing that is worth keeping."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # in a driver that does not let go of it
            self.process.wait(_END_SECONDS)
        self._reader.join(_END_SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what it did not read
                stream.close()  # type: ignore[union-attr]

    def _as_error(self, said: dict[str, Any]) -> LhcqError:
        kind = PermanentError if said["permanent"] else TransientError
        return kind(f"{self.name} of a training: {said['error']}")

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if line.endswith(b"\n"):  # a process that is killed may leave half of one
                self._answers.put(json.loads(line))
        self._answers.put(None)
