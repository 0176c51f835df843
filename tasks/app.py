"""The Celery application."""

import functools
import threading

from celery import Celery

from lhcq.address import BrokerAddress
from lhcq.environment import Settings
from lhcq.workspace import Workspace
from tasks.broker.connection import point_at
from tasks.broker.transport import OwnLoader, check_messages
from tasks.settings import celery_settings, forget_foreign

foreign_settings = forget_foreign()
"""Celery's variables that another project left in the environment; nothing of lhcq's follows them."""
app = Celery(
    "lhcq",
    loader=OwnLoader,
    include=[
        "tasks.stages.generate",
        "tasks.stages.cluster",
        "tasks.stages.prepare",
        "tasks.stages.train",
        "tasks.stages.predict",
        "tasks.stages.search",
        "tasks.stages.scan",
        "tasks.workers.lifecycle",
        "tasks.doctor.worker_probe",
    ],
)
check_messages(lambda: app.tasks)


def connect(broker_url: str) -> None:
    """Point the application at a broker; the empty address at none. Raises `BadInput` for one that cannot be."""
    address = BrokerAddress.of(broker_url) if broker_url else None
    app.conf.update(celery_settings(address, Settings.from_environment()))
    _forget_connections()
    point_at(address)


def _forget_connections() -> None:
    """Celery goes on using the pools and the result backend that it made first, whatever its settings are by then."""
    app.__dict__.pop("amqp", None)
    app._pool = None
    app._backend_cache = None
    app._local = threading.local()


@functools.cache
def own_workspace() -> Workspace:
    """The workspace of this process."""
    return Workspace.of_environment()


if broker_url := Settings.from_environment().broker_url:
    connect(broker_url)
