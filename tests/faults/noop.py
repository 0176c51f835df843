"""Jobs of many parts that do nothing, where the machinery alone is of interest."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def noop_bytes(index: int) -> bytes:
    """What part `index` leaves."""
    return f"{index}\n".encode()


def serial_noop(n_parts: int) -> bytes:
    """What the merge of all parts leaves."""
    return b"".join(noop_bytes(index) for index in range(n_parts))


def noop_part(workspace: Any, job: Any, index: int, path: Path, *_: Any) -> None:
    """In the place of clustering: the output is the index."""
    from lhcq.storage import staged_file

    wait()
    with staged_file(path, sync_name=False) as temporary:
        temporary.write_bytes(noop_bytes(index))


def noop_merge(workspace: Any, job: Any, parts: dict[int, Path], *_: Any) -> str:
    """In the place of the merge: all parts, in order, as the dataset; a second one finds the name taken."""
    from lhcq.manifests import write_manifest
    from lhcq.storage import staged_directory

    if not workspace.dataset(job.name).exists():
        with staged_directory(workspace.dataset(job.name)) as directory:
            content = b"".join(parts[index].read_bytes() for index in sorted(parts))
            (directory / "events.parquet").write_bytes(content)
            write_manifest(directory, rows=len(parts))
    return f"{len(parts)} parts"


def wait() -> None:
    """Take the time that a part is told to take, without a core."""
    time.sleep(float(os.environ.get("LHCQ_NOOP_SECONDS", "0")))


def next_adapter(adapter: bytes) -> bytes:
    """What a segment makes of the one before."""
    return hashlib.sha256(adapter).hexdigest().encode()


def serial_adapter(n_segments: int) -> bytes:
    """The adapter after this many segments."""
    adapter = b""
    for _ in range(n_segments):
        adapter = next_adapter(adapter)
    return adapter


def noop_segment(workspace: Any, job: Any, record: Callable[..., None]) -> list[int]:
    """In the place of training: the next checkpoint is the hash of the newest."""
    from lhcq.manifests import write_manifest
    from lhcq.records.run_state import committed_steps
    from lhcq.storage import staged_directory

    steps = committed_steps(workspace.run(job.name))
    newest = (workspace.checkpoint(job.name, steps[-1]) / "adapter").read_bytes() if steps else b""
    until = min(step for step in job.spec.checkpoint_steps if step not in steps)
    final = workspace.checkpoint(job.name, until)
    record("work", f"{job.name}:{until}", path=str(final))
    wait()
    with staged_directory(final) as directory:
        (directory / "adapter").write_bytes(next_adapter(newest))
        write_manifest(directory, of=job.identity, step=until)
    return [until]


def noop_validation(workspace: Any, job: Any, step: int, *_: Any) -> None:
    """In the place of a validation."""
    from lhcq.manifests import write_manifest
    from lhcq.storage import staged_directory

    with staged_directory(workspace.validation(job.name, step)) as directory:
        write_manifest(directory, of=job.identity, step=step)


def noop_end(workspace: Any, job: Any, *_: Any) -> None:
    """In the place of the test."""
    from lhcq.records.jobs import end_job

    end_job(workspace, job, "done", "trained")


def noop_file(path: Path, n_parts: int) -> Path:
    """A file of `n_parts` events, one to a storage chunk, of which no part reads a particle."""
    from lhcq.events.layout import write_event_file

    def blocks() -> Any:
        for start in range(0, n_parts, 1000):
            particles = np.zeros((min(1000, n_parts - start), 700, 3))
            particles[:, 0, 0] = 1.0
            yield particles, np.zeros(len(particles), np.int8)

    write_event_file(path, blocks(), n_parts, storage_rows=1)
    return path
