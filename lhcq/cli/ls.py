"""`lhcq ls`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, holding_option, json_option, printed_table
from lhcq.cli.parameters import example

if TYPE_CHECKING:
    from lhcq.workspace import Workspace
    from tasks.jobs.holdings import Holding

_HEADINGS = {
    "what": "what",
    "name": "name",
    "state": "state",
    "size": "size",
    "owner": "owner",
    "changed": "changed",
    "made of": "made of",
}


@click.command("ls", epilog=example("lhcq ls", "lhcq ls --kind run"))
@holding_option
@json_option
def command(what: str | None, as_json: bool) -> int:
    """List what the workspace holds, with size, owner and what it was made of: `lhcq rm` removes it by that name.

    Sizes are of all files below, those of the job that made it included. What has no state was made by no job, or
    its job was removed.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.storage import size_of
    from tasks.jobs.holdings import list_holdings

    workspace = find_workspace()
    holdings = list_holdings(workspace)
    names = {path: holding.title for holding in holdings for path in holding.results}
    rows = [_row(workspace, one, names) for one in holdings if what in (None, one.what)]
    beside = {
        place.name: size_of(place)
        for place in (workspace.logs, workspace.broker, workspace.flower)
        if what is None and place.exists()
    }
    value = {"workspace": str(workspace.root), "holdings": rows, "beside": beside}
    answer(as_json, value, _text(workspace, rows, beside))
    return 0


def _row(workspace: "Workspace", holding: "Holding", names: dict[Path, str]) -> dict[str, Any]:
    from lhcq.storage import size_of

    parents = holding.kind.made_of(workspace, holding.job) if holding.kind and holding.job else []
    return {
        "what": holding.what,
        "name": holding.name,
        "state": holding.state(workspace),
        "bytes": sum(size_of(path) for path in holding.paths),
        "owner": _owner(holding.paths),
        "changed": max((_changed(path) for path in holding.paths), default=None),
        "made_of": [names.get(path, str(path)) for path in parents],
        "paths": [str(path) for path in holding.paths],
        "trouble": holding.trouble,
    }


def _owner(paths: list[Path]) -> str | None:
    """Of the first that stands: a name, or the number of a user whom this host does not know."""
    for path in paths:
        try:
            return path.owner()
        except KeyError:
            return str(path.stat().st_uid)
        except OSError:
            continue
    return None


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _text(workspace: "Workspace", rows: list[dict[str, Any]], beside: dict[str, int]) -> str:
    from lhcq.cli.sizes import said_bytes

    if not rows and not beside:
        return f"nothing in {workspace.root}"
    cells = [
        {
            **{key: row[key] for key in ("what", "name", "state")},
            "size": said_bytes(row["bytes"]),
            "owner": row["owner"] or "",
            "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(row["changed"]))
            if row["changed"]
            else "",
            "made of": ", ".join(row["made_of"]),
        }
        for row in rows
    ]
    total = sum(row["bytes"] for row in rows) + sum(beside.values())
    kept = ", ".join(f"{name} {said_bytes(size)}" for name, size in beside.items())
    of_which = f", of which {kept}" if kept else ""
    return "\n".join(
        [
            *(
                [printed_table(_HEADINGS, cells, left=[key for key in _HEADINGS if key != "size"])]
                if rows
                else []
            ),
            f"{said_bytes(total)} in {workspace.root}{of_which}",
            *(f"{row['what']} {row['name']}: {row['trouble']}" for row in rows if row["trouble"]),
        ]
    )
