"""What jobs leave, as objects: datasets as arrays and frames, runs that predict.

They are views of what stands in the workspace: making one reads nothing. Reading raises `NotThere` for what is not
there, and `BadInput` for a file that is no longer what its manifest says. `docs/dataset.md` defines every column.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lhcq.asking import AskedCheckpoint
from lhcq.errors import BadInput
from lhcq.records.labels import LABELS
from lhcq.records.run_state import best_step, validated_steps
from lhcq.workspace import RunPaths, Workspace

if TYPE_CHECKING:
    import awkward as ak
    import hist
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from lhcq.records.metrics import Metrics
    from lhcq.records.scores import Scores


@dataclass(frozen=True)
class Result:
    """Something that stands in a `workspace`, under a name."""

    name: str
    workspace: Workspace


class Dataset(Result):
    """Clustered or imported events: a row an event, in the order of the source."""

    @property
    def path(self) -> Path:
        """Its directory: `events.parquet` and the manifest."""
        return self.workspace.dataset(self.name)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What it was made of and what it holds, once its files were found to be those of the manifest."""
        from lhcq.records.events import read_dataset

        return read_dataset(self.path)

    def __len__(self) -> int:
        """Its events."""
        n_events: int = self.manifest["rows"]
        return n_events

    def to_awkward(self, columns: Iterable[str] | None = None) -> "ak.Array":
        """The events as an awkward array (n_events,), jets as lists of records by falling pt; GeV and radians.

        `columns` None takes all; `jets.list.element.pt` is one column of the jets.
        """
        import awkward as ak

        return ak.from_arrow(self.to_arrow(columns))

    def to_arrow(self, columns: Iterable[str] | None = None) -> "pa.Table":
        """The events as an Arrow table of n_events rows; columns and units are those of `to_awkward`."""
        from lhcq.records.events import read_dataset, read_events, read_schema

        read_dataset(self.path)  # which verifies its files
        return read_events(self.path, list(columns) if columns else read_schema(self.path).names)

    def to_pandas(self) -> "pd.DataFrame":
        """The events as a flat frame of n_events rows: `j1_pt`, `j1_eta`, ... of the leading jet, `j2_pt`, ...

        What an event does not have is NaN. Needs pandas, which lhcq does not bring.
        """
        import pyarrow as pa

        from lhcq.jets.export_table import flatten_dataset
        from lhcq.records.events import read_dataset

        read_dataset(self.path)  # which verifies its files
        schema, batches = flatten_dataset(self.path, lists=False)
        return pa.Table.from_batches(batches, schema).to_pandas()

    def hist(
        self, column: str = "mjj", *, bins: int = 50, start: float | None = None, stop: float | None = None
    ) -> "hist.Hist":
        """A histogram of a column of the events, by label, as counts in `bins` equal bins of [start, stop).

        The axes are `label` (background, signal, unlabelled) and the column, in its own unit (GeV for mjj); start and
        stop None are its least and largest value. The storage is `Weight`, which keeps the variances of a histogram
        that is scaled. Events without a value are left out. Raises `BadInput` where no event has one.
        """
        from hist import Hist

        table = self.to_arrow(["label", column])
        values = table[column].to_numpy().astype(np.float64)
        labels = table["label"].fill_null(-1).to_numpy()
        known = np.isfinite(values)
        if not known.any():
            raise BadInput(f"{self.name}: no event has a {column}.")
        low = float(values[known].min()) if start is None else start
        high = float(np.nextafter(values[known].max(), np.inf)) if stop is None else stop
        made = Hist.new.StrCat([*LABELS, "unlabelled"], name="label")
        made = made.Reg(bins, low, high, name=column, label=f"{column} [GeV]" if column == "mjj" else column)
        # Scaled, Int64 would lose its variances, and uproot writes no Int64 to ROOT files.
        counted = made.Weight()
        names = np.array(["unlabelled", *LABELS])[labels[known] + 1]
        counted.fill(label=names, **{column: values[known]})
        return counted


class Split(Result):
    """Prompts in four subsets that share no event."""

    @property
    def path(self) -> Path:
        """Its directory: a parquet file a subset, and the manifest."""
        return self.workspace.split(self.name)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What it was made of, and how many prompts of each class each subset holds."""
        from lhcq.records.subsets import read_split

        return read_split(self.path)

    def to_arrow(self, subset: str = "train") -> "pa.Table":
        """Rows, labels (1 signal, 0 background), prompts and features of a subset, as a table of one row a prompt.

        The subsets are train, validation, calibration and test; raises `BadInput` for another.
        """
        from lhcq.records.subsets import SUBSETS, read_split, read_subset, split_schema

        if subset not in SUBSETS:
            raise BadInput(f"{subset!r} is none of {', '.join(SUBSETS)}.")
        columns = split_schema(read_split(self.path)["features"]).names
        return read_subset(self.path, subset, columns)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a run says of one event."""

    label: str
    """`signal` or `background`: the likelier one."""
    p_signal: float
    """The softmax over the two labels, at signal."""
    generated: str | None
    """What the model says in words: a label, the likelier one mostly, and nothing else; None where it is neither."""
    prompt: str
    """What the model was given."""
    row: int | None = None
    """The event's row in its source, where it was asked for by that."""
    truth: str | None = None
    """The label that the event has in its dataset; None where it has none."""
    subset: str | None = None
    """The subset of the run's split that the event is in: of `train` it was learnt; None where it is in none."""


class Run(Result):
    """A training: its checkpoints, and what they say."""

    @property
    def path(self) -> Path:
        """Its directory: checkpoints, validations, the report."""
        return self.workspace.run(self.name)

    @property
    def report(self) -> Path:
        """The page to look at."""
        return RunPaths(self.path).page

    @property
    def best_step(self) -> int | None:
        """The checkpoint that is best on the validation subset; None before the first validation."""
        return best_step(self.path)

    @property
    def test(self) -> "Metrics | None":
        """The best checkpoint's metrics on the test subset, which nothing else touched; None before the run's end."""
        from lhcq.records.validations import find_evaluation

        found = find_evaluation(RunPaths(self.path).test)
        return found.metrics if found else None

    @property
    def trees(self) -> "dict[str, Metrics]":
        """The metrics on the test subset of the boosted trees that stand beside the run, by name.

        `trees on the prompt's numbers` see what the model sees, as its prompts write it; `trees on all N features`
        see all that the dataset has. Without those that were not fitted.
        """
        from lhcq.report.collect import collect_run

        beside = collect_run(self.workspace, self.name).baseline.beside("test")
        return {trees.name: metrics for trees, metrics in beside if metrics}

    def validations(self) -> "dict[int, Metrics]":
        """The metrics of each checkpoint on the validation subset, by step."""
        from lhcq.records.validations import read_metrics

        steps = validated_steps(self.path)
        return {step: read_metrics(self.workspace.validation(self.name, step)) for step in steps}

    def predict(self, events: "Dataset | ak.Array | pa.Table | str", *, step: int | str = "best") -> "Scores":
        """P(signal) of each event by a checkpoint: of a dataset, or of events as `Dataset.to_awkward` gives them.

        All arrays of the result have shape (n_events,), in the order of the events; labels are -1 where there are
        none. `step` is a step, a tag, `best` or `latest`. Exact, one forward pass an event; without p-values, for
        which `score` takes the calibration subset.

        A dataset has to have the jets that the run was trained on; of arrays, which do not say, that is the caller's.
        Raises `NotThere` without the checkpoint, `BadInput` where the events lack what the run's prompts are made of,
        or have other jets; warns where it cannot be told whether they have.
        """
        from lhcq.prompts.templates import render_as
        from lhcq.records.scores import Scores

        asked = AskedCheckpoint.of(self.workspace, self.name, step)
        if isinstance(events, str):
            events = Dataset(events, self.workspace)
        if isinstance(events, Dataset):
            asked.check_jets(events.path, lambda warning: warnings.warn(warning, stacklevel=5))
        records = _records_of(events)
        scores = asked.score(render_as(asked.template, records))
        return Scores(
            rows=records["row"].to_numpy(),
            labels=records["label"].fill_null(-1).to_numpy(),
            p_signal=np.asarray(scores.p_signal),
            answers=scores.answers,
        )

    def ask(
        self,
        prompt: str | None = None,
        *,
        numbers: Sequence[float] | None = None,
        row: int | None = None,
        dataset: Dataset | str | None = None,
        step: int | str = "best",
        say: Callable[[str], None] = lambda _: None,
    ) -> Answer:
        """The answer for one event, given as a prompt, as its numbers, or as a row of a dataset.

        `numbers` are those of the prompt in its order, each in its own unit (GeV for masses and momenta), NaN where
        the event has none; `lhcq.prompts.numbers.explain` and the cards of exports say what they are. `row` is the
        event's row in the source of `dataset`, by default of what the run was trained on. `step` is as in `predict`.
        `say` is told what takes time, and where it cannot be told whether a dataset's jets are the training's.

        Raises `BadInput` unless exactly one of the three is given, for a prompt of another form, for another count of
        numbers or one far beyond what the training's events have (mostly another unit), and for a row that is not
        there; `NotThere` without the checkpoint or the dataset.
        """
        if sum(one is not None for one in (prompt, numbers, row)) != 1:
            raise BadInput("give one event: a prompt, its numbers, or a row of a dataset.")
        if dataset is not None and row is None:
            raise BadInput("a dataset is asked by a row of it.")
        asked = AskedCheckpoint.of(self.workspace, self.name, step)
        if isinstance(dataset, str):
            dataset = Dataset(dataset, self.workspace)
        where = None if dataset is None else dataset.path
        event = asked.event(prompt, numbers=numbers, row=row, dataset=where, say=say)
        say("loading the base model")
        scores = asked.score([event.prompt])
        p_signal, said = float(scores.p_signal[0]), int(scores.answers[0])
        return Answer(
            label=LABELS[p_signal >= 0.5],
            p_signal=p_signal,
            generated=LABELS[said] if said >= 0 else None,
            prompt=event.prompt,
            row=row,
            truth=event.truth,
            subset=event.subset,
        )


class Prediction(Result):
    """What a checkpoint says of a dataset: scores, p-values, the selected spectrum."""

    @property
    def path(self) -> Path:
        """Its directory: scores, summary, page, manifest."""
        return self.workspace.prediction(self.name)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What the scores amount to: events selected, their spectrum in m_jj (GeV), metrics where labels are."""
        from lhcq.records.predictions import read_summary

        return read_summary(self.path)

    def to_arrow(self) -> "pa.Table":
        """A table of n_events rows, in the order of the dataset: `row`, `p_signal`, `p_value`, `rank` (1: the most
        signal-like), `mjj` (GeV), `label`, `part` (the subset of the run's split that it is in), `answer` (in words:
        1 signal, 0 background, -1 neither)."""
        from lhcq.records.predictions import read_scores

        return read_scores(self.path)

    @property
    def p_signal(self) -> "NDArray[np.float64]":
        """P(signal) of each event (n_events,), in the order of the dataset."""
        values: NDArray[np.float64] = self.to_arrow()["p_signal"].to_numpy()
        return values


class Search(Result):
    """A search for a resonance: what each region and selection shows, and how likely that is of background."""

    @property
    def path(self) -> Path:
        """Its directory: numbers, scores, page, manifest."""
        return self.workspace.search(self.name)

    @property
    def report(self) -> Path:
        """The page to look at."""
        from lhcq.records.searches import page_file

        return page_file(self.path)

    @cached_property
    def found(self) -> dict[str, Any]:
        """All tests with their fits and p-values, the global p-value, what the largest excess looks like (GeV)."""
        from lhcq.records.searches import read_found

        return read_found(self.path)

    @property
    def p_value(self) -> float | None:
        """The global p-value, of all tests together; None where nothing could be fitted."""
        overall = self.found["global"]
        return overall["p_value"] if overall else None

    def verdict(self) -> list[str]:
        """What may be said of it, in sentences, as its page says it."""
        from lhcq.report.search import search_verdict

        return search_verdict(self.found)

    def to_arrow(self) -> "pa.Table":
        """A table of the events in the fit's range: `row`, `mjj` (GeV), `fold`, a `score_LOW_HIGH` a region."""
        from lhcq.records.searches import read_scores

        return read_scores(self.path)


class Scan(Result):
    """What a search would find of so many signal events, by learner and selection."""

    @property
    def path(self) -> Path:
        """Its directory: numbers, page, manifest."""
        return self.workspace.scan(self.name)

    @property
    def report(self) -> Path:
        """The page to look at."""
        from lhcq.records.scans import page_file

        return page_file(self.path)

    @cached_property
    def found(self) -> dict[str, Any]:
        """The region (GeV), and of each point, a number of signal events and a seed, what every learner found."""
        from lhcq.records.scans import read_found

        return read_found(self.path)

    def verdict(self) -> list[str]:
        """What may be said of it, in sentences, as its page says it."""
        from lhcq.report.scan import scan_verdict

        return scan_verdict(self.found)


def _records_of(events: "Dataset | ak.Array | pa.Table") -> "pa.Table":
    import pyarrow as pa

    if isinstance(events, Dataset):
        return events.to_arrow()
    if isinstance(events, pa.Table):
        return events
    import awkward as ak

    return ak.to_arrow_table(events, extensionarray=False)
