"""What a recipe would have done: tasks, rows, time and memory of each stage, before anything of it is there."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from lhcq.config import ClusterConfig, GenerateConfig, SplitConfig, TrainConfig
from lhcq.environment import whole_path
from lhcq.errors import LhcqError
from lhcq.events.archive import find_file
from lhcq.events.pythia import SECONDS_PER_EVENT as SECONDS_TO_GENERATE
from lhcq.events.pythia import plan_parts
from lhcq.frozen import Frozen
from lhcq.jets.plan import SECONDS_PER_EVENT as SECONDS_TO_CLUSTER
from lhcq.jets.plan import events_per_chunk
from lhcq.model.duration import pace_here, scoring_seconds, step_seconds
from lhcq.model.gpus import gpus_here
from lhcq.model.plan import plan_run
from lhcq.model.preflight import estimate_needs
from lhcq.model.sources import default_model, directory_of_model
from lhcq.prompts.split import expected_prompts
from lhcq.records.events import read_dataset
from lhcq.records.letters import QUANTITIES
from lhcq.records.specs import Template, TrainSpec
from lhcq.records.subsets import read_split, training_prompts
from lhcq.requests.cluster import find_events
from lhcq.requests.recipe import Recipe, config_of
from lhcq.storage import MANIFEST, read_json
from lhcq.workspace import Workspace

MEGABYTES_OF_A_WORKER = 350
"""Of a process that clusters or generates (benchmarks/results/rehearsal.json)."""
_SECONDS_A_PROMPT = 2e-4
"""Of writing it, counting its tokens and fitting trees to it."""
_SECONDS_TO_BEGIN = 5.0
"""Of a stage: its workers, the first message, what is imported."""
_TOKENS = {"compact": 20, "wide": 48, "all": 113, "particles": 50, "diary": 177}
"""Of a prompt, by its template (docs/results.md), without constituents."""


class Forecast(Frozen):
    """One stage; None for what is not known before it is its turn."""

    stage: str
    name: str
    tasks: int | None
    rows: int | None
    """Events or prompts."""
    seconds: float | None
    """On this machine."""
    megabytes: int | None
    """Of memory, of a process that works on it."""
    note: str


class _Known(Frozen):
    """What is known of the events of a recipe before they are there."""

    background: int | None = None
    signal: int | None = None
    """None: no label is known."""
    rows: int | None = None


COLUMNS = {
    "stage": "stage", "name": "name", "tasks": "tasks", "rows": "rows", "time": "time", "memory": "memory",
    "note": "",
}  # fmt: skip


def printed_forecast(one: Forecast) -> dict[str, str]:
    """The cells of one stage."""
    return {
        "stage": one.stage,
        "name": one.name,
        "tasks": _or_unknown(one.tasks),
        "rows": _or_unknown(one.rows),
        "time": "?" if one.seconds is None else duration_in_words(one.seconds),
        "memory": "?" if one.megabytes is None else f"{one.megabytes:,} MB",
        "note": one.note,
    }


def expected_time(directory: Path, spec: TrainSpec, split: Path, longest: int) -> str:
    """How long a run of the model in `directory` will take on this machine, in words: in all, and a step."""
    pace, manifest, config = pace_here(), read_split(split), spec.config
    if pace is None:
        return "a time that is not known of this GPU; the progress tells the rate after some steps"
    tokens = float((manifest["tokens"] or {}).get("mean", longest))
    counts = {subset: sum(found.values()) for subset, found in manifest["counts"].items()}
    a_step = step_seconds(directory, config, tokens, pace)
    scored = len(spec.checkpoint_steps) * counts["validation"] + counts["calibration"] + counts["test"]
    whole = spec.total_steps * a_step + scoring_seconds(directory, scored, tokens, pace)
    return (
        f"about {duration_in_words(whole)} where this machine has nothing else to do, {a_step:.2g} s a step; the "
        "progress tells the rate"
    )


def _or_unknown(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def duration_in_words(seconds: float) -> str:
    """A time to the two figures that an estimate has."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{float(f'{seconds / size:.2g}'):g} {unit}"
    return f"{float(f'{max(seconds, 1):.2g}'):g} s"


def total_seconds(stages: list[Forecast]) -> float | None:
    """Of stages one after the other; None where that of one is not known."""
    known = [one.seconds for one in stages if one.seconds is not None]
    return sum(known) if len(known) == len(stages) else None


def forecast(workspace: Workspace, recipe: Recipe, processes: int) -> Iterator[Forecast]:
    """What each stage of a recipe would do on this machine with so many processes; nothing is made for it."""
    events = _events(workspace, recipe)
    for stage in recipe.stages:
        yield _FORECASTS[stage](workspace, recipe, events, processes)


def _events(workspace: Workspace, recipe: Recipe) -> _Known:
    if recipe.generate:
        background, signal = recipe.generate.background, recipe.generate.signal
        return _Known(background=background, signal=signal, rows=background + signal)
    if recipe.fetch:
        rows, _, classes = find_file(recipe.fetch.file).holds or (None, 0, None)
        return _Known(rows=rows, background=classes and classes[0], signal=classes and classes[1])
    try:
        if (workspace.dataset(recipe.dataset) / MANIFEST).is_file():
            return _of_dataset(workspace, recipe.dataset)
        if recipe.cluster and recipe.cluster.file:
            config = ClusterConfig(**config_of(recipe.cluster, ClusterConfig))
            return _Known(rows=find_events(workspace, whole_path(recipe.cluster.file), config).n_events)
    except LhcqError:
        pass  # it is said when it is the turn of the stage that wants them
    return _Known()


def _of_dataset(workspace: Workspace, name: str) -> _Known:
    manifest = read_dataset(workspace.dataset(name))
    labels = manifest["labels"]
    return _Known(background=labels["background"], signal=labels["signal"], rows=manifest["rows"])


def _fetch(_: Workspace, recipe: Recipe, events: _Known, __: int) -> Forecast:
    entry = find_file(recipe.fetch.file if recipe.fetch else "")
    size = "" if entry.size is None else f"{entry.size / 1e6:,.0f} MB to load; time by the line"
    return Forecast(
        stage="fetch", name=entry.name, tasks=1, rows=events.rows, seconds=None, megabytes=None, note=size
    )


def _generate(_: Workspace, recipe: Recipe, events: _Known, processes: int) -> Forecast:
    assert recipe.generate is not None  # noqa: S101
    rows = events.rows or 0
    return Forecast(
        stage="generate",
        name=recipe.name_of("generate"),
        tasks=len(plan_parts(GenerateConfig(**config_of(recipe.generate, GenerateConfig)))) + 1,
        rows=rows,
        seconds=_SECONDS_TO_BEGIN + rows * SECONDS_TO_GENERATE / processes,
        megabytes=MEGABYTES_OF_A_WORKER,
        note="",
    )


def _standing(result: Path, section: Frozen | None, config: type[Frozen]) -> str:
    """What stands where a stage's result is to go: nothing, that result, or one that was asked for otherwise."""
    if section is None or not (result / MANIFEST).is_file():
        return ""
    try:
        alike = config.checked(**read_json(result / MANIFEST)["config"]) == config(
            **config_of(section, config)
        )
    except (LhcqError, TypeError):  # imported, or of another version
        alike = False
    return "stands already" if alike else "another stands under that name, and this will be refused"


def _cluster(workspace: Workspace, recipe: Recipe, events: _Known, processes: int) -> Forecast:
    assert recipe.cluster is not None  # noqa: S101
    tasks = seconds = None
    if events.rows is not None:
        chunk = recipe.cluster.events_per_chunk or events_per_chunk(events.rows, recipe.cluster.features)
        tasks = -(-events.rows // chunk) + 1
        seconds = _SECONDS_TO_BEGIN + events.rows * SECONDS_TO_CLUSTER[recipe.cluster.features] / processes
    return Forecast(
        stage="cluster",
        name=recipe.name_of("cluster"),
        tasks=tasks,
        rows=events.rows,
        seconds=seconds,
        megabytes=MEGABYTES_OF_A_WORKER,
        note=_standing(workspace.dataset(recipe.dataset), recipe.cluster, ClusterConfig),
    )


def _counts(recipe: Recipe, events: _Known) -> dict[str, int] | None:
    """Prompts of each subset of the recipe's split, copies included; None where the events' labels are not known."""
    if recipe.prepare is None or events.signal is None or events.background is None:
        return None
    config = SplitConfig(**config_of(recipe.prepare, SplitConfig))
    return expected_prompts(events.signal, events.background, config)


def _prepare(workspace: Workspace, recipe: Recipe, events: _Known, _: int) -> Forecast:
    counts = _counts(recipe, events)
    rows = sum(counts.values()) if counts else None
    return Forecast(
        stage="prepare",
        name=recipe.name_of("prepare"),
        tasks=2,
        rows=rows,
        seconds=None if rows is None else _SECONDS_TO_BEGIN + rows * _SECONDS_A_PROMPT,
        megabytes=None if rows is None else MEGABYTES_OF_A_WORKER + rows // 1000,
        note=_standing(workspace.split(recipe.split), recipe.prepare, SplitConfig),
    )


def _train(workspace: Workspace, recipe: Recipe, events: _Known, _: int) -> Forecast:
    assert recipe.train is not None  # noqa: S101
    config = TrainConfig(**config_of(recipe.train, TrainConfig))
    counts, tokens = _split(workspace, recipe, events)
    name = recipe.train.model or default_model()
    directory, pace = directory_of_model(name, workspace), pace_here()
    tasks = rows = seconds = megabytes = None
    note = f"{name}, which has to be obtained" if directory is None else name
    if counts is not None:
        plan = plan_run(counts["train"], config)
        rows = min(
            plan.total_steps * config.batch_size * config.accumulation,
            math.ceil(counts["train"] * config.epochs),
        )
        tasks = 2 * len(plan.checkpoint_steps) + 1
        note = f"{plan.total_steps:,} steps, {len(plan.checkpoint_steps)} checkpoints; {note}"
        if directory is not None and pace is not None and tokens is not None:
            validated = (
                len(plan.checkpoint_steps) * counts["validation"] + counts["calibration"] + counts["test"]
            )
            seconds = plan.total_steps * step_seconds(directory, config, tokens, pace)
            seconds += scoring_seconds(directory, validated, tokens, pace) + 2 * _SECONDS_TO_BEGIN
    if directory is not None and tokens is not None:
        needs = estimate_needs(directory, config, longest=tokens, bfloat16=bool(gpus_here()))
        megabytes = None if needs is None else needs.total // 1_000_000
    return Forecast(
        stage="train",
        name=recipe.name_of("train"),
        tasks=tasks,
        rows=rows,
        seconds=seconds,
        megabytes=megabytes,
        note=note,
    )


def _split(workspace: Workspace, recipe: Recipe, events: _Known) -> tuple[dict[str, int] | None, int | None]:
    """Prompts of each subset of the split that is trained on, and the tokens of one, where they are known."""
    if recipe.prepare is not None:
        return _counts(recipe, events), _tokens_of(recipe.prepare.template, recipe.prepare.constituents)
    try:
        manifest = read_split(workspace.split(recipe.split))
    except LhcqError:
        return None, None
    counts = {subset: sum(found.values()) for subset, found in manifest["counts"].items()}
    template = Template.checked(**manifest["template"])
    tokens = _tokens_of(template.name, template.constituents)
    return counts | {"train": training_prompts(manifest)}, tokens


def _tokens_of(template: str, constituents: int) -> int | None:
    known = _TOKENS.get(template.partition("-")[0])
    if known is None or template != "particles":
        return known
    return known + 2 * QUANTITIES * constituents


def _predict(workspace: Workspace, recipe: Recipe, events: _Known, _: int) -> Forecast:
    assert recipe.predict is not None  # noqa: S101
    name = (recipe.train and recipe.train.model) or default_model()
    directory, pace = directory_of_model(name, workspace), pace_here()
    other = recipe.predict.dataset not in (None, recipe.dataset)
    found = _known_dataset(workspace, recipe.predict.dataset or "") if other else events
    counts, tokens = _split(workspace, recipe, events)
    rows = found.rows
    seconds = None
    if rows is not None and counts is not None and None not in (directory, pace, tokens):
        scored = rows + counts["calibration"]
        seconds = _SECONDS_TO_BEGIN + scoring_seconds(directory, scored, tokens, pace)  # type: ignore[arg-type]
    return Forecast(
        stage="predict",
        name=recipe.predict.name or f"{recipe.run}-{recipe.predict.dataset or recipe.name_of('cluster')}",
        tasks=None,
        rows=rows,
        seconds=seconds,
        megabytes=None,
        note="",
    )


def _known_dataset(workspace: Workspace, name: str) -> _Known:
    try:
        return _of_dataset(workspace, name)
    except LhcqError:
        return _Known()


_FORECASTS: dict[str, Callable[[Workspace, Recipe, _Known, int], Forecast]] = {
    "fetch": _fetch,
    "generate": _generate,
    "cluster": _cluster,
    "prepare": _prepare,
    "train": _train,
    "predict": _predict,
}
