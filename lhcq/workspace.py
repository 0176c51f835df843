"""The workspace: every path of lhcq, those inside a run included, and so above 400 lines: none is told elsewhere."""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lhcq.config import LONGEST_NAME, check_name
from lhcq.environment import Settings, whole_path
from lhcq.errors import BadInput, LhcqError
from lhcq.storage import FORMAT, REMOVED, explained_os_errors, refuse_newer, staged_file
from lhcq.version import version

_IDENTITY = ".identity"
_FORMAT_FILE = ".format"
_STEP_DIGITS = 8
_SEEN_SECONDS = 1.0
"""How long a path that was found to lie inside the workspace is believed to."""
_MOST_SEEN = 10_000


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint, a validation, a judgement, an alarm or an answer."""
    return int(path.name[:_STEP_DIGITS])


def round_of(path: Path) -> int:
    """The round in the name of an alarm or an answer, which follows its step."""
    return int(path.stem.split("-")[1])


def _step_name(step: int) -> str:
    return f"{step:0{_STEP_DIGITS}d}"


@dataclass(frozen=True)
class RunPaths:
    """Every path inside the directory of a run, but for those of its job."""

    directory: Path

    @property
    def journal(self) -> Path:
        """What happened, a JSON line each."""
        return self.directory / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """A directory a checkpoint, by step."""
        return self.directory / "checkpoints"

    @property
    def validations(self) -> Path:
        """A directory a validated checkpoint, by step."""
        return self.directory / "validations"

    @property
    def judgements(self) -> Path:
        """A file a judged validation, by step."""
        return self.directory / "judgements"

    @property
    def alarms(self) -> Path:
        """A file an alarm, by the place where it holds and its kind."""
        return self.directory / "alarms"

    @property
    def answers(self) -> Path:
        """A file a place where alarms were answered."""
        return self.directory / "answers"

    @property
    def tags(self) -> Path:
        """A file a tag."""
        return self.directory / "tags"

    @property
    def test(self) -> Path:
        """The chosen checkpoint on the test subset."""
        return self.directory / "test"

    @property
    def calibration(self) -> Path:
        """The chosen checkpoint on the calibration subset."""
        return self.directory / "calibration"

    @property
    def calibrated(self) -> Path:
        """The test subset under what was fitted to the calibration subset."""
        return self.directory / "calibrated.json"

    @property
    def tracked(self) -> Path:
        """As what MLflow knows the run."""
        return self.directory / "mlflow.json"

    @property
    def page(self) -> Path:
        """The report."""
        return self.directory / "report.html"

    @property
    def recipe(self) -> Path:
        """What makes the run again (`lhcq run`)."""
        return self.directory / "recipe.toml"

    @property
    def retention_lock(self) -> Path:
        """The lock that whoever names or removes a checkpoint holds."""
        return self.directory / ".retention.lock"

    def checkpoint(self, step: int) -> Path:
        """The adapter and optimizer after `step` optimizer steps."""
        return self.checkpoints / _step_name(step)

    def removed_checkpoint(self, step: int) -> Path:
        """Where a checkpoint stands while it is removed: a name that no reader takes for one."""
        return self.checkpoints / f".{_step_name(step)}{REMOVED}"

    def removed_checkpoints(self) -> list[Path]:
        """What is being removed, or was when somebody died."""
        return list(self.checkpoints.glob(f".*{REMOVED}"))

    def validation(self, step: int) -> Path:
        """Scores and metrics of a checkpoint on the validation subset."""
        return self.validations / _step_name(step)

    def judgement(self, step: int) -> Path:
        """What the validation of a checkpoint means among those before it."""
        return self.judgements / f"{_step_name(step)}.json"

    def alarm(self, step: int, at_round: int, kind: str) -> Path:
        """An alarm where the newest checkpoint is `step`, after as many answers there as `at_round`."""
        return self.alarms / f"{_step_name(step)}-{at_round:02d}-{kind}.json"

    def answer(self, step: int, at_round: int) -> Path:
        """What followed the alarms there."""
        return self.answers / f"{_step_name(step)}-{at_round:02d}.json"

    def tag(self, tag: str) -> Path:
        """The step that a tag names."""
        return self.tags / f"{tag}.json"


class Workspace:
    """All directories under one root; shared between machines when there are several."""

    def __init__(self, root: Path, data_roots: Sequence[Path] = ()) -> None:
        self.root = Path(root).absolute()
        self._data_roots = tuple(data_roots)
        self._jobs: dict[tuple[str, str], Path] = {}
        self._inside: dict[Path, float] = {}

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"

    @classmethod
    def of_environment(cls, root: Path | None = None) -> Self:
        """The workspace that the environment names, or the one at `root`, with the data roots that it names."""
        settings = Settings.from_environment()
        return cls(whole_path(root) if root else settings.workspace, settings.data_roots)

    def dataset(self, name: str) -> Path:
        """Clustered events: `events.parquet` and its manifest."""
        return self.inside(self.root / "datasets" / check_name(name, what="dataset"))

    def split(self, name: str) -> Path:
        """Prompts: one parquet file a subset, and the manifest."""
        return self.inside(self.root / "splits" / check_name(name, what="split"))

    def baseline(self, split: str) -> Path:
        """The boosted trees fitted on a split: scores, metrics, manifest."""
        return self.inside(self.root / "baselines" / check_name(split, what="split"))

    def run(self, name: str) -> Path:
        """A training: its job, `events.jsonl`, checkpoints, validations, report."""
        return self.inside(self.root / "runs" / check_name(name, what="run"))

    def checkpoint(self, run: str, step: int) -> Path:
        """The adapter and optimizer after `step` optimizer steps."""
        return self.inside(RunPaths(self.run(run)).checkpoint(step))

    def validation(self, run: str, step: int) -> Path:
        """Scores and metrics of a checkpoint on the validation subset."""
        return self.inside(RunPaths(self.run(run)).validation(step))

    def prediction(self, name: str) -> Path:
        """What a checkpoint says of a dataset: scores, summary, page, manifest."""
        return self.inside(self.root / "predictions" / check_name(name, what="prediction"))

    @property
    def predictions(self) -> list[Path]:
        """The predictions that stand, in order of name."""
        return sorted(self.root.glob("predictions/[!.]*"))

    def search(self, name: str) -> Path:
        """What a search for a resonance found: its numbers, scores, page, manifest."""
        return self.inside(self.root / "searches" / check_name(name, what="search"))

    def scan(self, name: str) -> Path:
        """What a search would find of so many signal events: numbers, page, manifest."""
        return self.inside(self.root / "scans" / check_name(name, what="scan"))

    def model(self, name: str) -> Path:
        """A base model that lhcq obtained, `org/name` as `org--name`."""
        return self.root / "models" / check_name(name.replace("/", "--"), what="model")

    def export(self, dataset: str) -> Path:
        """Where a dataset is exported to, unless another place is named."""
        return self.root / "exports" / check_name(dataset, what="dataset")

    def plots(self, dataset: str) -> Path:
        """Where a dataset is drawn, unless another place is named."""
        return self.root / "plots" / check_name(dataset, what="dataset")

    def plots_page(self, dataset: str) -> Path:
        """The page about a dataset that is drawn there."""
        return self.plots(dataset) / f"{dataset}.html"

    @property
    def events(self) -> Path:
        """Where recipes have files of events loaded and generated."""
        return self.root / "events"

    @property
    def digests(self) -> Path:
        """What the weight files of base models hold, so that each is read once; may be removed at any time."""
        return self.root / "models" / ".digests"

    def job(self, kind: str, name: str) -> Path:
        """The record of one job: `job.json`, chunks, failures, `outcome.json`."""
        if kind == "train":
            return self.run(name)
        path = self._jobs.get((kind, name))
        if path is None:
            record = check_name(f"{kind}-{name}", what="job", longest=2 * LONGEST_NAME)
            path = self._jobs[kind, name] = self.jobs / record
        return self.inside(path)

    def wish(self, kind: str, name: str) -> Path:
        """What the user wishes of a job."""
        return self.job(kind, name) / "wish.json"

    def batch_script(self, name: str) -> Path:
        """What was handed to a batch system to start workers."""
        return self.root / "batch" / f"{name}.sh"

    def probe(self, token: str) -> Path:
        """Where `lhcq doctor` and a worker find out whether they see the same workspace."""
        return self.meetings / check_name(token, what="token")

    @property
    def meetings(self) -> Path:
        """The directory of all such places."""
        return self.root / "doctor"

    def names(self, kind: str) -> list[str]:
        """What stands in the directory `kind`, such as datasets; `jobs`: what a job of any kind is called."""
        if kind == "jobs":
            named = {path.name.partition("-")[2] for path in self.root.glob("jobs/[!.]*")}
            return sorted(named | set(self.names("runs")))
        return sorted(path.name for path in self.root.glob(f"{kind}/[!.]*") if path.is_dir())

    @property
    def models(self) -> list[Path]:
        """Base models that lhcq obtained, whole or not."""
        return sorted(path.parent for path in self.root.glob("models/*/config.json"))

    @property
    def flower(self) -> Path:
        """What Flower remembers."""
        return self.root / "flower"

    @property
    def flower_login(self) -> Path:
        """The user and the password of Flower's page."""
        return self.root / "flower-login"

    @property
    def jobs(self) -> Path:
        """The records of all jobs but trainings', and what is set aside of them to be removed."""
        return self.root / "jobs"

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
        now = time.monotonic()
        if now < self._inside.get(path, 0.0):
            return path  # a unit of work asks a dozen times
        step = self.root
        for name in path.relative_to(self.root).parts:
            step = step / name
            if step.is_symlink() and not self._holds(step):
                raise BadInput(
                    f"{step}: a link that leads out of the workspace. Move it elsewhere, or add what it names to "
                    "LHCQ_DATA_ROOTS."
                )
        if len(self._inside) > _MOST_SEEN:
            self._inside.clear()
        self._inside[path] = now + _SEEN_SECONDS
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

    def is_same_as(self, other: "Workspace") -> bool:
        """Whether both are one directory, by whatever links they were named."""
        return os.path.realpath(self.root) == os.path.realpath(other.root)

    def identity(self) -> str | None:
        """What tells this workspace from others, under whatever path a host has it; None where it cannot be kept.

        Made at the first question; a copy of a workspace has that of the original (`is_copy_of`).
        """
        path = self.root / _IDENTITY
        if not self.root.is_dir():
            return None  # a question does not make a workspace
        with contextlib.suppress(OSError, LhcqError):
            if not path.exists():
                with staged_file(path) as temporary:
                    temporary.write_text(f"{secrets.token_hex(16)}\n", "utf-8")
            return path.read_text("utf-8").strip() or None
        return None

    def is_copy_of(self, root: Path) -> bool:
        """Whether another directory stands at `root` with this one's identity, as after `cp -r`.

        Told by inodes: one directory may be mounted at two places of a host, and then on two devices.
        """
        with contextlib.suppress(OSError):
            alike = (root / _IDENTITY).read_bytes() == (self.root / _IDENTITY).read_bytes()
            return alike and root.stat().st_ino != self.root.stat().st_ino
        return False

    def require_readable(self) -> None:
        """Raise `BadInput` for a root that is no directory, or that may not be looked into; one that is not there is
        an empty workspace."""
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise BadInput(f"{self.root}: the workspace has to be a directory. Set LHCQ_WORKSPACE to one.")
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise BadInput(f"{self.root}: the workspace cannot be read. Set LHCQ_WORKSPACE to one that can.")
        self.require_known_format()

    def require_known_format(self) -> bool:
        """Whether it says by which format it is written; raises `NewerFormat` where that is a newer lhcq's."""
        try:
            text = (self.root / _FORMAT_FILE).read_text("utf-8")
            written = json.loads(text)
            refuse_newer(self.root, written["format"], by=f"lhcq {written['lhcq']}")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (ValueError, LookupError, TypeError) as error:
            raise BadInput(
                f"{self.root / _FORMAT_FILE}: does not say the workspace's format ({error}). Move it elsewhere."
            ) from error
        return True

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
        if not self.require_known_format():
            with staged_file(self.root / _FORMAT_FILE) as temporary:
                temporary.write_text(json.dumps({"format": FORMAT, "lhcq": version()}) + "\n", "utf-8")
