"""A worker knows whether it is at work."""

from typing import Any

from celery.worker import state

from tasks.broker.transport import at_work


class Request:
    """All that Celery's count looks at."""

    def __init__(self) -> None:
        self.id = "made-up"
        self.name = "lhcq.cluster_part"

    def __getattr__(self, name: str) -> Any:
        return None


def test_a_worker_is_at_work_from_the_taking_of_a_message_to_its_end() -> None:
    request = Request()
    assert not at_work()
    state.task_reserved(request)
    assert at_work()
    state.task_accepted(request)
    assert at_work()
    state.task_ready(request)
    assert not at_work()
