"""When the page of a run is written while the run goes on."""

import os
import time

from lhcq.records.job_control import set_wish
from lhcq.workspace import RunPaths, Workspace
from tasks.stages.train import _PAGE_SECONDS, _page_is_due


def test_a_page_is_due_where_there_is_none_or_an_old_one_and_where_what_follows_may_be_long_in_coming(
    place: Workspace, new_job
) -> None:
    job = new_job("train", "run", parts=0)
    page = RunPaths(place.run("run")).page
    assert _page_is_due(place, job)
    page.write_text("as it was")
    assert not _page_is_due(place, job)  # the next validation writes it, or the end
    for age in (_PAGE_SECONDS + 1, -3600):  # or by a clock that is not this one's
        os.utime(page, (time.time() - age,) * 2)
        assert _page_is_due(place, job)
    os.utime(page)
    set_wish(place, job, "pause")
    assert _page_is_due(place, job)
