"""`lhcq prune`."""

from collections import defaultdict

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import NumberRange, example


@click.command("prune", epilog=example("lhcq prune --dry-run"))
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@click.option(
    "--log-days",
    type=NumberRange(min=0),
    default=30.0,
    show_default=True,
    help="Logs that nothing was written to for longer are old.",
)
@json_option
def command(dry_run: bool, log_days: float, as_json: bool) -> int:
    """Remove what nobody needs: chunks of jobs that are over, what was cut off a day ago or earlier, old logs.

    No result is touched, nor what an open, failed or incomplete job would go on with.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.cli.sizes import said_bytes
    from tasks.jobs.leftovers import find_leftovers, prune

    workspace = find_workspace()
    found = (find_leftovers if dry_run else prune)(workspace, log_days=log_days)
    total = sum(one.bytes for one in found)
    value = {
        "dry_run": dry_run,
        "bytes": total,
        "leftovers": [{"path": str(one.path), "why": one.why, "bytes": one.bytes} for one in found],
    }
    by_reason = defaultdict(list)
    for one in found:
        by_reason[one.why].append(one)
    lines = []
    for why, some in by_reason.items():
        lines.append(f"{why}: {len(some)}, {said_bytes(sum(one.bytes for one in some))}")
        lines += [f"  {one.path}" for one in some]
    verb = "would be removed" if dry_run else "removed"
    answer(
        as_json, value, "\n".join([*lines, f"{said_bytes(total)} {verb}" if found else "nothing to remove"])
    )
    return 0
