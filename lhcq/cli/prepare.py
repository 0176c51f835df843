"""`lhcq prepare NAME --split SPLIT`."""

from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import (
    choice_of,
    force_option,
    json_option,
    priority_option,
    seed_option,
    told_by_option,
    traced,
    wait_option,
    workers_option,
)
from lhcq.cli.parameters import NameOf, example
from lhcq.config import SplitConfig

if TYPE_CHECKING:
    from pathlib import Path

    from lhcq.cli.session import Waited
    from lhcq.records.jobs import Priority


@click.command("prepare", epilog=example("lhcq prepare lhco --split balanced"))
@click.argument(
    "name", type=NameOf("datasets", instead={"split": "`lhcq train {name} --name RUN` trains on it."})
)
@click.option("--split", required=True, help="Name of the split to make.")
@click.option("--ratio", default="1:1", show_default=True, help="signal:background as 1:K, or natural.")
@click.option("--template", type=choice_of(SplitConfig, "template"), default="compact", show_default=True)
@click.option(
    "--without-mass",
    is_flag=True,
    help="Prompts of compact or wide without m_jj and what determines it, to select by and then look at m_jj.",
)
@click.option(
    "--constituents",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Hardest constituents of each leading jet in a prompt of particles.",
)
@click.option(
    "--frame",
    type=choice_of(SplitConfig, "frame"),
    default="principal-axis",
    show_default=True,
    help="Whether particles turns each jet onto its principal axis first.",
)
@seed_option
@click.option(
    "--limit", type=click.IntRange(min=20), help="At most this many events over all subsets. Default: all."
)
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
@force_option
@workers_option
@priority_option
@wait_option
@json_option
@traced
def command(
    name: str,
    split: str,
    template: str,
    without_mass: bool,
    model: str | None,
    max_tokens: int,
    workers: int | None,
    force: bool,
    priority: "Priority",
    wait: bool,
    as_json: bool,
    **config: Any,
) -> int:
    """Turn the dataset NAME into prompts: train, validation, calibration and test subsets that share no event.

    The same event is in the same subset in every split of a dataset. Boosted trees are fitted on the train
    subset, to stand beside every checkpoint: some on the numbers of the prompts, others on all features of NAME.
    """
    from lhcq.cli.models import chosen_model
    from lhcq.cli.session import conclude, find_workspace, have_done, say
    from lhcq.config import template_without_mass
    from lhcq.records.events import find_dataset
    from lhcq.requests.prepare import model_for_tokens, prepare_request
    from tasks.client import progress_of, workers_for

    if without_mass:
        template = template_without_mass(template)
    with told_by_option():
        resolved = SplitConfig.checked(template=template, **config)
    workspace = find_workspace()
    final = workspace.split(split)
    find_dataset(workspace.dataset(name))  # before a model is fetched for it
    model_name, model_dir = model_for_tokens(chosen_model(model, workspace), workspace, say)
    job = prepare_request(
        workspace, name, split, resolved, model=model_name, model_dir=model_dir, max_tokens=max_tokens
    )
    job = job.asking(priority=priority)
    waited = have_done(
        workspace,
        job,
        workers_for(job, workers),
        measure=lambda: progress_of(workspace, job),
        again="Run the same command again.",
        wait=wait,
        force=force,
    )
    return conclude(waited, job, lambda: _told(final, waited, resolved.copies), as_json=as_json)


def _told(final: "Path", waited: "Waited", copies: int) -> tuple[dict[str, Any], str]:
    from lhcq.manifests import read_manifest
    from lhcq.records.subsets import training_prompts

    manifest = read_manifest(final, what=f"split {final.name!r}", remedy="Run `lhcq prepare`.")
    others = (counts for part, counts in manifest["counts"].items() if part != "train")
    n_prompts = training_prompts(manifest) + sum(sum(counts.values()) for counts in others)
    value = {
        "split": str(final), "seconds": waited.seconds, "events_per_second": waited.rate(n_prompts)
    }  # fmt: skip
    facts = {key: manifest[key] for key in ("counts", "unlabelled", "template", "tokens", "features")}
    return {**value, **facts}, _text(final, manifest, n_prompts, waited.took(n_prompts), copies)


def _text(final: Any, manifest: dict[str, Any], n_prompts: int, took: str, copies: int) -> str:
    lines = [f"prepared {n_prompts:,} prompts{took}: {final}"]
    for part, counts in manifest["counts"].items():
        lines.append(f"  {part:<12} signal {counts['signal']:>7,}  background {counts['background']:>7,}")
    if copies > 1:
        lines.append(
            f"  each event of the train subset is there {copies} times, its numbers moved a little each time"
        )
    if unlabelled := manifest["unlabelled"]:
        lines.append(f"  left out, since they have no label: {unlabelled:,} events")
    lines.append(f"  a prompt is made of {', '.join(manifest['template']['columns'])}")
    if most := manifest["template"].get("constituents"):
        lines.append(f"    and of at most {most} constituents of either jet")
    if tokens := manifest["tokens"]:
        lines.append(
            f"  tokens ({tokens['model']}): mean {tokens['mean']:.1f}, p99 {tokens['p99']:.0f}, max {tokens['max']}"
        )
        if tokens.get("letter", 1) > 1:
            lines.append(
                f"    a letter of a constituent takes up to {tokens['letter']}: another model reads it as one"
            )
    return "\n".join(lines)
