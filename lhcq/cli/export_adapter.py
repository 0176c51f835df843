"""`lhcq export-adapter RUN STEP DIR`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lhcq.cli.options import answer, json_option

if TYPE_CHECKING:
    from lhcq.model.export import Said
    from lhcq.records.specs import TrainSpec
    from lhcq.workspace import Workspace

_HELD_TO = 6
"""Events that an export is tried on."""


@click.command("export-adapter")
@click.argument("run")
@click.argument("step")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--merged", is_flag=True, help="Write the whole model with the adapter in it, not the adapter.")
@json_option
def command(run: str, step: str, directory: Path, merged: bool, as_json: bool) -> int:
    """Write a checkpoint of RUN (a step, a tag, best or latest) to DIR, for use without lhcq, with a model card.

    A plain PEFT adapter, which `peft` loads onto the base model; with --merged a model that `transformers` loads. It
    is written once it gives the run's own scores on a few events by itself. A DIR that exists is refused.
    """
    from lhcq.cli.session import open_workspace
    from lhcq.model.export import export_adapter, export_merged, label_tokens, name_base, refuse_existing
    from lhcq.model.identity import identify, require_same
    from lhcq.model.sources import check_model_directory, require_training
    from lhcq.model.tokens import tokens_before
    from lhcq.records.jobs import load_job
    from lhcq.records.specs import TrainSpec
    from lhcq.records.tags import resolve_step
    from lhcq.report.card import model_card
    from lhcq.report.collect import collect_run

    require_training()
    workspace = open_workspace()
    spec = load_job(workspace, "train", run).spec_of(TrainSpec)
    at = resolve_step(workspace.run(run), step)
    refuse_existing(directory)
    model_dir = workspace.root / spec.model_dir
    check_model_directory(model_dir)
    identity = identify(model_dir, workspace.digests)
    require_same(spec.base, identity, model_dir)
    base = name_base(model_dir, spec.model)
    said = _said(workspace, run, spec, at)
    example = said.prompts[0]
    card = model_card(
        workspace,
        collect_run(workspace, run),
        step=at,
        base=base,
        identity=identity.model_dump(),
        labels=label_tokens(model_dir, example),
        front=tokens_before(model_dir, example),
        example=example,
        merged=merged,
    )
    write = export_merged if merged else export_adapter
    write(
        workspace.checkpoint(run, at),
        directory,
        model_dir=model_dir,
        base=base,
        card=card,
        said=said,
        config=spec.config,
    )
    files = sorted(path.name for path in directory.iterdir())
    value = {
        "directory": str(directory.absolute()),
        "run": run,
        "step": at,
        "base": base.name,
        "files": files,
    }
    what = "model" if merged else "adapter"
    answer(as_json, value, f"{what} of {run}, step {at}, for {base.name}: {directory} ({', '.join(files)})")
    return 0


def _said(workspace: "Workspace", run: str, spec: "TrainSpec", step: int) -> "Said":
    """Some events of the split, from least to most signal-like, and what the run's validation said of them."""
    import numpy as np

    from lhcq.model.export import Said
    from lhcq.records.subsets import first_prompts, read_subset, split_of_run
    from lhcq.records.validations import find_evaluation

    split = workspace.split(spec.split)
    split_of_run(split, run, spec.split_sha256)
    validation = find_evaluation(workspace.validation(run, step))
    if validation is not None:
        scores = validation.scores
        table = read_subset(split, "validation", ["row", "prompt"])
        prompts = dict(zip(table["row"].to_pylist(), table["prompt"].to_pylist(), strict=True))
        order = np.argsort(scores.p_signal, kind="stable")
        some = (
            order[np.unique(np.linspace(0, len(order) - 1, _HELD_TO).round().astype(int))]
            if len(order)
            else []
        )
        known = [at for at in some if int(scores.rows[at]) in prompts]
        if known:
            return Said(
                [prompts[int(scores.rows[at])] for at in known], [float(scores.p_signal[at]) for at in known]
            )
    return Said(first_prompts(split, "train", _HELD_TO), None)
