"""A checkpoint that is asked about events: what it was trained on, prompts like the training's, and its scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lhcq.errors import BadInput
from lhcq.records.checkpoints import require_checkpoint
from lhcq.records.jobs import load_job
from lhcq.records.labels import LABELS
from lhcq.records.specs import Template, TrainSpec
from lhcq.records.tags import resolve_step
from lhcq.workspace import Workspace

if TYPE_CHECKING:
    from lhcq.model.score import Scores


@dataclass(frozen=True, kw_only=True)
class Event:
    """An event, as a run is asked about it."""

    prompt: str
    truth: str | None = None
    """Its label; None where it has none."""
    subset: str | None = None
    """The subset of the run's split that it is in; None where it is in none."""


@dataclass(frozen=True, kw_only=True)
class AskedCheckpoint:
    """A checkpoint of a run that is there, and the split that it was trained on."""

    workspace: Workspace
    spec: TrainSpec
    checkpoint: Path
    split: dict[str, Any]
    """Its manifest."""

    @classmethod
    def of(cls, workspace: Workspace, run: str, step: int | str) -> Self:
        """By a step, a tag, `best` or `latest`; raises `NotThere` without it, `BadInput` for another split."""
        from lhcq.records.subsets import split_of_run

        spec = load_job(workspace, "train", run).spec_of(TrainSpec)
        checkpoint = workspace.checkpoint(run, resolve_step(workspace.run(run), str(step)))
        require_checkpoint(checkpoint)
        split = split_of_run(workspace.split(spec.split), run, spec.split_sha256)
        return cls(workspace=workspace, spec=spec, checkpoint=checkpoint, split=split)

    @property
    def template(self) -> Template:
        """How its training's prompts were written."""
        return Template.checked(**self.split["template"])

    @property
    def dataset(self) -> Path:
        """Where the dataset that the split was made of stands."""
        return self.workspace.dataset(self.split["dataset"])

    def check_jets(self, dataset: Path, say: Callable[[str], None]) -> dict[str, Any]:
        """The manifest of a dataset whose events can be written as the training's were, from jets like those.

        Raises `BadInput` where they cannot; `say` is told where it cannot be told whether they are like those.
        """
        from lhcq.records.events import read_dataset
        from lhcq.requests.predict import check_events

        manifest = read_dataset(dataset)
        check_events(dataset, manifest, trained_on=self.dataset, split=self.split, say=say)
        return manifest

    def event(
        self,
        prompt: str | None,
        *,
        numbers: Sequence[float] | None,
        row: int | None,
        dataset: Path | None,
        say: Callable[[str], None],
    ) -> Event:
        """The event that one of the three gives: its prompt, its numbers, or a row of the source of `dataset` (None:
        what the run was trained on).

        Raises `BadInput` for a prompt of another form, for numbers that no event of the training's has, and for a row
        that is not there. `say` is as in `check_jets`.
        """
        from lhcq.prompts.numbers import check_prompt, refuse_unlike, write_prompt
        from lhcq.records.subsets import read_subset

        if row is not None:
            return self._event_in_row(dataset or self.dataset, row, say)
        if numbers is not None:
            text = write_prompt(self.template, numbers)
            known = read_subset(self.workspace.split(self.spec.split), "train", ["prompt"])["prompt"]
            refuse_unlike(self.template, numbers, known.to_pylist())
        else:
            text = str(prompt)
            check_prompt(self.template, text)
        return Event(prompt=text)

    def _event_in_row(self, dataset: Path, row: int, say: Callable[[str], None]) -> Event:
        from lhcq.prompts.templates import render_as
        from lhcq.records.events import read_event_stretch, read_events, read_schema
        from lhcq.records.subsets import rows_of_subsets

        manifest = self.check_jets(dataset, say)
        rows = read_events(dataset, ["row"])["row"].to_numpy()
        at = int(np.searchsorted(rows, row))
        if at == len(rows) or rows[at] != row:
            raise BadInput(
                f"{dataset.name}: has no row {row}; its {len(rows):,} rows are between {rows[0]} and {rows[-1]}."
            )
        record = read_event_stretch(dataset, at, at + 1, read_schema(dataset).names)
        label = record["label"].to_pylist()[0]
        subsets = {}
        if manifest["source_sha256"] == self.split["source_sha256"]:
            subsets = rows_of_subsets(self.workspace.split(self.spec.split))
        return Event(
            prompt=render_as(self.template, record)[0],
            truth=None if label is None else LABELS[label],
            subset=next((name for name, members in subsets.items() if row in members), None),
        )

    def score(self, prompts: list[str]) -> "Scores":
        """What the model says of each prompt, in their order."""
        from lhcq.model.model_cache import base_of
        from lhcq.model.score import score_prompts

        return score_prompts(
            base_of(self.workspace, self.spec),
            checkpoint=self.checkpoint,
            config=self.spec.config,
            prompts=prompts,
            batch_size=self.spec.config.evaluation_batch,
        )
