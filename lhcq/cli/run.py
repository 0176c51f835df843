"""`lhcq run RECIPE`."""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, json_option, printed_table, traced, workers_option
from lhcq.cli.parameters import example

if TYPE_CHECKING:
    from lhcq.records.jobs import Job
    from lhcq.requests.recipe import Recipe
    from lhcq.workspace import Workspace
    from tasks.client import Session


@click.command(
    "run",
    epilog=example(
        "lhcq run demo --dry-run",
        "lhcq run mine.toml --set train.rank=32",
        "lhcq run demo --sweep train.learning_rate=1e-4,3e-4",
    ),
)
@click.argument("recipe", required=False)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.FIELD=VALUE",
    help="Another value than the recipe's, such as train.rank=32. May be given several times.",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="SECTION.FIELD=VALUE,...",
    help="Several values, such as train.learning_rate=1e-4,3e-4: runs side by side, compared at the end. Of several "
    "sweeps, every combination.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, how much that is, and do nothing.")
@click.option("--list", "listing", is_flag=True, help="List the recipes that lhcq brings, as without RECIPE.")
@workers_option
@json_option
@traced
def command(
    recipe: str | None,
    overrides: tuple[str, ...],
    sweeps: tuple[str, ...],
    dry_run: bool,
    listing: bool,
    workers: int | None,
    as_json: bool,
) -> int:
    """Do a whole pipeline as one file says: fetch or generate, cluster, prepare, train, predict, report.

    RECIPE is a file in TOML, or the name of one that lhcq brings. It is checked whole before anything starts. A
    command that was stopped goes on when it is given again, and what is done already is not done again. Every run
    that ends leaves the recipe that makes it again: runs/NAME/recipe.toml in the workspace.
    """
    from lhcq.cli.session import find_workspace, open_workspace
    from lhcq.requests.recipe import read_recipe

    if listing or recipe is None:
        return _list(as_json)
    recipes = read_recipe(recipe, overrides, sweeps)
    if dry_run:
        return _forecast(find_workspace(), recipes, workers, as_json)
    return _Pipeline(open_workspace(), recipes, workers).run(as_json)


def _list(as_json: bool) -> int:
    from lhcq.requests.recipe import shipped

    found = shipped()
    width = max(map(len, found))
    lines = [f"{name:<{width}}  {what}" for name, what in found.items()]
    answer(as_json, {"recipes": found}, "\n".join([*lines, "", "Run one: lhcq run NAME [--dry-run]"]))
    return 0


def _forecast(workspace: "Workspace", recipes: "Sequence[Recipe]", workers: int | None, as_json: bool) -> int:
    """Print the plan: what each stage would do, on this machine."""
    from lhcq.requests.forecast import COLUMNS, forecast, printed_forecast, total_seconds
    from lhcq.requests.forecast import duration_in_words as words
    from lhcq.requests.recipe import STAGES
    from tasks.client import default_processes

    processes = workers or default_processes()
    found = dict.fromkeys(one for recipe in recipes for one in forecast(workspace, recipe, processes))
    stages = sorted(found, key=lambda one: STAGES.index(one.stage))
    table = printed_table(COLUMNS, map(printed_forecast, stages), left=("stage", "name", "note"))
    seconds = total_seconds(stages)
    known = f"about {words(seconds)} on this machine" if seconds is not None else "how long is not known"
    text = f"{table}\n{known}, with {processes} processes where no broker is configured; nothing was done."
    answer(as_json, {"stages": [one.model_dump() for one in stages], "seconds": seconds}, text)
    return 0


class _Pipeline:
    """The stages of some recipes, one after the other; of each stage, the jobs of all recipes side by side."""

    def __init__(self, workspace: "Workspace", recipes: "Sequence[Recipe]", workers: int | None) -> None:
        self._workspace = workspace
        self._recipes = recipes
        self._workers = workers
        self._told: list[dict[str, Any]] = []
        self._ended: list[dict[str, str]] = []
        """Of jobs that did not end well: how, and why."""

    def run(self, as_json: bool) -> int:
        """Do it all; gives the exit code, after one answer."""
        from lhcq.cli.session import say
        from lhcq.requests.recipe import STAGES
        from lhcq.requests.recorded_recipe import made_by
        from tasks.client import session

        for line in _differences(self._recipes[0].made_by, made_by()):
            say(line)
        code = 0
        with contextlib.ExitStack() as stack:  # one broker and its workers, for all stages
            opened = functools.cache(lambda: stack.enter_context(session(self._workspace, [], say=say)))
            for stage in STAGES:
                recipes = [recipe for recipe in self._recipes if stage in recipe.stages]
                if recipes and not code:
                    code = (
                        self._fetch(recipes) if stage == "fetch" else self._have_done(stage, recipes, opened)
                    )
        value: dict[str, Any] = {"stages": self._told}
        if code:
            answer(as_json, {**value, "ended": self._ended}, "")
            return code
        more, text = self._result()
        answer(as_json, {**value, **more}, text)
        return 0

    def _fetch(self, recipes: "Sequence[Recipe]") -> int:
        from lhcq.cli.fetch import Meter
        from lhcq.cli.session import say
        from lhcq.events.archive import find_file
        from lhcq.events.download import fetch_file
        from lhcq.pipeline import fetched_into

        wanted = {
            (fetched_into(recipe, self._workspace), recipe.fetch.file) for recipe in recipes if recipe.fetch
        }
        for directory, name in sorted(wanted):
            entry, began = find_file(name), time.monotonic()
            with Meter(entry.name) as meter:
                fetched = fetch_file(entry, directory, watch=meter.show, say=say)
            seconds = None if fetched.already_there else time.monotonic() - began
            self._tell("fetch", entry.name, seconds, str(fetched.path))
        return 0

    def _have_done(self, stage: str, recipes: "Sequence[Recipe]", opened: "Callable[[], Session]") -> int:
        from lhcq.cli.models import chosen_model
        from lhcq.cli.session import have_all_done
        from lhcq.pipeline import plan_stage
        from tasks.client import LocalWorker, default_processes, done_already, result_of, workers_for

        model: Callable[[str | None], str | None] = lambda name: chosen_model(name, self._workspace)  # noqa: E731
        planned = [plan_stage(stage, recipe, self._workspace, model) for recipe in recipes]
        jobs: dict[str, Job] = {job.title: job for job in planned}
        # As many as later stages may want, too: they stay.
        processes = self._workers or default_processes()
        kinds = dict.fromkeys(one.kind for job in jobs.values() for one in workers_for(job))
        wanted = [LocalWorker(kind=kind, processes=processes if kind == "cpu" else 1) for kind in kinds]
        for job in jobs.values():
            if stage == "train" and not done_already(self._workspace, job):
                self._say_what_it_takes(job)
        waited = have_all_done(self._workspace, list(jobs.values()), wanted, opened)
        for title, one in waited.items():
            if one.ended:
                self._ended.append(one.ended)
            else:
                self._tell(stage, jobs[title].name, one.seconds, str(result_of(self._workspace, jobs[title])))
        return max((one.code for one in waited.values()), default=0)

    def _say_what_it_takes(self, job: "Job") -> None:
        from lhcq.cli.train import say_what_it_takes
        from lhcq.records.specs import TrainSpec
        from lhcq.records.subsets import read_split

        spec = job.spec_of(TrainSpec)
        tokens = read_split(self._workspace.split(spec.split))["tokens"] or {}
        directory = self._workspace.root / spec.model_dir
        say_what_it_takes(self._workspace, job, directory, tokens.get("max", spec.config.max_tokens))

    def _tell(self, stage: str, name: str, seconds: float | None, result: str) -> None:
        """Note a stage that is done, and say so."""
        from lhcq.cli.session import say

        self._told.append({"stage": stage, "name": name, "seconds": seconds, "result": result})
        say(f"{stage} {name}: {'done already' if seconds is None else f'done in {seconds:.1f} s'}, {result}")

    def _result(self) -> tuple[dict[str, Any], str]:
        """What the runs amount to: the table of one, or several side by side."""
        from lhcq.cli.compare import compared
        from lhcq.cli.runs import run_answer

        runs = [recipe.name_of("train") for recipe in self._recipes if recipe.train]
        if not runs:
            return {}, "\n".join(f"{one['stage']} {one['name']}: {one['result']}" for one in self._told)
        if len(runs) == 1:
            value, text = run_answer(self._workspace, runs[0])
            return {"run": value}, f"{text}\n{value['report']}"
        value, text = compared(self._workspace, runs)
        return {"compared": value}, text


def _differences(then: Mapping[str, str], now: dict[str, str]) -> list[str]:
    """A line on what the recipe's run was made with and is otherwise here, where there is such a thing."""
    other = [
        f"{name} {now.get(name, 'none')}, was {was}" for name, was in then.items() if now.get(name) != was
    ]
    return (
        [f"made by other versions than are here, so results may differ: {'; '.join(other)}"] if other else []
    )
