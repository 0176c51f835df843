"""Records of the workspace: what `lhcq status`, `why` and the reconciler read."""

import functools
import json
import tempfile
from pathlib import Path
from random import Random

from lhcq.manifests import write_manifest
from lhcq.model.checkpoint import recorded_rows, verified_step
from lhcq.records.failures import Failure, Holder, failures_of
from lhcq.records.job_control import wish_of
from lhcq.records.jobs import Outcome, find_job, list_jobs, load_job, outcome_of
from lhcq.records.journal import newest_step
from lhcq.records.run_state import committed_steps, read_course
from lhcq.storage import write_json
from lhcq.workspace import Workspace
from tasks.jobs.planner import pending_units
from tasks.jobs.progress import progress_of
from tasks.jobs.units import unit_of_key
from tests.fuzz.spoilt import Files, lay_out, refused, spoil_one
from tests.specs import job_of


@functools.cache
def workspace_seed() -> Files:
    """A workspace with a job of each kind, at various stages."""
    with tempfile.TemporaryDirectory() as root:
        place = Workspace(Path(root))
        jobs = [
            job_of(n_events=40, storage_rows=2, features="jets", parts=4),
            job_of("prepare", created=2.0, parts=0),
            job_of("train", created=3.0, parts=0, checkpoint_steps=[10, 20], total_steps=20),
        ]
        for job in jobs:
            write_json(place.job(job.kind, job.name) / "job.json", job.model_dump())
        holder = Holder(host="host", pid=1, since=1.0, log=None)
        failure = Failure(
            unit="lhcq.cluster_part:made:2",
            message="m",
            permanent=False,
            attempts=5,
            by=holder,
            traceback="t",
        )
        write_json(place.job("cluster", "made") / "failed" / "one.json", failure.model_dump())
        outcome = Outcome(state="done", message="m", finished=4.0)
        write_json(place.job("prepare", "made") / "outcome.json", outcome.model_dump())
        run = place.run("made")
        write_json(run / "wish.json", {"wish": "run"})
        step = {"event": "step", "step": 10, "loss": 0.5, "samples_per_second": 3.0}
        (run / "events.jsonl").write_text(json.dumps(step) + "\n")
        checkpoint = place.checkpoint("made", 10)
        write_json(checkpoint / "state.json", {"step": 10, "pass": {"rows": 8, "tokens": 100}})
        write_manifest(checkpoint, step=10, config_hash="0")
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(Path(root).rglob("*"))
            if path.is_file()
        }


def make_workspace(random: Random) -> tuple[str, bytes]:
    return spoil_one(workspace_seed(), random)


def attack_workspace(data: tuple[str, bytes], root: Path) -> None:
    """All that `lhcq status`, `why` and the reconciler read."""
    lay_out(workspace_seed(), data, root / "workspace")
    place = Workspace(root / "workspace")
    for job in list_jobs(place):
        with refused():
            pending_units(place, job)
        with refused():
            progress_of(place, job)
    for kind in ("cluster", "prepare", "train"):
        with refused():
            found = find_job(place, kind, "made")
            if found is not None:
                outcome_of(place, found)
                [unit_of_key(failure.unit) for failure in failures_of(place, found)]
    run = place.run("made")
    for read in (
        lambda: wish_of(place, load_job(place, "train", "made")),
        lambda: newest_step(run),
        lambda: verified_step(place.checkpoint("made", committed_steps(run)[-1])),
        lambda: recorded_rows(place.checkpoint("made", 10)),
    ):
        with refused():
            read()
    read_course(run, 10)
