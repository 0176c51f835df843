"""Attempts whose workers did not live to tell how they ended."""

from lhcq.records.failures import Holder
from lhcq.records.jobs import Job
from lhcq.storage import to_json
from tasks.broker.connection import redis_client
from tasks.jobs.kinds import queue_of
from tasks.jobs.leases import lease_key
from tasks.jobs.turns import Claim, take_lease
from tasks.jobs.units import Unit


def count_attempt(job: Job, unit: Unit) -> int:
    """An attempt whose worker was killed, and whose lease has ended: how many there were with it."""
    client, key = redis_client(), lease_key(unit.key)
    latest = to_json({"by": Holder.this_process().model_dump()})
    attempts, _ = take_lease(client, key, "of the dead", 10.0, Claim(job, unit, queue_of(unit)), latest)
    client.delete(key)
    return attempts
