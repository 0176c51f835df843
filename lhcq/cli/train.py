"""`lhcq train SPLIT --name RUN`."""

import contextlib
from typing import TYPE_CHECKING, Any, get_args

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from lhcq.cli.options import answer, choice_of, force_option, json_option, traced, wait_option
from lhcq.config import TRAIN_PRESETS, Act, AlarmKind, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lhcq.records.jobs import Job
    from lhcq.requests.train import TrainRequest
    from lhcq.workspace import Workspace
    from tasks.client import Session

_ALARMS: tuple[str, ...] = get_args(AlarmKind)
_ACTS: tuple[str, ...] = get_args(Act)


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


@click.command("train")
@click.argument("split")
@click.option("--name", required=True, help="Name of the run.")
@click.option(
    "--model", help="A directory, a hub name, or smollm2. Default: smollm2, or Mistral-7B with a GPU."
)
@click.option("--preset", type=click.Choice(list(TRAIN_PRESETS)), default="default", show_default=True)
@click.option("--rank", type=int, help="LoRA rank r.")
@click.option("--alpha", type=float, help="LoRA alpha.")
@click.option("--dropout", type=float, help="LoRA dropout.")
@click.option("--learning-rate", type=float, help="Peak rate. Default: by the model's size.")
@click.option("--schedule", type=choice_of(TrainConfig, "schedule"))
@click.option("--batch-size", type=int, help="Prompts in one forward pass.")
@click.option("--accumulation", type=int, help="Forward passes in one optimizer step.")
@click.option("--max-memory", callback=read_memory, help="GPU memory to stay below, such as 8GiB.")
@click.option(
    "--compute",
    type=choice_of(TrainConfig, "compute"),
    help="What a GPU multiplies in; fp8: 8 bits, faster, on Hopper and newer.",
)
@click.option("--epochs", type=float)
@click.option("--max-steps", type=int, help="End after this many optimizer steps.")
@click.option("--checkpoints", type=int, help="Checkpoints over the run.")
@click.option("--checkpoint-every", type=int, help="Optimizer steps between checkpoints, instead.")
@click.option("--max-tokens", type=int, help="Refuse longer prompts.")
@click.option(
    "--answer-weight",
    type=float,
    help="Of answering in words, in the loss; 0: the choice alone. Default: 0.03, above 150 steps less.",
)
@click.option(
    "--class-weighted/--no-class-weighted", default=None, help="Weigh both classes alike in the loss."
)
@click.option(
    "--sampling",
    type=choice_of(TrainConfig, "sampling"),
    help="balanced: both classes alike in each step.",
)
@click.option("--select", type=choice_of(TrainConfig, "select"), help="What chooses the best checkpoint.")
@click.option("--patience", type=int, help="End training after so many checkpoints without a better one.")
@click.option("--keep", type=int, help="Keep so many of the newest checkpoints, the best and the tagged.")
@click.option(
    "--on-alarm",
    "policy",
    multiple=True,
    callback=read_policy,
    metavar="[ALARM=]ACT",
    help="What follows an alarm: tell, pause, stop or rollback, such as collapse=pause. Repeatable.",
)
@click.option(
    "--track",
    type=click.Choice(["tensorboard", "mlflow", "wandb", "trackio"]),
    help="Tell this tracker too, after each checkpoint and validation.",
)
@click.option("--seed", type=int)
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
    from lhcq.cli.session import open_workspace, say
    from lhcq.model.sources import default_model, obtain
    from lhcq.requests.train import split_to_train, train_request

    workspace = open_workspace()
    workspace.run(name)
    given = {key: value for key, value in config.items() if value is not None}
    resolved = TrainConfig.checked(**{**TRAIN_PRESETS[preset].model_dump(), **given, **policy})
    split_to_train(workspace, split, track)  # before a model is fetched for it
    model_name = model or default_model()
    directory = obtain(model_name, workspace, say=say)
    request = train_request(
        workspace, split, name, resolved, model=model_name, model_dir=directory, preset=preset, track=track
    )
    return follow_run(
        workspace,
        request.job,
        wait=wait,
        as_json=as_json,
        begin=lambda _: _say_what_it_needs(directory, request),
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
    from lhcq.cli.session import have_done
    from tasks.client import progress_of, workers_for

    waited = have_done(
        workspace,
        job,
        workers_for(job),
        measure=lambda: progress_of(workspace, job),
        again=f"Run `lhcq resume {job.name}` to go on.",
        wait=wait,
        begin=begin,
        force=force,
    )
    for line in alarm_lines(workspace, job.name) if waited.code != 0 else ():
        click.echo(f"lhcq: alarm: {line}", err=True)
    if not waited.finished:
        answer(as_json, {"job": job.title}, f"{job.title} is queued. `lhcq watch {job.name}` shows it.")
    elif waited.code == 0:
        value, text = run_answer(workspace, job.name)
        answer(as_json, {**value, "seconds": waited.seconds}, text)
    return waited.code


def _say_what_it_needs(directory: "Path", request: "TrainRequest") -> None:
    """The memory of the machine that this is; a worker elsewhere looks for itself."""
    from lhcq.config import Settings
    from lhcq.model.preflight import check_memory, check_packages, device_here, estimate_needs

    if Settings.from_environment().broker_url is not None:
        return
    check_packages(directory)
    config, longest = request.config, request.longest
    device = device_here()
    needs = estimate_needs(directory, config, longest=longest, bfloat16=device.bfloat16)
    if needs is not None:
        click.echo(f"lhcq: training {check_memory(needs, device, config, longest=longest)}", err=True)
