"""`lhcq train SPLIT --name RUN`."""

import contextlib
import functools
from typing import TYPE_CHECKING, Any, get_args

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from lhcq.cli.options import (
    choice_of,
    force_option,
    json_option,
    preset_choice,
    preset_option,
    told_by_option,
    traced,
    wait_option,
)
from lhcq.cli.parameters import NameOf, example
from lhcq.config import TRAIN_PRESETS, Act, AlarmKind, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lhcq.records.jobs import Job
    from lhcq.workspace import Workspace
    from tasks.client import Session

_ALARMS: tuple[str, ...] = get_args(AlarmKind)
_ACTS: tuple[str, ...] = get_args(Act)
_option = functools.partial(preset_option, presets=TRAIN_PRESETS)


def read_memory(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Bytes of a size such as `8GiB`, `7.5GB` or `6000MiB`, with or without the B; a bare number is none."""
    if value is None:
        return None
    try:
        float(value)
    except ValueError:
        with contextlib.suppress(ValidationError):
            return int(TypeAdapter(ByteSize).validate_python(f"{value.rstrip('bB')}B"))
    raise click.BadParameter(f"{value!r} is no size such as 8GiB or 7.5GB.", context, parameter)


def read_policy(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """The fields `on_...` of `ACT` (for every alarm that can be answered so) and `KIND=ACT`, in their order."""
    policy: dict[str, str] = {}
    for value in values:
        kind, given, act = value.rpartition("=")
        if act not in _ACTS or (given and kind not in _ALARMS):
            raise click.BadParameter(
                f"{value!r} is neither one of {', '.join(_ACTS)} nor ALARM=ACT with one of {', '.join(_ALARMS)}.",
                context,
                parameter,
            )
        kinds = [kind] if given else [one for one in _ALARMS if (one, act) != ("nan", "tell")]
        policy |= {f"on_{one}": act for one in kinds}
    return policy


@click.command(
    "train",
    epilog=example(
        "lhcq train balanced --name first", "lhcq train balanced --name quick --model smollm2 --epochs 0.1"
    ),
)
@click.argument(
    "split",
    type=NameOf("splits", instead={"dataset": "`lhcq prepare {name} --split SPLIT` makes one of it."}),
)
@click.option("--name", required=True, help="Name of the run.")
@click.option(
    "--model", help="A directory, a hub name, or smollm2. Default: smollm2, or Mistral-7B with a GPU."
)
@preset_choice(TRAIN_PRESETS)
@_option("--rank", type=int, help="LoRA rank r.")
@_option("--alpha", type=float, help="LoRA alpha.")
@_option("--dropout", type=float, help="LoRA dropout.")
@_option(
    "--learning-rate",
    type=float,
    none="1e-3, or 2e-4 from a billion parameters on",
    help="Peak rate.",
)
@_option("--schedule", type=choice_of(TrainConfig, "schedule"), help="What the rate does after its peak.")
@_option("--batch-size", type=int, help="Prompts in one forward pass.")
@_option("--accumulation", type=int, help="Forward passes in one optimizer step.")
@_option(
    "--max-memory",
    callback=read_memory,
    none="all that is there",
    help="GPU memory to stay below, such as 8GiB.",
)
@_option(
    "--compute",
    type=choice_of(TrainConfig, "compute"),
    help="What a GPU multiplies in; fp8: 8 bits, faster, on Hopper and newer.",
)
@_option("--epochs", type=float, help="How often each training prompt is read.")
@_option("--max-steps", type=int, none="as its epochs have", help="End after this many optimizer steps.")
@_option("--checkpoints", type=int, help="Checkpoints over the run.")
@_option(
    "--checkpoint-every",
    type=int,
    none="by --checkpoints",
    help="Optimizer steps between checkpoints, instead.",
)
@_option("--max-tokens", type=int, help="Refuse longer prompts.")
@_option(
    "--answer-weight",
    type=float,
    none="0.03, above 150 steps less",
    help="Of answering in words, in the loss. 0: the choice alone.",
)
@click.option(
    "--class-weighted/--no-class-weighted",
    default=None,
    show_default="class-weighted",
    help="Weigh both classes alike in the loss.",
)
@_option(
    "--sampling",
    type=choice_of(TrainConfig, "sampling"),
    help="balanced: both classes alike in each step.",
)
@_option("--select", type=choice_of(TrainConfig, "select"), help="What chooses the best checkpoint.")
@_option(
    "--patience",
    type=int,
    none="never",
    help="End training after so many checkpoints without a better one.",
)
@_option(
    "--keep", type=int, none="all", help="Keep so many of the newest checkpoints, the best and the tagged."
)
@click.option(
    "--on-alarm",
    "policy",
    multiple=True,
    callback=read_policy,
    metavar="[ALARM=]ACT",
    help="What follows an alarm: tell, pause, stop or rollback, such as collapse=pause. Repeatable. "
    "Default: rollback of nan and divergence, tell of the others.",
)
@click.option(
    "--track",
    type=click.Choice(["tensorboard", "mlflow", "wandb", "trackio"]),
    help="Tell this tracker too, after each checkpoint and validation. Default: none.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Of a CPU. The run keeps those that it began with, for the same bytes. Default: those of its first worker.",
)
@_option("--seed", type=int, help="Of the order of prompts, the first weights of the adapter, and dropout.")
@force_option
@wait_option
@json_option
@traced
def command(
    split: str,
    name: str,
    model: str | None,
    preset: str,
    policy: dict[str, str],
    track: str | None,
    threads: int | None,
    force: bool,
    wait: bool,
    as_json: bool,
    **config: Any,
) -> int:
    """Fine-tune a language model by QLoRA on the prompts of SPLIT; each checkpoint is validated by itself.

    Presets: default is rank 16 on all linear layers at 1e-3; diary is the reference study's (rank 12, alpha 48,
    dropout 0.15, rate 3e-5, accumulation 16, a checkpoint every 100 steps).

    Alarms are nan, divergence, collapse, unknown and overfitting. After the first two, training goes back to the best
    checkpoint with 0.3 of the learning rate, at most three times; the others are only told, unless --on-alarm says
    more. A run that a validation may pause, stop or send back waits for the validation of each checkpoint.
    """
    from lhcq.cli.models import chosen_model
    from lhcq.cli.session import find_workspace, say
    from lhcq.model.sources import default_model, obtain
    from lhcq.requests.train import split_to_train, train_request

    workspace = find_workspace()
    workspace.run(name)
    given = {key: value for key, value in config.items() if value is not None}
    with told_by_option(**dict.fromkeys((f"on_{kind}" for kind in _ALARMS), "--on-alarm")):
        resolved = TrainConfig.checked(**{**TRAIN_PRESETS[preset].model_dump(), **given, **policy})
    split_to_train(workspace, split, track)  # before a model is fetched for it
    model_name = chosen_model(model, workspace) or default_model()
    directory = obtain(model_name, workspace, say=say)
    request = train_request(
        workspace,
        split,
        name,
        resolved,
        model=model_name,
        model_dir=directory,
        preset=preset,
        track=track,
        threads=threads,
    )
    return follow_run(
        workspace,
        request.job,
        wait=wait,
        as_json=as_json,
        begin=lambda _: say_what_it_takes(workspace, request.job, directory, request.longest, threads),
        force=force,
    )


def follow_run(
    workspace: "Workspace",
    job: "Job",
    *,
    wait: bool,
    as_json: bool,
    begin: "Callable[[Session], None]" = lambda _: None,
    force: bool = False,
) -> int:
    """Publish what a run needs next, wait for its end, and print its table."""
    from lhcq.cli.runs import alarm_lines, run_answer
    from lhcq.cli.session import conclude, have_done, say
    from lhcq.records.threads import beyond_cores, threads_of
    from tasks.client import progress_of, workers_for

    def begin_telling(current: "Session") -> None:
        begin(current)
        kept = threads_of(workspace, job)
        if kept is not None and current.workers is not None and (word := beyond_cores(job, kept)):
            say(word)

    waited = have_done(
        workspace,
        job,
        workers_for(job),
        measure=lambda: progress_of(workspace, job),
        again=f"Run `lhcq resume {job.name}` to go on.",
        wait=wait,
        begin=begin_telling,
        force=force,
    )
    for line in alarm_lines(workspace, job.name) if waited.code != 0 else ():
        click.echo(f"lhcq: alarm: {line}", err=True)

    def told() -> tuple[dict[str, Any], str]:
        value, text = run_answer(workspace, job.name)
        return {**value, "seconds": waited.seconds}, text

    return conclude(waited, job, told, as_json=as_json, shown_by=f"watch {job.name}")


def say_what_it_takes(
    workspace: "Workspace", job: "Job", directory: "Path", longest: int, threads: int | None = None
) -> None:
    """Which model, how many steps; of this machine, memory and time: a worker elsewhere looks for itself.

    `longest` is the longest prompt, in tokens; `threads` are those that were asked for. Raises `BadInput` where this
    machine has not the memory.
    """
    from lhcq.cli.session import say
    from lhcq.environment import Settings
    from lhcq.model.preflight import check_memory, check_packages, device_here, estimate_needs
    from lhcq.model.sources import default_model
    from lhcq.records.specs import TrainSpec
    from lhcq.records.threads import threads_of
    from lhcq.requests.forecast import expected_time

    spec = job.spec_of(TrainSpec)
    config = spec.config
    default = " (the default here, --model takes another)" if spec.model == default_model() else ""
    say(
        f"{job.title}: {spec.model}{default}, {spec.total_steps:,} steps of {config.batch_size * config.accumulation}"
        f" of {spec.n_train:,} prompts, {len(spec.checkpoint_steps)} checkpoints"
    )
    kept = threads_of(workspace, job)
    if threads is not None and kept not in (None, threads):
        say(f"{job.title} keeps the {kept} threads that it was begun with, for the same bytes")
    if Settings.from_environment().broker_url is not None:
        return
    check_packages(directory)
    device = device_here()
    needs = estimate_needs(directory, config, longest=longest, bfloat16=device.bfloat16)
    if needs is not None:
        say(f"training {check_memory(needs, device, config, longest=longest)}")
    say(f"it will take {expected_time(directory, spec, workspace.split(spec.split), longest)}")
