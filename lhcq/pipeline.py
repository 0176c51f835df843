"""A recipe's stages as jobs, each with all that it is made of resolved."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lhcq.api import plan_cluster, plan_generate, plan_prepare, plan_score, plan_train
from lhcq.config import ClusterConfig, GenerateConfig, SplitConfig, TrainConfig
from lhcq.environment import whole_path
from lhcq.errors import BadInput
from lhcq.events.archive import find_file
from lhcq.records.specs import ClusterSpec, TrainSpec
from lhcq.requests.recipe import (
    ClusterStage,
    GenerateStage,
    PredictStage,
    PrepareStage,
    Recipe,
    TrainStage,
    config_of,
)
from lhcq.workspace import Workspace

if TYPE_CHECKING:
    from lhcq.records.jobs import Job

Model = Callable[[str | None], str | None]
"""Gives the model to take where a recipe names that one, or none; it has been obtained, or can be without asking."""


def plan_stage(stage: str, recipe: Recipe, workspace: Workspace, model: Model) -> "Job":
    """The job of one stage of a recipe, whose earlier stages are done; raises what the stage's own request raises."""
    return _PLANS[stage](recipe, getattr(recipe, stage), workspace, model)


def events_of(recipe: Recipe, workspace: Workspace) -> Path:
    """Where the events of a recipe stand, or will."""
    if recipe.generate:
        out = recipe.generate.out
        return whole_path(out) if out else workspace.events / f"{recipe.name_of('generate')}.h5"
    if recipe.fetch:
        return fetched_into(recipe, workspace) / find_file(recipe.fetch.file).file
    if recipe.cluster and recipe.cluster.file:
        return whole_path(recipe.cluster.file)
    raise BadInput("the recipe has no events: its dataset has to stand in the workspace.")


def fetched_into(recipe: Recipe, workspace: Workspace) -> Path:
    """The directory that a recipe's published file is loaded into."""
    to = recipe.fetch and recipe.fetch.to
    return whole_path(to) if to else workspace.events


def _generate(recipe: Recipe, section: GenerateStage, workspace: Workspace, _: Model) -> "Job":
    out = events_of(recipe, workspace)
    if section.out is None:
        out.parent.mkdir(exist_ok=True)
    return plan_generate(out, workspace=workspace, **config_of(section, GenerateConfig))


def _cluster(recipe: Recipe, section: ClusterStage, workspace: Workspace, _: Model) -> "Job":
    file = events_of(recipe, workspace)
    job = plan_cluster(
        file,
        recipe.name_of("cluster"),
        preset=section.preset,
        labels=section.labels,
        tolerate=section.tolerate,
        events_per_chunk=section.events_per_chunk,
        workspace=workspace,
        **config_of(section, ClusterConfig),
    )
    found = job.spec_of(ClusterSpec).source_sha256
    if section.sha256 not in (None, found):
        raise BadInput(
            f"{file}: is not the file that the recipe means: its sha256 is {found[:12]}..., not "
            f"{section.sha256[:12]}.... Take the file that it means, or remove cluster.sha256 to take this one."
        )
    return job


def _prepare(recipe: Recipe, section: PrepareStage, workspace: Workspace, model: Model) -> "Job":
    return plan_prepare(
        recipe.dataset,
        recipe.name_of("prepare"),
        model=model(section.model or (recipe.train.model if recipe.train else None)),
        max_tokens=section.max_tokens,
        workspace=workspace,
        **config_of(section, SplitConfig),
    )


def _train(recipe: Recipe, section: TrainStage, workspace: Workspace, model: Model) -> "Job":
    job = plan_train(
        recipe.split,
        recipe.name_of("train"),
        model=model(section.model),
        preset=section.preset,
        track=section.track,
        threads=section.threads,
        workspace=workspace,
        **config_of(section, TrainConfig),
    )
    spec = job.spec_of(TrainSpec)
    if section.weights is not None and spec.base is not None and spec.base.weights != section.weights:
        raise BadInput(
            f"{spec.model}: has other weights than the recipe means ({spec.base.weights[:12]}..., not "
            f"{section.weights[:12]}...), as where the hub has a newer version of it, or the package index stood in "
            "for the hub. Take the directory of the other by train.model, or remove train.weights to take these."
        )
    return job


def _predict(recipe: Recipe, section: PredictStage, workspace: Workspace, _: Model) -> "Job":
    return plan_score(
        recipe.run,
        section.dataset or recipe.name_of("cluster"),
        section.name,
        step=section.step,
        labels=section.labels,
        largest_p_value=section.select,
        workspace=workspace,
    )


_PLANS: dict[str, Callable[..., "Job"]] = {
    "generate": _generate,
    "cluster": _cluster,
    "prepare": _prepare,
    "train": _train,
    "predict": _predict,
}
