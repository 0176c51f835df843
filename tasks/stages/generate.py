"""Generating events: one task a chunk, a merge that mixes them into one file."""

from pathlib import Path

from lhcq.errors import NameTaken, RowsMissing
from lhcq.records.failures import Failure
from lhcq.records.jobs import MADE, Job, directory_of
from lhcq.records.specs import GenerateSpec
from lhcq.storage import read_json, sha256_of, write_record
from lhcq.workspace import Workspace
from tasks.app import app
from tasks.jobs.leases import Lease
from tasks.jobs.store import summary_of
from tasks.observe.tracing import note_span
from tasks.stages.fanout import chunk_work, merge_work, perform_chunk, perform_merge


def _make(_: Workspace, job: Job, index: int, path: Path, held: Lease) -> None:
    from lhcq.events.pythia import generate_part, plan_parts, write_part

    part = plan_parts(job.spec_of(GenerateSpec).config)[index]
    note_span(events=part.n_events)
    made = generate_part(part, on_event=held.check)
    held.check()
    write_part(path, *made)


def _merge(workspace: Workspace, job: Job, chunks: dict[int, Path], lost: dict[int, Failure]) -> str:
    from lhcq.events.pythia import assemble

    if lost:
        raise RowsMissing(summary_of(list(lost.values())))
    spec = job.spec_of(GenerateSpec)
    out = workspace.permitted(Path(spec.out))
    made = directory_of(workspace, job) / MADE
    if not out.exists():  # else the chunks may be gone
        assemble(
            spec.config,
            [chunks[index] for index in sorted(chunks)],
            out,
            on_made=lambda staged: write_record(made, {"sha256": sha256_of(staged)}),
        )
    if not made.exists() or read_json(made)["sha256"] != sha256_of(out):
        raise NameTaken(f"{out}: exists already, and is not what this command makes. Choose another file.")
    return f"{spec.config.background + spec.config.signal} events in {workspace.relative(out)}"


@app.task(name="lhcq.generate_part", work=staticmethod(chunk_work(_make)))
def generate_part(name: str, index: int) -> str:
    """Generate the events of one chunk with Pythia."""
    return perform_chunk("generate", name, index, _make)


@app.task(name="lhcq.generate_merge", work=staticmethod(merge_work(_merge)))
def generate_merge(name: str) -> str:
    """Mix all chunks into the output file."""
    return perform_merge("generate", name, _merge)
