"""The workspace: every path of lhcq."""

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from lhcq.config import LONGEST_NAME, check_name
from lhcq.errors import BadInput, LhcqError
from lhcq.storage import explained_os_errors, staged_file

_IDENTITY = ".identity"


class Workspace:
    """All directories under one root; shared between machines when there are several."""

    def __init__(self, root: Path, data_roots: Sequence[Path] = ()) -> None:
        self.root = Path(root).absolute()
        self._data_roots = tuple(data_roots)

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    def dataset(self, name: str) -> Path:
        """Clustered events: `events.parquet` and its manifest."""
        return self.inside(self.root / "datasets" / check_name(name, what="dataset"))

    def split(self, name: str) -> Path:
        """Prompts: one parquet file a part, and the manifest."""
        return self.inside(self.root / "splits" / check_name(name, what="split"))

    def baseline(self, split: str) -> Path:
        """The boosted trees fitted on a split: scores, figures, manifest."""
        return self.inside(self.root / "baselines" / check_name(split, what="split"))

    def run(self, name: str) -> Path:
        """A training: its job, `events.jsonl`, checkpoints, validations, report."""
        return self.inside(self.root / "runs" / check_name(name, what="run"))

    def checkpoint(self, run: str, step: int) -> Path:
        """The adapter and optimizer after `step` optimizer steps."""
        return self.inside(self.run(run) / "checkpoints" / f"{step:08d}")

    def validation(self, run: str, step: int) -> Path:
        """Scores and figures of a checkpoint on the validation part."""
        return self.inside(self.run(run) / "validations" / f"{step:08d}")

    def prediction(self, name: str) -> Path:
        """What a checkpoint says of a dataset: scores, summary, page, manifest."""
        return self.inside(self.root / "predictions" / check_name(name, what="prediction"))

    def model(self, name: str) -> Path:
        """A base model that lhcq obtained, `org/name` as `org--name`."""
        return self.root / "models" / check_name(name.replace("/", "--"), what="model")

    @property
    def digests(self) -> Path:
        """What the weight files of base models hold, so that each is read once; may be removed at any time."""
        return self.root / "models" / ".digests"

    def job(self, kind: str, name: str) -> Path:
        """The record of one job: `job.json`, parts, failures, `outcome.json`."""
        if kind == "train":
            return self.run(name)
        record = check_name(f"{kind}-{name}", what="job", longest=2 * LONGEST_NAME)
        return self.inside(self.root / "jobs" / record)

    @property
    def jobs_lock(self) -> Path:
        """Held by whoever records, joins or discards a job."""
        return self.root / "jobs.lock"

    @property
    def logs(self) -> Path:
        """What local workers and the embedded broker print."""
        return self.root / "logs"

    @property
    def broker(self) -> Path:
        """The embedded broker's data directory."""
        return self.root / "broker"

    def inside(self, path: Path) -> Path:
        """Give back `path`, which lies below the root, unless a symbolic link on the way leads out of the workspace.

        Else whoever may write to a shared workspace could have a worker write, or remove, elsewhere under its own
        user. Raises `BadInput`; a link into one of the data roots is allowed.
        """
        step = self.root
        for name in path.relative_to(self.root).parts:
            step = step / name
            if step.is_symlink() and not self._holds(step):
                raise BadInput(
                    f"{step}: a link that leads out of the workspace. Remove it, or add what it names to "
                    "LHCQ_DATA_ROOTS."
                )
        return path

    @property
    def confined(self) -> bool:
        """Whether data roots say where files outside of the workspace may lie."""
        return bool(self._data_roots)

    def permitted(self, path: Path) -> Path:
        """Where `path`, from a job's record, is: with data roots, only below the workspace or one of them.

        Links are followed first. Raises `BadInput` for anything else.
        """
        if not self._data_roots:
            return path
        if not self._holds(path):
            raise BadInput(
                f"{path}: outside of the workspace and of LHCQ_DATA_ROOTS "
                f"({':'.join(map(str, self._data_roots))}). Move it there, or add its directory."
            )
        return Path(os.path.realpath(path))

    def relative(self, path: Path) -> str:
        """`path` as the workspace's other machines find it: relative to the root when it is inside."""
        self.permitted(path)
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def _holds(self, path: Path) -> bool:
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(os.path.realpath(root)) for root in (self.root, *self._data_roots))

    def identity(self) -> str | None:
        """What tells this workspace from others, under whatever path a host has it; None where it cannot be kept.

        Made at the first question; a copy of a workspace has that of the original.
        """
        path = self.root / _IDENTITY
        with contextlib.suppress(OSError, LhcqError):
            if not path.exists():
                with staged_file(path) as temporary:
                    temporary.write_text(f"{secrets.token_hex(16)}\n", "utf-8")
            return path.read_text("utf-8").strip() or None
        return None

    def create(self) -> None:
        """Make the root, or say why it cannot be made."""
        with explained_os_errors(self.root):
            if self.root.exists() and not self.root.is_dir():
                raise BadInput(
                    f"{self.root}: the workspace has to be a directory. Set LHCQ_WORKSPACE to one."
                )
            self.root.mkdir(parents=True, exist_ok=True)
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise BadInput(
                f"{self.root}: the workspace cannot be written to. Set LHCQ_WORKSPACE to one that can."
            )
