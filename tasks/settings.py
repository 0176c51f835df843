"""Celery's configuration, each value with its reason."""

import os
import ssl
from typing import Any

from lhcq.address import BrokerAddress
from lhcq.environment import Settings

QUEUES = ("cpu", "gpu", "validate")


def with_again(queue: str) -> tuple[str, str]:
    """A queue after the one where its units are published again, which workers serve first.

    At the end of its own queue, what was cut off would wait for all that is queued already.
    """
    return f"{queue}.again", queue


# Long enough that no task of lhcq outlives it: a training is cut into segments, a chunk takes seconds. It only
# bounds how late the transport itself redelivers; the reconciler heals a lost message much sooner. It has to stay far
# above the lease, and above the chord's claim (twice the join timeout): shorter, a claim that was killed is never
# taken up again and the chord hangs.
VISIBILITY_TIMEOUT_SECONDS = 2 * 3600

CHORD_JOIN_SECONDS = 30.0

_BACKEND = "tasks.broker.results:QuietRedisBackend"

_TRANSPORT: dict[str, Any] = {
    "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
    # Look for messages past the timeout every ten seconds. The transport's own default looks each 10 x 10 s; a
    # throttle of 1 leaves the interval alone to decide.
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "socket_timeout": 30,  # a broker host that vanished is noticed, instead of a read that waits for ever
    "socket_connect_timeout": 10,
    "socket_keepalive": True,
    "health_check_interval": 25,
}


def forget_foreign() -> dict[str, str]:
    """Take Celery's own variables out of the environment of this process and its children; gives what they were.

    Celery prefers them to an application's settings, and they are another project's: messages would go to its broker.
    """
    # By these a worker tells its children how it logs, and sets them whatever they were.
    kept = ("CELERY_LOG_LEVEL", "CELERY_LOG_FILE")
    foreign = [name for name in sorted(os.environ) if name.startswith("CELERY_") and name not in kept]
    return {name: os.environ.pop(name) for name in foreign}


def tls_options(address: BrokerAddress, settings: Settings) -> dict[str, Any]:
    """What a connection to a `rediss://` address asks of the other side, and shows it; nothing for other schemes.

    The broker's certificate has to be signed by the authority that `settings` name (None: by one that the system
    trusts) and to name the host. A broker that asks for a certificate is shown the one that they name.
    """
    if not address.tls:
        return {}
    files = {
        "ssl_ca_certs": settings.broker_ca,
        "ssl_certfile": settings.broker_cert,
        "ssl_keyfile": settings.broker_key,
    }
    options: dict[str, Any] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    return options | {name: str(path) for name, path in files.items() if path}


def result_url(address: BrokerAddress) -> str:
    """The result backend's URL on the broker's own database; `redis+socket` becomes `socket`, as Celery has it."""
    return f"{_BACKEND}+{address.url.removeprefix('redis+')}"


def celery_settings(address: BrokerAddress | None, settings: Settings | None = None) -> dict[str, Any]:
    """The whole configuration for one broker; None: for none yet."""
    tls = (tls_options(address, settings or Settings()) or None) if address else None
    return {
        "broker_url": address.url if address else "",
        "broker_use_ssl": tls,
        "redis_backend_use_ssl": tls,
        "result_backend": result_url(address) if address else None,
        # Queues in the order given on the command line: a worker of `validate,gpu` validates first.
        "broker_transport_options": {**_TRANSPORT, "queue_order_strategy": "priority"},
        # The shortest visibility timeout on a database wins, so both sides say the same.
        "result_backend_transport_options": dict(_TRANSPORT),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker waits for its broker for ever
        # JSON only: a pickle from the queue would be code from the queue.
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_default_queue": "cpu",
        "task_create_missing_queues": True,
        # A message is acknowledged when its work is done, so a dead worker's message comes back.
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,  # True loops for ever on a task that kills its worker
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,  # a long segment must not hold the next message back
        # On, a kill between a result and its chord count leaves the chord hanging.
        "worker_deduplicate_successful_tasks": False,
        # Flower switches them on where it listens; until then nobody pays for them.
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        # Outputs stand in the workspace; a chord counts its parts all the same.
        "task_ignore_result": True,
        "result_expires": 24 * 3600,
        "result_chord_join_timeout": CHORD_JOIN_SECONDS,
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # the work is idempotent: let it end
        "worker_hijack_root_logger": True,
        "worker_redirect_stdouts": False,
        "timezone": "UTC",
    }
