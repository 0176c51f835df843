"""The same clustering by workers: a task a chunk, merged by a chord. python 02_on_a_queue.py EVENTS.h5.

With LHCQ_BROKER_URL set, or `lhcq up` running, the work goes to the workers there; otherwise this brings its own.
"""

import sys

import lhcq
from lhcq.errors import JobEnded

plan = lhcq.plan_cluster(sys.argv[1], "queued", preset="diary", events_per_chunk=250)
print(f"{plan.title}: {plan.parts} chunks, identity {plan.spec.identity()}")

with lhcq.submit(plan) as job:
    try:
        events = job.wait(
            progress=lambda at: print(f"\r{at.done} of {at.total} {at.unit}", end="", flush=True)
        )
    except JobEnded as error:  # it failed, was given up, or cancelled
        sys.exit(f"\n{error}")

print(f"\n{len(events)} events, jets above 1200 GeV: {events.manifest['events_by_n_jets']}")
assert (
    lhcq.cluster(sys.argv[1], "here", preset="diary").to_arrow() == events.to_arrow()
)  # the same, without a queue
