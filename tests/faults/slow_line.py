"""A line to the broker on which every byte comes late: `slow_line.py PORT SECONDS` prints its own port."""

import socket
import sys
import threading
import time


def carry(source: socket.socket, target: socket.socket, seconds: float) -> None:
    """Pass on what comes, after a while, until one side ends."""
    try:
        while data := source.recv(65536):
            time.sleep(seconds)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


def main(port: int, seconds: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=carry, args=(*pair, seconds), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
