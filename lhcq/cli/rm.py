"""`lhcq rm NAME...`."""

import click

from lhcq.cli.options import answer, holding_option, json_option
from lhcq.cli.parameters import example


@click.command("rm", epilog=example("lhcq rm lhco --kind dataset"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@holding_option
@click.option("--force", is_flag=True, help="Also what is being made, and what something else was made of.")
@json_option
def command(names: tuple[str, ...], what: str | None, force: bool, as_json: bool) -> int:
    """Remove NAME: a dataset, split, run, prediction, generated events, model or export, with its job.

    What something else was made of is refused, naming that, and so is what a job still works for. `lhcq ls` lists
    what there is; a generated file is removed only while it is what the job made. A split goes with its baseline.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.cli.sizes import said_bytes
    from lhcq.storage import size_of
    from tasks.client import await_workers
    from tasks.jobs.holdings import find_holding, refuse_removal, remove_holding

    workspace = find_workspace()
    going = [find_holding(workspace, name, what) for name in dict.fromkeys(names)]
    if not force:  # all are looked at before any is removed
        for holding in going:
            refuse_removal(workspace, holding, going)
    told, lines = [], []
    for holding in going:
        size = sum(size_of(path) for path in holding.paths)
        kept = remove_holding(workspace, holding, wait_for_workers=lambda job: await_workers(workspace, job))
        told.append({"what": holding.what, "name": holding.name, "bytes": size, "kept": kept and str(kept)})
        lines.append(
            f"removed {holding.title} ({said_bytes(size)})"
            if kept is None
            else f"removed the record of {holding.title}; {kept} stays: it is not, or no longer, what that made"
        )
    answer(as_json, {"removed": told}, "\n".join(lines))
    return 0
