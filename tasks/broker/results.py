"""The result backend: Redis as Celery has it, for chords alone.

Nobody reads a result of lhcq, since outputs stand in the workspace. Celery's backend subscribes to every result that
is published all the same: a round trip a part, and at exit a call to a broker that may have been stopped.
"""

from typing import Any

from celery.backends.redis import RedisBackend


class QuietRedisBackend(RedisBackend):
    """Counts the parts of a chord, and waits for nothing."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribe to nothing when a task is published."""

    def add_pending_result(self, result: Any, weak: bool = False, start_drainer: bool = True) -> Any:
        """Subscribe to nothing when a chord holds a result."""
        return result
