"""`lhcq train SPLIT --name RUN`."""

import re
import time
from typing import TYPE_CHECKING, Any

import click

from lhcq.cli.options import answer, json_option, traced, wait_option

if TYPE_CHECKING:
    from lhcq.config import TrainConfig
    from lhcq.workspace import Workspace
    from tasks.jobs.store import Job

_BYTES_PER_CHECKPOINT = 60_000_000
_ALARMS = ("nan", "divergence", "collapse", "unknown", "overfitting")
_ACTS = ("tell", "pause", "stop", "rollback")


def read_memory(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Bytes of a size such as `8GiB`, `7.5GB` or `6000MiB`."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT])(i?)B?", value.strip(), re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"{value!r} is no size such as 8GiB or 7.5GB.", context, parameter)
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** (" KMGT".index(prefix.upper())))


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
@click.option("--preset", type=click.Choice(["default", "diary"]), default="default", show_default=True)
@click.option("--rank", type=int, help="LoRA rank r.")
@click.option("--alpha", type=float, help="LoRA alpha.")
@click.option("--dropout", type=float, help="LoRA dropout.")
@click.option("--learning-rate", type=float, help="Peak rate. Default: by the model's size.")
@click.option("--schedule", type=click.Choice(["cosine", "constant"]))
@click.option("--batch-size", type=int, help="Prompts in one forward pass.")
@click.option("--accumulation", type=int, help="Forward passes in one optimizer step.")
@click.option("--max-memory", callback=read_memory, help="GPU memory to stay below, such as 8GiB.")
@click.option(
    "--compute",
    type=click.Choice(["auto", "bf16", "fp8"]),
    help="What a GPU multiplies in; fp8: 8 bits, faster, on Hopper and newer.",
)
@click.option("--epochs", type=float)
@click.option("--max-steps", type=int, help="End after this many optimizer steps.")
@click.option("--checkpoints", type=int, help="Checkpoints over the run.")
@click.option("--checkpoint-every", type=int, help="Optimizer steps between checkpoints, instead.")
@click.option("--max-tokens", type=int, help="Refuse longer prompts.")
@click.option(
    "--class-weighted/--no-class-weighted", default=None, help="Weigh both classes alike in the loss."
)
@click.option(
    "--sampling",
    type=click.Choice(["natural", "balanced"]),
    help="balanced: both classes alike in each step.",
)
@click.option("--select", type=click.Choice(["auc", "nll"]), help="What chooses the best checkpoint.")
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
    from lhcq.cli.session import check_room, open_workspace, relative_to_workspace
    from lhcq.commits import digests_of, read_verified
    from lhcq.config import TRAIN_PRESETS, TrainConfig, training_prompts
    from lhcq.errors import BadInput
    from lhcq.model.identity import identify
    from lhcq.model.plan import plan_run, recommended_learning_rate
    from lhcq.model.sources import default_model, obtain
    from lhcq.model.tracking import require_tracker
    from lhcq.storage import sha256_of_json
    from tasks.jobs.store import Job, refuse_taken_name

    workspace = open_workspace()
    workspace.run(name)
    if track is not None:
        require_tracker(track)
    given = {key: value for key, value in config.items() if value is not None}
    resolved = TrainConfig.checked(**{**TRAIN_PRESETS[preset].model_dump(), **given, **policy})
    manifest = read_verified(
        workspace.split(split), what=f"split {split!r}", remedy="Make it with `lhcq prepare`."
    )
    model_name = model or default_model()
    directory = obtain(model_name, workspace, say=lambda line: click.echo(f"lhcq: {line}", err=True))
    if resolved.learning_rate is None:
        resolved = resolved.model_copy(update={"learning_rate": recommended_learning_rate(directory)})
    n_train = training_prompts(manifest)
    if n_train == 0:
        raise BadInput(f"split {split!r} has no training prompts. Make another with `lhcq prepare`.")
    longest = _longest_prompt(workspace, split, directory, resolved)
    plan = plan_run(n_train, resolved)
    # Beside those that are kept stand the best, and the two that wait for their validation.
    standing = min(len(plan.checkpoint_steps), (resolved.keep or len(plan.checkpoint_steps)) + 3)
    check_room(workspace.root, standing * _BYTES_PER_CHECKPOINT)
    spec = {
        "split": split,
        "split_sha256": digests_of(manifest),
        "model": model_name,
        "model_dir": relative_to_workspace(directory, workspace),
        "base": identify(directory, workspace.digests).model_dump(),
        "preset": preset,
        "config": resolved.model_dump(),
        "config_sha256": sha256_of_json(resolved.model_dump()),
        "n_train": n_train,
        "total_steps": plan.total_steps,
        "checkpoint_steps": list(plan.checkpoint_steps),
    }
    terms = {"track": track} if track else {}
    job = Job(kind="train", name=name, created=time.time(), spec=spec, terms=terms)
    refuse_taken_name(workspace, job)
    _say_what_it_needs(directory, resolved, longest)
    return follow_run(workspace, job, wait=wait, as_json=as_json)


def follow_run(workspace: "Workspace", job: "Job", *, wait: bool, as_json: bool) -> int:
    """Publish what a run needs next, wait for its end, and print its table."""
    from lhcq.cli.runs import alarm_lines, last_step, run_answer, validations_note
    from lhcq.cli.session import run_job, session
    from tasks.workers.local import LocalWorker

    def count() -> tuple[int, str]:
        step, note = last_step(workspace, job.name)
        return step, f"{note}{validations_note(workspace, job.name)}"

    with session(workspace, [LocalWorker(kind="gpu")], detach=not wait) as current:
        waited = run_job(
            current,
            job,
            total=job.spec["total_steps"],
            unit="steps",
            count=count,
            again=f"Run `lhcq resume {job.name}` to go on.",
            wait=wait,
        )
    for line in alarm_lines(workspace, job.name) if waited.code != 0 else ():
        click.echo(f"lhcq: alarm: {line}", err=True)
    if not waited.finished:
        answer(as_json, {"job": job.title}, f"{job.title} is queued. `lhcq watch {job.name}` shows it.")
    elif waited.code == 0:
        value, text = run_answer(workspace, job.name)
        answer(as_json, {**value, "seconds": waited.seconds}, text)
    return waited.code


def _longest_prompt(workspace: "Workspace", split: str, directory: Any, config: "TrainConfig") -> int:
    """Tokens of the longest prompt; raises `BadInput` when it is above the limit."""
    from lhcq.model.tokens import encode_prompts
    from lhcq.prompts.tokens import audit
    from lhcq.records.subsets import SUBSETS, read_subset

    encode = encode_prompts(directory)
    longest = 0
    for subset in SUBSETS:
        table = read_subset(workspace.split(split), subset, ["prompt"])
        longest = max(longest, audit(table["prompt"].to_pylist(), encode, max_tokens=config.max_tokens).max)
    return longest


def _say_what_it_needs(directory: Any, config: "TrainConfig", longest: int) -> None:
    """The memory of the machine that this is; a worker elsewhere looks for itself."""
    from lhcq.config import Settings
    from lhcq.model.preflight import check_memory, check_packages, device_here, estimate_needs

    if Settings.from_environment().broker_url is not None:
        return
    check_packages(directory)
    device = device_here()
    needs = estimate_needs(directory, config, longest=longest, bfloat16=device.bfloat16)
    if needs is not None:
        click.echo(f"lhcq: training {check_memory(needs, device, config, longest=longest)}", err=True)
