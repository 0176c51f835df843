"""`lhcq prepare NAME --split SPLIT`."""

import time
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, json_option, traced, wait_option, workers_option

if TYPE_CHECKING:
    from lhcq.workspace import Workspace


@click.command("prepare")
@click.argument("name")
@click.option("--split", required=True, help="Name of the split to make.")
@click.option("--ratio", default="1:1", show_default=True, help="signal:background as 1:K, or natural.")
@click.option(
    "--template", type=click.Choice(["compact", "wide", "diary"]), default="compact", show_default=True
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option("--limit", type=click.IntRange(min=20), help="At most this many events over all parts.")
@click.option(
    "--copies",
    type=click.IntRange(min=1, max=64),
    default=1,
    show_default=True,
    help="Copies of each training event, all with numbers moved a little at random; an epoch reads them all.",
)
@click.option("--model", help="Count tokens for this model. Default: the one that `lhcq train` would take.")
@click.option(
    "--max-tokens", type=click.IntRange(min=8), default=512, show_default=True, help="Refuse longer prompts."
)
@workers_option
@wait_option
@json_option
@traced
def command(
    name: str,
    split: str,
    model: str | None,
    max_tokens: int,
    workers: int | None,
    wait: bool,
    as_json: bool,
    **config: Any,
) -> int:
    """Turn the dataset NAME into prompts: train, validation, calibration and test parts that share no event.

    The same event is in the same part in every split of a dataset. A boosted-tree baseline is fitted on the
    train part, to stand beside every checkpoint.
    """
    from lhcq.cli.session import open_workspace, run_job, session
    from lhcq.config import SplitConfig, training_prompts
    from lhcq.records.events import events_sha256
    from lhcq.storage import MANIFEST, read_manifest
    from tasks.jobs.store import Job, refuse_taken_name
    from tasks.workers.local import LocalWorker

    resolved = SplitConfig.checked(**config)
    workspace = open_workspace()
    final = workspace.split(split)
    dataset = read_manifest(
        workspace.dataset(name),
        what=f"dataset {name!r}",
        remedy="Make it with `lhcq cluster` or `lhcq import`.",
    )
    model_name, model_dir = _tokenizer_source(model, workspace)
    spec = {
        "dataset": name,
        "dataset_sha256": events_sha256(dataset),
        "config": resolved.model_dump(),
        "model": model_name,
        "model_dir": model_dir,
        "max_tokens": max_tokens,
    }
    job = Job(kind="prepare", name=split, created=time.time(), spec=spec)
    refuse_taken_name(workspace, job)
    with session(workspace, [LocalWorker(kind="cpu", processes=workers or 1)], detach=not wait) as current:
        waited = run_job(
            current,
            job,
            total=1,
            unit="split",
            count=lambda: (int((final / MANIFEST).exists()), ""),
            again="Run the same command again.",
            wait=wait,
        )
    seconds = waited.seconds
    if not waited.finished:
        answer(as_json, {"job": job.title}, f"{job.title} is queued. `lhcq status` shows it.")
    elif waited.code == 0:
        manifest = read_manifest(final, what=f"split {split!r}", remedy="Run `lhcq prepare`.")
        others = (counts for part, counts in manifest["counts"].items() if part != "train")
        n_prompts = training_prompts(manifest) + sum(sum(counts.values()) for counts in others)
        value = {"split": str(final), "seconds": seconds, "events_per_second": n_prompts / seconds}
        facts = {key: manifest[key] for key in ("counts", "unlabelled", "template", "tokens", "features")}
        answer(as_json, {**value, **facts}, _text(final, manifest, n_prompts, seconds, resolved.copies))
    return waited.code


def _tokenizer_source(model: str | None, workspace: "Workspace") -> tuple[str | None, str | None]:
    """The model to count tokens for, as asked and as a directory; none where lhcq[train] is not installed."""
    import importlib.util

    from lhcq.cli.session import relative_to_workspace

    if model is None and importlib.util.find_spec("torch") is None:
        click.echo(
            "lhcq: tokens are not counted here (lhcq[train] is not installed); training counts them.",
            err=True,
        )
        return None, None
    from lhcq.model.sources import default_model, obtain

    name = model or default_model()
    return name, relative_to_workspace(
        obtain(name, workspace, say=lambda line: click.echo(f"lhcq: {line}", err=True)), workspace
    )


def _text(final: Any, manifest: dict[str, Any], n_prompts: int, seconds: float, copies: int) -> str:
    lines = [
        f"prepared {n_prompts:,} prompts in {seconds:.1f} s ({n_prompts / seconds:,.0f} events/s): {final}"
    ]
    for part, counts in manifest["counts"].items():
        lines.append(f"  {part:<12} signal {counts['signal']:>7,}  background {counts['background']:>7,}")
    if copies > 1:
        lines.append(
            f"  each event of the train part is there {copies} times, its numbers moved a little each time"
        )
    if unlabelled := manifest["unlabelled"]:
        lines.append(f"  left out, since they have no label: {unlabelled:,} events")
    lines.append(f"  a prompt is made of {', '.join(manifest['template']['columns'])}")
    if tokens := manifest["tokens"]:
        lines.append(
            f"  tokens ({tokens['model']}): mean {tokens['mean']:.1f}, p99 {tokens['p99']:.0f}, max {tokens['max']}"
        )
    return "\n".join(lines)
