"""Which checkpoint a text means: a step, a tag, `best` or `latest`; and the tags, names that stay."""

from pathlib import Path

from lhcq.config import check_name
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.records.run_state import best_step, committed_steps
from lhcq.storage import exclusive, read_json, staged_file, to_record
from lhcq.workspace import RunPaths

BEST, LATEST = "best", "latest"


def resolve_step(run_dir: Path, text: str) -> int:
    """The step of the run's checkpoint that `text` names: a number, a tag, `best` (on validation) or `latest`.

    Raises `BadInput` for a text that can be no name, and `NotThere` when there is no such run, tag or checkpoint.
    """
    run = run_dir.name
    if not run_dir.is_dir():
        raise NotThere(f"run {run!r} does not exist in {run_dir.parent}. `lhcq status` lists what does.")
    committed = committed_steps(run_dir)
    if text == LATEST:
        step = committed[-1] if committed else None
    elif text == BEST:
        step = best_step(run_dir)
    elif text.isdecimal():
        step = int(text)
    else:
        check_name(text, what="tag")
        step = tags_of(run_dir).get(text)
    if step is None:
        known = ", ".join(tags_of(run_dir)) or "none"
        raise NotThere(f"run {run!r} has no {text!r} checkpoint yet (its tags: {known}).")
    if step not in committed:
        there = ", ".join(map(str, committed)) or "none"
        raise NotThere(f"run {run!r} has no checkpoint at step {step}; it has {there}.")
    return step


def tags_of(run_dir: Path) -> dict[str, int]:
    """The run's tags and the steps that they name, by tag."""
    return {
        path.stem: int(read_json(path)["step"]) for path in sorted(RunPaths(run_dir).tags.glob("[!.]*.json"))
    }


def tag_step(run_dir: Path, step: int, tag: str) -> None:
    """Name the committed checkpoint at `step`; the name stays, and so does the checkpoint.

    Naming it again is nothing new. Raises `NameTaken` when the tag names another step, `BadInput` when it could be
    taken for a step, and `NotThere` without the checkpoint.
    """
    check_name(tag, what="tag")
    if tag in (BEST, LATEST) or tag.isdecimal():
        raise BadInput(f"{tag!r} cannot be a tag: it means a checkpoint already. Use a name such as v0.1.")
    with exclusive(
        RunPaths(run_dir).retention_lock
    ):  # else the checkpoint could be removed as one without a name
        resolve_step(run_dir, str(step))
        path = RunPaths(run_dir).tag(tag)
        with staged_file(path) as temporary:
            temporary.write_text(to_record({"step": step}), encoding="utf-8")
        named = int(read_json(path)["step"])
    if named != step:
        raise NameTaken(f"tag {tag!r} of run {run_dir.name!r} names step {named} already. Choose another.")
