"""lhcq from Python: what a notebook or an analysis uses, the same results as by the commands.

    import lhcq

    events = lhcq.cluster("events.h5", "rnd")  # here, in this process
    split = lhcq.prepare("rnd", "balanced")
    run = lhcq.train("balanced", "first", model="smollm2")
    run.predict("rnd").p_signal

Each of these does its job here, without a queue. `submit` has the same job done by workers: those of the configured
broker, or its own while it is waited for. Either way the bytes are the same, a job that was cut off goes on where it
was, and one that is done already is not done again. Nothing is printed; errors are those of `lhcq.errors`.

Where it is used before torch or scikit-learn is loaded, their threads wait for each other as those of the program do,
without taking a core from others: it sets `GOMP_SPINCOUNT` unless that or `OMP_WAIT_POLICY` is set.

Everywhere `workspace` is an object, its directory, or None for what `LHCQ_WORKSPACE` names (and for a result as the
input, the workspace that it stands in; inputs of two workspaces are refused). Energies, momenta and masses are in
GeV, angles in radians.
"""

# Above 400 lines, and one thing: the interface, a function a verb, with the signature and docstring that a notebook
# shows. What is done stands elsewhere: lhcq.requests plans, tasks.client does.

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lhcq.config import (
    CLUSTER_PRESETS,
    TRAIN_PRESETS,
    ClusterConfig,
    SplitConfig,
    TrainConfig,
    on_cluster_preset,
)
from lhcq.environment import spin_briefly, whole_path
from lhcq.errors import BadInput, JobEnded
from lhcq.own_tasks import refuse_other_tasks
from lhcq.results import Dataset, Prediction, Result, Run, Scan, Search, Split
from lhcq.submission import Job, Told, say_nothing
from lhcq.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lhcq.records.jobs import Job as Record
    from lhcq.records.jobs import Priority
    from lhcq.records.metrics import Metrics

log = logging.getLogger(__name__)

spin_briefly(os.environ)

for _room in ("lhcq", "tasks"):  # a program that wants to hear of alarms, and of odd events, says where to
    logging.getLogger(_room).addHandler(logging.NullHandler())


def workspace(directory: "Workspace | Path | str | None" = None) -> Workspace:
    """The workspace in a directory, by default the one that `LHCQ_WORKSPACE` names; made if it is not there.

    Raises `BadInput` where the environment names something that cannot be used.
    """
    return _opened(directory)


def _opened(given: "Workspace | Path | str | None") -> Workspace:
    if isinstance(given, Workspace):
        return given
    made = Workspace.of_environment(Path(given) if given else None)
    if made.root.exists():
        made.require_readable()  # whoever may not write there may look
    else:
        made.create()
    return made


# What is asked for


def plan_generate(
    out: Path | str,
    *,
    background: int,
    signal: int,
    seed: int = 1,
    detector: bool = True,
    workspace: Workspace | Path | str | None = None,
) -> "Record":
    """The job that generates events into the file `out`, with Pythia and a CMS-like detector; nothing is done yet.

    `background` and `signal` are numbers of events; `detector` False leaves the generated particles as they are.
    Raises `BadInput` for a file outside of the data roots, in no directory, or of no events, and `DiskFull`.
    """
    from lhcq.config import GenerateConfig
    from lhcq.requests.generate import generate_request

    config = GenerateConfig.checked(background=background, signal=signal, seed=seed, detector=detector)
    here = _opened(workspace)
    return generate_request(here, whole_path(out), config).planned_in(here)


def plan_cluster(
    file: Path | str,
    name: str,
    *,
    preset: str = "lhco",
    labels: Path | str | None = None,
    tolerate: float = 0.0,
    events_per_chunk: int | None = None,
    workspace: Workspace | Path | str | None = None,
    **config: Any,
) -> "Record":
    """The job that clusters a file's events into the dataset `name`; nothing is done yet.

    `config` overrides values of the preset (`lhco` or `diary`): algorithm (antikt, kt, cambridge), radius (in
    rapidity and azimuth), pt_min (GeV), max_jets (None: all), features (jets, or full with substructure),
    axes (of tau_N: wta-kt, onepass-kt, kt), constituents (hardest ones kept of each leading jet).
    `labels` is the master key of a file without labels, `tolerate` the share in [0, 1] of the events that may be left
    out, `events_per_chunk` the size of a task (None: some three seconds of it).

    Raises `BadInput` for a file, key or value that cannot be used, and `DiskFull`.
    """
    from lhcq.requests.cluster import cluster_request, find_events

    _preset(CLUSTER_PRESETS, preset)
    resolved = ClusterConfig.checked(**on_cluster_preset(preset, config))
    here = _opened(workspace)
    return cluster_request(
        here,
        find_events(here, whole_path(file), resolved, warn=log.warning),
        name,
        resolved,
        key=whole_path(labels) if labels else None,
        tolerate=tolerate,
        chunk=events_per_chunk,
    ).planned_in(here)


def plan_prepare(
    dataset: "Dataset | str",
    name: str,
    *,
    model: str | None = None,
    max_tokens: int = 512,
    workspace: Workspace | Path | str | None = None,
    **config: Any,
) -> "Record":
    """The job that turns a dataset into the prompts of the split `name`; nothing is done yet, but a model fetched.

    `config` is that of `lhcq prepare`: ratio (signal:background as 1:K, or natural), template (compact, wide, all,
    particles, diary; for a search in m_jj compact-without-mass or wide-without-mass), constituents (of each leading
    jet) and frame of particles, seed, limit (events over all subsets), copies (of each training prompt). Tokens are
    counted for `model`, and a prompt of more than `max_tokens` of them is refused when the job is done; model None
    is the default one, or none without lhcq[train].

    Raises `NotThere` without the dataset, `BadInput` for a model or a value that cannot be used.
    """
    from lhcq.records.events import find_dataset
    from lhcq.requests.prepare import model_for_tokens, prepare_request

    here = _where_stands(workspace, dataset)
    find_dataset(here.dataset(_name_of(dataset)))
    model, directory = model_for_tokens(model, here, say_nothing)
    resolved = SplitConfig.checked(**config)
    request = prepare_request(
        here, _name_of(dataset), name, resolved, model=model, model_dir=directory, max_tokens=max_tokens
    )
    return request.planned_in(here)


def plan_train(
    split: "Split | str",
    name: str,
    *,
    model: str | None = None,
    preset: str = "default",
    track: str | None = None,
    threads: int | None = None,
    workspace: Workspace | Path | str | None = None,
    **config: Any,
) -> "Record":
    """The job that fine-tunes a model on a split, as the run `name`; nothing is done yet, but the model fetched.

    `config` overrides values of the preset (`default` or `diary`): rank, alpha, learning_rate, epochs, max_steps,
    checkpoints, seed, max_memory (bytes) and the others of `lhcq train`. `model` is a directory, `smollm2` or
    OWNER/MODEL of the hub, `track` a tracker that is told as well. `threads` of a CPU are what the run begins with
    and keeps, whoever goes on with it, so that its bytes are the same; None: those of the process that begins it.

    Raises `NotThere` without the split, `BadInput` for a model, tracker or value that cannot be used or a prompt of
    more than max_tokens, `DiskFull`.
    """
    from lhcq.model.sources import default_at_hand, obtain
    from lhcq.requests.train import split_to_train, train_request

    here = _where_stands(workspace, split)
    resolved = TrainConfig.checked(**{**_preset(TRAIN_PRESETS, preset).model_dump(), **config})
    split_to_train(here, _name_of(split), track)
    model = model or default_at_hand(here)
    directory = obtain(model, here, say=say_nothing)
    return train_request(
        here,
        _name_of(split),
        name,
        resolved,
        model=model,
        model_dir=directory,
        preset=preset,
        track=track,
        threads=threads,
    ).job.planned_in(here)


def plan_score(
    run: "Run | str",
    dataset: "Dataset | str",
    name: str | None = None,
    *,
    step: int | str = "best",
    labels: Path | str | None = None,
    largest_p_value: float = 0.01,
    workspace: Workspace | Path | str | None = None,
) -> "Record":
    """The job that scores a dataset with a checkpoint of a run, as the prediction `name`; nothing is done yet.

    `name` None is RUN-DATASET. Where a finished prediction differs in `largest_p_value` alone, its scores are used
    and no model is asked; where that is RUN-DATASET itself, `name` None is RUN-DATASET-select-P. `step` is a step, a
    tag, `best` or `latest`; `labels` the master key of a dataset without labels; an event is selected with a p-value
    in (0, 1] of at most `largest_p_value`.

    Raises `NotThere` without run, checkpoint or dataset, `BadInput` where the dataset lacks a column of the run's
    prompts or has other jets. What `lhcq predict` says beforehand, as where it cannot be told whether the jets are
    those of the training, goes to the logger `lhcq.api`.
    """
    from lhcq.requests.predict import predict_request

    here = _where_stands(workspace, run, dataset)
    return predict_request(
        here,
        _name_of(run),
        _name_of(dataset),
        step=str(step),
        name=name,
        key=whole_path(labels) if labels else None,
        largest_p_value=largest_p_value,
        say=log.warning,
    ).planned_in(here)


def plan_search(
    dataset: "Dataset | str",
    name: str | None = None,
    *,
    regions: tuple[float, float, float] = (2900.0, 5100.0, 400.0),
    sideband: float | None = None,
    fit: tuple[float, float] | None = None,
    epochs: float | None = None,
    max_steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    beside: "Search | str | None" = None,
    workspace: Workspace | Path | str | None = None,
    **config: Any,
) -> "Record":
    """The job that looks for a resonance in a dataset without labels, as the search `name`; nothing is done yet.

    `regions` are from, to and width in m_jj, GeV, each begun half a width after the one before; `sideband` what lies
    at either side of a region that its classifier compares it with, as far as the fit reaches (None: a width); `fit`
    the range of the background's fit (None: from half a width below the regions, or from a narrower sideband, to six
    widths above). `config` is that of `lhcq search`: folds, seeds, model, template, selections (shares in (0, 1)),
    shuffles, pseudo_experiments, seed. `name` None is the dataset's, with a language model's after it.

    `model` is `trees`, or a language model (a directory, `smollm2` or OWNER/MODEL of the hub), for whose trainings
    `epochs` (None: 3), `max_steps`, `batch_size` (None: 256, fewer of few events) and `learning_rate` mean what they
    do in `plan_train`; `beside` is the search by trees, a finished one, to show beside it (None: one that fits, if it
    is there).

    Raises `NotThere` without the dataset, `BadInput` for a template that holds the mass, for values that cannot be,
    and where the dataset lacks m_jj or what the template is made of.
    """
    from lhcq.requests.fine_tuning import fine_tuning, training_config
    from lhcq.requests.search import search_config, search_request

    resolved = search_config(regions=regions, sideband=sideband, fit=fit, **config)
    here = _where_stands(workspace, dataset, beside)
    training = training_config(
        resolved, epochs=epochs, max_steps=max_steps, batch_size=batch_size, learning_rate=learning_rate
    )
    tuning = fine_tuning(here, _name_of(dataset), resolved, training, say=say_nothing)
    chosen = None if beside is None else _name_of(beside)
    request = search_request(here, _name_of(dataset), resolved, name=name, tuning=tuning, beside=chosen)
    return request.planned_in(here)


def plan_scan(
    dataset: "Dataset | str",
    put_in: Sequence[int],
    name: str | None = None,
    *,
    epochs: float | None = None,
    max_steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    workspace: Workspace | Path | str | None = None,
    **config: Any,
) -> "Record":
    """The job that tells what a search would find of so many signal events, as the scan `name`; nothing is done yet.

    Each number in `put_in` of a labelled dataset's signal events, in the range of the fit, is put among its
    background, and the region with most of its signal is tested by a search's classifier, an idealised and a
    supervised one. `config` is as in `plan_search`, but for shuffles and pseudo_experiments, which a scan has not;
    `seeds` are draws of the signal.

    Raises what `plan_search` does, and `BadInput` where events have no label or there is too little signal.
    """
    from lhcq.requests.fine_tuning import fine_tuning, training_config
    from lhcq.requests.scan import scan_config, scan_request

    resolved = scan_config(put_in, **config)
    here = _where_stands(workspace, dataset)
    training = training_config(
        resolved, epochs=epochs, max_steps=max_steps, batch_size=batch_size, learning_rate=learning_rate
    )
    tuning = fine_tuning(here, _name_of(dataset), resolved, training, say=say_nothing)
    return scan_request(here, _name_of(dataset), resolved, name=name, tuning=tuning).planned_in(here)


# Done here


def generate(
    out: Path | str,
    *,
    workspace: Workspace | Path | str | None = None,
    progress: Told | None = None,
    **options: Any,
) -> Path:
    """Generate events into the file `out`, in this process; the options are those of `plan_generate`.

    Gives the file's path. Raises what `plan_generate` does, `NameTaken` where something else stands there, and
    `JobEnded` where it does not end well.
    """
    here = _opened(workspace)
    request = plan_generate(out, workspace=here, **options)
    _do(here, request, progress)
    return whole_path(out)


def cluster(
    file: Path | str,
    name: str,
    *,
    workspace: Workspace | Path | str | None = None,
    progress: Told | None = None,
    **options: Any,
) -> "Dataset":
    """Cluster a file's events into the dataset `name`, in this process; the options are those of `plan_cluster`.

    Raises what `plan_cluster` does, `NameTaken` where the name is in use for something else, and `JobEnded` where it
    does not end well, as when more events cannot be used than `tolerate` allows.
    """
    here = _opened(workspace)
    return Dataset(_do(here, plan_cluster(file, name, workspace=here, **options), progress), here)


def prepare(
    dataset: "Dataset | str",
    name: str,
    *,
    workspace: Workspace | Path | str | None = None,
    progress: Told | None = None,
    **options: Any,
) -> "Split":
    """Make the split `name` of a dataset, in this process; the options are those of `plan_prepare`.

    Boosted trees are fitted to it, which stand beside each run: some on the numbers of its prompts, others on all
    features of the dataset.

    Raises what `plan_prepare` does, `NameTaken` where the name is in use for something else, and `JobEnded` where it
    does not end well.
    """
    here = _where_stands(workspace, dataset)
    return Split(_do(here, plan_prepare(dataset, name, workspace=here, **options), progress), here)


def train(
    split: "Split | str",
    name: str,
    *,
    workspace: Workspace | Path | str | None = None,
    progress: Told | None = None,
    **options: Any,
) -> "Run":
    """Train and validate the run `name` on a split, in this process; the options are those of `plan_train`.

    It ends with the best checkpoint on the test subset. Raises what `plan_train` does, `NameTaken` where the name is
    in use for something else, `Diverged`, and `JobEnded` where it does not end well.
    """
    here = _where_stands(workspace, split)
    return Run(_do(here, plan_train(split, name, workspace=here, **options), progress), here)


def score(
    run: "Run | str",
    dataset: "Dataset | str",
    name: str | None = None,
    *,
    workspace: Workspace | Path | str | None = None,
    progress: Told | None = None,
    **options: Any,
) -> "Prediction":
    """Score a dataset with a run, in this process, with p-values; the options are those of `plan_score`.

    Raises what `plan_score` does, `NameTaken` where the name is in use for something else, and `JobEnded` where it
    does not end well.
    """
    here = _where_stands(workspace, run, dataset)
    return Prediction(_do(here, plan_score(run, dataset, name, workspace=here, **options), progress), here)


def mix(
    name: str,
    *,
    background: "Sequence[Dataset | str]",
    signal: "Dataset | str",
    signal_events: int,
    background_events: int | None = None,
    seed: int = 1,
    workspace: Workspace | Path | str | None = None,
) -> "Dataset":
    """Make the dataset `name` of background events with `signal_events` signal events among them.

    Background events of the datasets `background` are all taken, or `background_events` of them by chance. Labels
    stay. Raises `NotThere` without a dataset, `BadInput` where there are too few events or other jets, `NameTaken`.
    """
    from lhcq.jets.mix import mix_datasets

    here = _where_stands(workspace, signal, *background)
    mix_datasets(
        [here.dataset(_name_of(one)) for one in background],
        here.dataset(_name_of(signal)),
        here.dataset(name),
        n_signal=signal_events,
        n_background=background_events,
        seed=seed,
    )
    return Dataset(name, here)


def search(
    dataset: "Dataset | str",
    name: str | None = None,
    *,
    workspace: Workspace | Path | str | None = None,
    progress: Told | None = None,
    **options: Any,
) -> "Search":
    """Look for a resonance in a dataset without labels, in this process; the options are those of `plan_search`.

    Raises what `plan_search` does, `NameTaken` where the name is in use for something else, and `JobEnded` where it
    does not end well, as when a region has too few events to learn from.
    """
    here = _where_stands(workspace, dataset, options.get("beside"))
    return Search(_do(here, plan_search(dataset, name, workspace=here, **options), progress), here)


def scan(
    dataset: "Dataset | str",
    put_in: Sequence[int],
    name: str | None = None,
    *,
    workspace: Workspace | Path | str | None = None,
    progress: Told | None = None,
    **options: Any,
) -> "Scan":
    """Tell what a search would find of so many signal events, in this process; the options are those of `plan_scan`.

    Raises what `plan_scan` does, `NameTaken` where the name is in use for something else, and `JobEnded` where it
    does not end well.
    """
    here = _where_stands(workspace, dataset)
    return Scan(_do(here, plan_scan(dataset, put_in, name, workspace=here, **options), progress), here)


def metrics(labels: "ArrayLike", p_signal: "ArrayLike", *, threshold: float = 0.5) -> "Metrics":
    """Accuracy, AUC, significance improvement, calibration and more of any classifier, with their intervals.

    `labels` (n,) are 1 for signal and 0 for background, `p_signal` (n,) lie in [0, 1]; an event with at least
    `threshold` counts as signal. Raises `BadInput` for other values, and for no events.
    """
    from lhcq.evaluate.metrics import metrics_of

    return metrics_of(labels, p_signal, threshold=threshold)


def load(name: str, *, workspace: Workspace | Path | str | None = None) -> "Run":
    """The run of that name; raises `NotThere` without it."""
    from lhcq.records.jobs import load_job

    here = _opened(workspace)
    load_job(here, "train", name)
    return Run(name, here)


def dataset(name: str, *, workspace: Workspace | Path | str | None = None) -> "Dataset":
    """The dataset of that name, clustered or imported; raises `NotThere` without it."""
    from lhcq.records.events import find_dataset

    here = _opened(workspace)
    find_dataset(here.dataset(name))
    return Dataset(name, here)


def _do(here: Workspace, request: "Record", progress: Told | None) -> str:
    """Have a job done here, unless it is done already; gives its name."""
    refuse_other_tasks()
    from tasks.client import do_here, done_already

    if not done_already(here, request):
        outcome = do_here(here, request, progress or say_nothing)
        if outcome.state != "done":
            raise JobEnded(f"{request.title}: {outcome.message}")
    return request.name


# Done by workers


def submit(
    request: "Record",
    *,
    workspace: Workspace | Path | str | None = None,
    processes: int | None = None,
    priority: "Priority" = "normal",
    max_parallel: int | None = None,
) -> Job:
    """Have a planned job done by workers, in the workspace that it was planned in (`workspace` None).

    Tasks of jobs of a higher `priority` (high, normal, low) come first, those of one priority take turns. At most
    `max_parallel` tasks of this job are under way at a time (None: as many as there are workers).

    With a broker configured, or `lhcq up` running, it goes to the workers there, and goes on when this program ends.
    Otherwise it gets a broker and workers of its own, `processes` of them (None: one a core), until it has been
    waited for or closed.

    Raises `NameTaken` where the name is in use for something else, `BadInput` for a broker that would lose work and
    for another workspace than the job was planned in, `TransientError` for a broker that takes no messages.
    """
    refuse_other_tasks()
    from tasks.client import done_already, session, workers_for
    from tasks.client import submit as publish

    here = _opened(workspace or request.workspace)
    if request.workspace is not None and not here.is_same_as(request.workspace):
        raise BadInput(
            f"{request.title} was planned in {request.workspace.root}, by what stands there, and not for "
            f"{here.root}. Leave workspace out, or plan it there."
        )
    if done_already(here, request):
        return Job(request, here, None, ExitStack())
    with ExitStack() as opened:
        current = opened.enter_context(session(here, workers_for(request, processes)))
        following = publish(current, request.asking(priority=priority, max_parallel=max_parallel))
        return Job(following.job, here, following, opened.pop_all())


def _preset(presets: dict[str, Any], name: str) -> Any:
    if name not in presets:
        raise BadInput(f"{name!r} is no preset: choose {' or '.join(presets)}.")
    return presets[name]


def _name_of(result: Result | str) -> str:
    return result if isinstance(result, str) else result.name


def _where_stands(given: "Workspace | Path | str | None", *inputs: Result | str | None) -> Workspace:
    """The workspace `given`, or that of the first input that is a result.

    Raises `BadInput` where another stands elsewhere: by its name alone it would be whatever has that name here.
    """
    results = [one for one in inputs if isinstance(one, Result)]
    here = _opened(given or (results[0].workspace if results else None))
    for one in results:
        if not one.workspace.is_same_as(here):
            raise BadInput(
                f"{one.name} stands in {one.workspace.root}, not in {here.root}: a job has one workspace. Make it "
                "there too, or leave workspace out."
            )
    return here
