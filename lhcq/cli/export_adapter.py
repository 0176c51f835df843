"""`lhcq export-adapter RUN STEP DIR`."""

from pathlib import Path

import click

from lhcq.cli.options import answer, json_option


@click.command("export-adapter")
@click.argument("run")
@click.argument("step")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--merged", is_flag=True, help="Write the whole model with the adapter in it, not the adapter.")
@json_option
def command(run: str, step: str, directory: Path, merged: bool, as_json: bool) -> int:
    """Write a checkpoint of RUN (a step, a tag, best or latest) to DIR, for use without lhcq, with a model card.

    A plain PEFT adapter, which `peft` loads onto the base model; with --merged a model that `transformers` loads. A
    DIR that exists is refused.
    """
    import pyarrow.parquet as pq

    from lhcq.cli.session import open_workspace
    from lhcq.commits import split_of_run
    from lhcq.evaluate.tags import resolve_step
    from lhcq.model.export import export_adapter, export_merged, label_tokens, name_base, refuse_existing
    from lhcq.model.sources import check_model_directory, require_training
    from lhcq.report.card import model_card
    from lhcq.report.collect import collect_run
    from tasks.jobs import load_job

    require_training()
    workspace = open_workspace()
    spec = load_job(workspace, "train", run).spec
    at = resolve_step(workspace.run(run), step)
    refuse_existing(directory)
    model_dir = workspace.root / spec["model_dir"]
    check_model_directory(model_dir)
    base = name_base(model_dir, spec["model"])
    split = workspace.split(spec["split"])
    split_of_run(split, run, spec["split_sha256"])
    with pq.ParquetFile(split / "train.parquet") as prompts:
        example = next(prompts.iter_batches(batch_size=1, columns=["prompt"]))["prompt"][0].as_py()
    card = model_card(
        workspace,
        collect_run(workspace, run),
        step=at,
        base=base,
        labels=label_tokens(model_dir, example),
        example=example,
        merged=merged,
    )
    checkpoint = workspace.checkpoint(run, at)
    if merged:
        export_merged(checkpoint, directory, model_dir=model_dir, base=base, card=card)
    else:
        export_adapter(checkpoint, directory, base=base, card=card)
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
