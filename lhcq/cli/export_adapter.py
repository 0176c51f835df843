"""`lhcq export-adapter RUN STEP DIR`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from lhcq.cli.options import answer, json_option
from lhcq.cli.parameters import FilePath, NameOf, example
from lhcq.config import ModelFormat

if TYPE_CHECKING:
    from lhcq.model.export import Said, Tried
    from lhcq.records.specs import TrainSpec
    from lhcq.workspace import Workspace

_HELD_TO = 6
"""Events that an export is tried on."""
_SAID = {"adapter": "adapter", "merged": "model", "classifier": "classifier"}


@click.command("export-adapter", epilog=example("lhcq export-adapter first best adapter/"))
@click.argument(
    "run", type=NameOf("runs", instead={"dataset": "`lhcq export {name}` writes it in another format."})
)
@click.argument("step")
@click.argument("directory", metavar="DIR", type=FilePath())
@click.option(
    "--format",
    "model_format",
    type=click.Choice(get_args(ModelFormat)),
    default="adapter",
    show_default=True,
    help="An adapter for the base model in NF4, a whole model that answers in words, or one with two outputs.",
)
@json_option
def command(run: str, step: str, directory: Path, model_format: ModelFormat, as_json: bool) -> int:
    """Write a checkpoint of RUN (a step, a tag, best or latest) to DIR, for use without lhcq, with a model card.

    A plain PEFT adapter, which `peft` loads onto the base model; or, for `transformers` alone, the whole model with
    the adapter in it (merged), or its sequence classifier whose outputs are background and signal. The card has a
    program that uses it. DIR is written once that gives the run's own scores on a few events by itself. A DIR that
    exists is refused.
    """
    from lhcq.cli.session import find_workspace
    from lhcq.model.export import (
        export_checkpoint,
        label_tokens,
        name_base,
        precision,
        refuse_existing,
    )
    from lhcq.model.identity import identify, require_same
    from lhcq.model.sources import check_model_directory, require_training
    from lhcq.model.tokens import end_tokens, tokens_before
    from lhcq.prompts.numbers import explain, values_of
    from lhcq.prompts.particles import explain_letters
    from lhcq.prompts.program import prompt_program
    from lhcq.records.jobs import load_job
    from lhcq.records.specs import Template, TrainSpec
    from lhcq.records.subsets import split_of_run
    from lhcq.records.tags import resolve_step
    from lhcq.report.card import card_program, model_card
    from lhcq.report.collect import collect_run

    require_training()
    workspace = find_workspace()
    spec = load_job(workspace, "train", run).spec_of(TrainSpec)
    at = resolve_step(workspace.run(run), step)
    refuse_existing(directory)
    model_dir = workspace.root / spec.model_dir
    check_model_directory(model_dir)
    identity = identify(model_dir, workspace.digests)
    require_same(spec.base, identity, model_dir)
    base = name_base(model_dir, spec.model)
    split = split_of_run(workspace.split(spec.split), run, spec.split_sha256)
    template = Template.checked(**split["template"])
    said = _said(workspace, run, spec, at)
    example = said.prompts[0]
    program = partial(
        card_program,
        model_format,
        dtype=precision(),
        writer=prompt_program(template),
        prompt=example,
        values=values_of(template, example),
        labels=label_tokens(model_dir, example),
        front=tokens_before(model_dir, example),
        ends=end_tokens(model_dir),
    )

    def card(tried: "Tried") -> str:
        return model_card(
            workspace,
            collect_run(workspace, run),
            step=at,
            model_format=model_format,
            base=base,
            identity=identity.model_dump(),
            numbers=explain(template),
            letters=explain_letters(template.frame) if template.frame else (),
            example=example,
            program=program(base=base.name, revision=base.revision, here="."),
            dtype=precision(),
            tried=tried,
        )

    export_checkpoint(
        model_format,
        workspace.checkpoint(run, at),
        directory,
        model_dir=model_dir,
        base=base,
        program=lambda model, here: program(base=model, revision=None, here=here),
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
    what = f"{_SAID[model_format]} of {run}, step {at}, for {base.name}"
    answer(as_json, value, f"{what}: {directory} ({', '.join(files)})")
    return 0


def _said(workspace: "Workspace", run: str, spec: "TrainSpec", step: int) -> "Said":
    """Some events of the split, from least to most signal-like, and what the run's validation said of them."""
    import numpy as np

    from lhcq.model.export import Said
    from lhcq.records.subsets import first_prompts, read_subset
    from lhcq.records.validations import find_evaluation

    split = workspace.split(spec.split)
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
