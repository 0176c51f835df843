"""What the live page shows, collected from the records in the workspace each time that somebody looks."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lhcq.errors import BadInput, LhcqError, NotThere
from lhcq.records import scans, searches
from lhcq.records.failures import Stopped, failures_of, stop_of
from lhcq.records.jobs import Job, load_job
from lhcq.records.predictions import read_summary
from lhcq.report.live_page import render_job, render_jobs, said_duration, said_time
from lhcq.workspace import Workspace
from tasks.client import meet_broker
from tasks.jobs.kinds import KINDS, kind_of, result_of
from tasks.observe.job_rows import JobRows, Row, damaged_row, row_of
from tasks.observe.log_reader import LogReader, is_about
from tasks.workers.flower import flower_address

_SHARE = 10.0
"""What is shown is kept for so many times the CPU's time that it took to collect: looking costs a tenth of a core."""
_FRESH_SECONDS, _STALE_SECONDS = 1.0, 15.0
"""But at least, and at most, so long."""
_PICTURE_SECONDS = 10.0
"""A picture is drawn again when it is older: it takes longer to draw than all else, and changes less."""
_MOST_KEPT = 64
_SHOWN_LINES, _SHOWN_BYTES = 40, 262_144
_LOG_LINES, _LOG_BYTES = 20_000, 16_777_216
_MOST_FAILURES = 20
_T = TypeVar("_T")
_LONGEST_PAGE = 64 * 1024 * 1024
"""Bytes of a report; a larger file under its name was not written by lhcq."""


class LiveViews:
    """The pages of one workspace. For one thread: matplotlib's parameters, and what is kept here, are not shared."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._rows = JobRows(workspace)
        self._kept: dict[tuple[str, ...], tuple[float, float, Any]] = {}
        """By what it is: until when it is shown, when it was asked for last, and what it is."""

    def jobs(self, kind: str, page: str) -> str:
        """The page of all jobs, of the ended ones the page of that number."""
        rows, flower = self._recent(("rows",), self._read_rows)
        number = int(page) if page.isascii() and page.isdigit() and len(page) < 9 else 1
        return render_jobs(str(self._workspace.root), rows, kind=kind, page=number, flower=flower)

    def job(self, kind: str, name: str) -> str:
        """The page of one job, damaged ones included; `NotThere` where there is none."""
        try:
            job = self._job(kind, name)
        except NotThere:
            raise
        except BadInput as error:
            return render_job(damaged_row(kind, name, str(error)))
        return self._recent(("job", kind, name), lambda: self._render(job))

    def log(self, kind: str, name: str) -> str:
        """The newest lines that workers logged about a job."""
        job = self._job(kind, name)
        return self._recent(("log", kind, name), lambda: self._log(job, _LOG_LINES, _LOG_BYTES)) + "\n"

    def report(self, kind: str, name: str) -> bytes:
        """The page about a job's result as it stands; of a run without one, as it would be written now."""
        job = self._job(kind, name)
        path = self._report_path(job)
        if path is not None:
            return path.read_bytes()
        if job.kind == "train":
            return self._recent(("report", kind, name), lambda: self._report_now(job))
        raise NotThere(f"{job.title} has no page yet.")

    def _job(self, kind: str, name: str) -> Job:
        if kind not in KINDS:
            raise NotThere(f"{kind!r} is no kind of job.")
        try:
            self._workspace.job(kind, name)
        except BadInput as error:  # no name of anything
            raise NotThere(str(error)) from error
        return load_job(self._workspace, kind, name)

    def _recent(self, key: tuple[str, ...], collect: Callable[[], _T], at_least: float = 0.0) -> _T:
        """What was collected under `key`, collected again where that is too long ago."""
        now = time.monotonic()
        kept = self._kept.get(key)
        if kept is not None and now < kept[0]:
            self._kept[key] = (kept[0], now, kept[2])
            value: _T = kept[2]
            return value
        began = time.thread_time()
        value = collect()
        took = time.thread_time() - began
        age = max(at_least, _FRESH_SECONDS, min(_SHARE * took, _STALE_SECONDS))
        if len(self._kept) >= _MOST_KEPT:
            del self._kept[min(self._kept, key=lambda one: self._kept[one][1])]
        self._kept[key] = (time.monotonic() + age, now, value)
        return value

    def _read_rows(self) -> tuple[list[Row], str | None]:
        meet_broker(self._workspace)  # which counts; without one the workspace is read
        return self._rows.read(), flower_address(self._workspace)

    def _render(self, job: Job) -> str:
        workspace = self._workspace
        meet_broker(workspace)
        row, trouble = row_of(workspace, job), []
        found: dict[str, Any] = {}
        try:
            found |= self._result(job)
        except (LhcqError, OSError) as error:
            trouble.append(str(error))
        failures = failures_of(workspace, job)
        stopped = stop_of(workspace, job) if row["finished"] is None else None
        return render_job(
            row,
            facts=_facts(row),
            links=self._links(job),
            trouble=trouble,
            failures=failures[:_MOST_FAILURES],
            more_failures=len(failures) - len(failures[:_MOST_FAILURES]),
            stopped=_said_stop(stopped),
            log=self._log(job, _SHOWN_LINES, _SHOWN_BYTES),
            asked=json.dumps(job.spec.recorded(), indent=2, sort_keys=True, ensure_ascii=False),
            **found,
        )

    def _result(self, job: Job) -> dict[str, Any]:
        """What a job's kind has to show beside what all have."""
        if job.kind == "train":
            return self._run(job)
        result = result_of(self._workspace, job)
        if job.kind == "predict" and result.exists():
            from lhcq.report.prediction import prediction_verdict

            return {"verdict": prediction_verdict(read_summary(result))}
        if job.kind == "search" and result.exists():
            from lhcq.report.search import search_verdict

            return {"verdict": search_verdict(searches.read_found(result))}
        if job.kind == "scan" and result.exists():
            from lhcq.report.scan import scan_verdict

            return {"verdict": scan_verdict(scans.read_found(result))}
        return {}

    def _run(self, job: Job) -> dict[str, Any]:
        from lhcq.report.collect import collect_run
        from lhcq.report.table import COLUMNS, checkpoint_table, printed_row
        from lhcq.report.verdict import said_alarm, verdict_of

        view = collect_run(self._workspace, job.name)
        # The first picture is there with the first step, the last one with the end; between, one now and then.
        state = ("loss", job.name, str(view.history.steps.size > 0), str(view.finished))
        return {
            "alarms": [said_alarm(*found, paused=view.state == "paused") for found in view.alarms],
            "verdict": verdict_of(view),
            "loss": self._recent(state, lambda: _picture(view), _PICTURE_SECONDS),
            "checkpoints": [(row["best"], printed_row(row)) for row in checkpoint_table(view)],
            "columns": COLUMNS,
        }

    def _log(self, job: Job, most: int, last_bytes: int) -> str:
        lines = LogReader(self._workspace, last_bytes=last_bytes).lines(lambda line: is_about(line, job))
        return "\n".join(line.text for line in lines[-most:])

    def _links(self, job: Job) -> list[tuple[str, str]]:
        here = f"/jobs/{job.kind}/{job.name}"
        links = [("Log as text", f"{here}/log")]
        if job.kind == "train" or self._report_path(job) is not None:
            links.insert(0, ("Report", f"{here}/report"))
        flower = flower_address(self._workspace)
        return links + ([("Flower", flower)] if flower else [])

    def _report_path(self, job: Job) -> Path | None:
        """The page about a job's result, where it stands inside the workspace and is a file of a page's size."""
        path = kind_of(job).page(self._workspace, job)
        if path is None or not self._workspace.inside(path).is_file():
            return None
        return path if path.stat().st_size <= _LONGEST_PAGE else None

    def _report_now(self, job: Job) -> bytes:
        from lhcq.evaluate.comparison import compare_scores
        from lhcq.report.collect import collect_run
        from lhcq.report.page import render_page

        return render_page(collect_run(self._workspace, job.name), compare_scores).encode()


def _facts(row: Row) -> list[tuple[str, str]]:
    ended = row["finished"] is not None
    until = row["finished"] if ended else time.time()
    facts = [
        ("Kind", row["kind"]),
        ("Owner", row["owner"] or ""),
        ("Priority", row["priority"] if row["priority"] != "normal" else ""),
        ("Asked for", said_time(row["created"])),
        ("Ended", said_time(row["finished"])),
        ("Took" if ended else "For", said_duration(max(0.0, until - row["created"]))),
    ]
    return [(name, text) for name, text in facts if text]


def _said_stop(stopped: Stopped | None) -> str:
    if stopped is None:
        return ""
    return f"Nobody works for it: {stopped.message} ({said_time(stopped.by.since)}, on {stopped.by.host})"


def _picture(view: Any) -> dict[str, str] | None:
    from lhcq.report.page import PICTURES
    from lhcq.report.plots import plot_run
    from lhcq.report.style import pictured

    plot = plot_run(view)["loss"]
    if plot is None:
        return None
    title, caption = PICTURES["loss"].title, PICTURES["loss"].caption
    return {
        **pictured(plot),
        "alt": f"{title} by optimizer step.",
        "caption": caption,
    }
