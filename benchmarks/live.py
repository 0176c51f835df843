"""Looking at a workspace in a browser: what a page of many ended jobs costs at first, and while one looks on."""

import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, row, say
from lhcq.records.jobs import end_job
from lhcq.workspace import Workspace
from tasks.jobs.store import create_job
from tasks.live import views
from tests.specs import job_of

N_JOBS = 1000
LOOKS = 7


def measure() -> list[Row]:
    """The rows of the result."""
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace(Path(scratch) / "workspace")
        workspace.create()
        say(f"live: recording {N_JOBS} jobs")
        for number in range(N_JOBS):
            end_job(workspace, create_job(workspace, job_of(name=f"job-{number:04d}")), "done", "30 events")
        views._FRESH_SECONDS = views._STALE_SECONDS = 0.0  # nothing is kept: each look collects
        looked = views.LiveViews(workspace)
        looked = views.LiveViews(workspace)
        first = _cpu_seconds(looked)
        later, anew = [], []
        for _ in range(LOOKS):  # interleaved, so that a busy machine is as busy for both
            later.append(_cpu_seconds(looked))
            anew.append(_cpu_seconds(views.LiveViews(workspace)))
    return [
        row("first look, imports included", first, "CPU seconds"),
        row("look that reads all records", anew, "CPU seconds"),
        row("later look", later, "CPU seconds"),
        row(
            "later look over one that reads all records",
            [one / other for one, other in zip(later, anew, strict=True)],
            "ratio",
            at_most=0.35,
            note=f"{N_JOBS:,} ended jobs, fifty of them on the page",
        ),
    ]


def _cpu_seconds(looked: views.LiveViews) -> float:
    began = time.process_time()
    page = looked.jobs("", "1")
    assert page.count('class="name"') == 50
    return time.process_time() - began
