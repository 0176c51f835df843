"""Generating events: one task a part, a merge that mixes them into one file."""

from pathlib import Path

from lhcq.config import GenerateConfig
from lhcq.errors import NameTaken, RowsMissing
from lhcq.storage import read_json, sha256_of, write_json
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.jobs.leases import Lease
from tasks.jobs.store import Failure, Job, summary_of
from tasks.observe.tracing import note_span
from tasks.stages.fanout import perform_merge, perform_part


@app.task(name="lhcq.generate_part")
def generate_part(name: str, index: int) -> str:
    """Generate the events of one part with Pythia."""
    return perform_part("generate", name, index, _make)


@app.task(name="lhcq.generate_merge")
def generate_merge(name: str) -> str:
    """Mix all parts into the output file."""
    return perform_merge("generate", name, _merge)


def _make(job: Job, index: int, path: Path, held: Lease) -> None:
    from lhcq.events.pythia import generate_part, plan_parts, write_part

    part = plan_parts(GenerateConfig.checked(**job.spec["config"]))[index]
    note_span(events=part.n_events)
    made = generate_part(part)
    held.check()
    write_part(path, *made)


def _merge(place: Workspace, job: Job, parts: dict[int, Path], lost: dict[int, Failure]) -> str:
    from lhcq.events.pythia import assemble

    if lost:
        raise RowsMissing(summary_of(list(lost.values())))
    out = place.permitted(Path(job.spec["out"]))
    config = GenerateConfig.checked(**job.spec["config"])
    made = place.job(job.kind, job.name) / "made.json"
    if not out.exists():  # else the parts may be gone
        assemble(
            config,
            [parts[index] for index in sorted(parts)],
            out,
            on_made=lambda staged: write_json(made, {"sha256": sha256_of(staged)}),
        )
    if not made.exists() or read_json(made)["sha256"] != sha256_of(out):
        raise NameTaken(f"{out}: exists already, and is not what this command makes. Choose another file.")
    return f"{config.background + config.signal} events in {out}"
