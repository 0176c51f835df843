"""Something done again and again by a thread while something else goes on."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def meanwhile(action: Callable[[], None], *, every: float, name: str) -> Iterator[None]:
    """Call `action` each `every` seconds of the body, the first time after as many, in a thread of this `name`.

    The body's end waits for a call that is under way. The process does not wait for the thread.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every):
            action()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
