"""Loaded by a worker: chunks of a clustering do nothing but commit a line, and no fault is waited for."""

from celery.signals import worker_init

import tasks.stages.cluster
from tests.faults.noop import noop_merge, noop_part

tasks.stages.cluster._make = noop_part
tasks.stages.cluster._merge = noop_merge
worker_init.disconnect(tasks.stages.cluster.warm_up)
