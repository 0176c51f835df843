"""Asking for generated events."""

import re
from pathlib import Path

from lhcq.config import GenerateConfig
from lhcq.errors import BadInput
from lhcq.events.pythia import plan_parts
from lhcq.records.jobs import Job
from lhcq.records.specs import GenerateSpec
from lhcq.storage import check_room, sha256_of_json
from lhcq.workspace import Workspace

_BYTES_PER_EVENT = 13_000  # a compressed event of the output, and its share in a chunk


def generate_request(workspace: Workspace, out: Path, config: GenerateConfig) -> Job:
    """The job that generates events into the file `out`; its name is of the file and of what is asked for."""
    out = out.absolute()
    n_events = config.background + config.signal
    if n_events == 0:
        raise BadInput("nothing to generate: give --background or --signal above 0.")
    if not out.parent.is_dir():
        raise BadInput(f"{out.parent}: no such directory to write {out.name} into. Make it first.")
    workspace.permitted(out)
    for place in (workspace.root, out.parent):
        check_room(place, n_events * _BYTES_PER_EVENT)
    spec = GenerateSpec.resolved(out=str(out), config=config.model_dump())
    stem = re.sub(r"[^A-Za-z0-9]+", "-", out.stem).strip("-")[:40]
    name = f"{stem or 'events'}-{sha256_of_json(spec.recorded())[:8]}"
    return Job(kind=spec.kind, name=name, spec=spec, parts=len(plan_parts(config)))
