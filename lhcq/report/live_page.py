"""The pages of the live view as text: all jobs of a workspace, and one job with what is known of it.

What is shown is collected by `tasks.live`, which also says how it is served; here it is only laid out.
"""

import time
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any
from urllib.parse import urlencode

from lhcq.report.templates import html_template

PAGE_ROWS = 50
"""Ended jobs on a page."""

Row = Mapping[str, Any]

_BESIDE: dict[str, Any] = {
    "facts": (),
    "links": (),
    "trouble": (),
    "alarms": (),
    "verdict": (),
    "loss": None,
    "checkpoints": (),
    "columns": {},
    "failures": (),
    "more_failures": 0,
    "stopped": "",
    "log": "",
    "asked": "",
}
"""What the page of a job shows where there is any: names and values, (title, address), sentences, a picture in two
colours, (is best, cells), records of what was given up, texts."""


def render_jobs(workspace: str, rows: Sequence[Row], *, kind: str, page: int, flower: str | None) -> str:
    """The page of all jobs, from their rows; of those that ended, page `page` of a kind ('': of all)."""
    shown = [{**row, "said": _when(row)} for row in rows]
    damaged = [row for row in shown if row["state"] == "damaged"]
    under_way = [row for row in reversed(shown) if row["finished"] is None and row["state"] != "damaged"]
    all_ended = sorted(
        (row for row in shown if row["finished"] is not None), key=lambda row: row["finished"], reverse=True
    )
    ended = [row for row in all_ended if kind in ("", row["kind"])]
    pages = max(1, -(-len(ended) // PAGE_ROWS))
    page = min(max(page, 1), pages)
    counts = {"": len(all_ended)}
    for row in all_ended:
        counts[row["kind"]] = counts.get(row["kind"], 0) + 1
    text: str = html_template("live_jobs.html.j2").render(
        workspace=workspace,
        facts=_facts(rows),
        flower=flower,
        open=under_way,
        damaged=damaged,
        ended=ended[(page - 1) * PAGE_ROWS : page * PAGE_ROWS],
        kinds=[(name, count, _address(name, 1)) for name, count in counts.items()],
        kind=kind,
        page=page,
        pages=pages,
        newer=_address(kind, page - 1),
        older=_address(kind, page + 1),
    )
    return text


def render_job(row: Row, **found: Any) -> str:
    """The page of one job: its row, and what was found beside it under the names of `_BESIDE`."""
    text: str = html_template("live_job.html.j2").render(row=row, **{**_BESIDE, **found})
    return text


def style_sheet() -> str:
    """The style of the report pages, and what the live ones have beside it."""
    plain: str = html_template("plain.css.j2").render()
    return plain + _beside("live.css")


def script() -> str:
    """What has a page follow its workspace."""
    return _beside("live.js")


def said_time(seconds: float | None) -> str:
    """A moment, by the clock of this host."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def said_duration(seconds: float) -> str:
    """A duration in the two largest of its units."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86_400)
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s" if minutes else f"{seconds:.0f} s"


def _when(row: Row) -> str:
    if row["created"] is None:
        return ""
    if row["finished"] is None:
        return f"since {said_time(row['created'])}"
    return f"{said_time(row['finished'])}, {said_duration(max(0.0, row['finished'] - row['created']))}"


def _facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    states: dict[str, int] = {}
    for row in rows:
        states[row["state"]] = states.get(row["state"], 0) + 1
    first = ("open", "done")
    names = [*first, *sorted(state for state in states if state not in first)]
    return [(state.capitalize(), f"{states.get(state, 0):,}") for state in names]


def _address(kind: str, page: int) -> str:
    asked = {**({"kind": kind} if kind else {}), **({"page": str(page)} if page > 1 else {})}
    return f"/?{urlencode(asked)}" if asked else "/"


def _beside(name: str) -> str:
    return resources.files("lhcq.report").joinpath(name).read_text("utf-8")
