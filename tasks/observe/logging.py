"""What workers log: every line with its host, and with the unit of work and the attempt that it is about.

`LHCQ_LOG_FORMAT` chooses between lines for people (`text`) and one JSON object a record (`json`). Passwords of
broker addresses are masked in both. Celery's main process, its forked children and its spawned ones all set up their
logging by the two signals that are used here.
"""

import ast
import contextlib
import functools
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from celery.signals import after_setup_logger, after_setup_task_logger

from lhcq.config import NAME_PATTERN
from lhcq.environment import Settings
from lhcq.errors import LhcqError
from lhcq.records.failures import LOG_VARIABLE
from lhcq.storage import LARGEST_LOG_BYTES, exclusive, rotate
from tasks.jobs.units import Unit, unit_key

_HOST = socket.gethostname()
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")
_TOLD = "lhcq_lines"
_LONGEST_ARGUMENTS = 200
_SHORTEST_PASSWORD = 4  # a shorter one would black out words


class _Work(NamedTuple):
    unit: str
    attempt: int | None


_work: ContextVar[_Work | None] = ContextVar("lhcq_work", default=None)


@contextlib.contextmanager
def working_on(unit: Unit) -> Iterator[None]:
    """What is logged in the body is about `unit`."""
    token = _work.set(_Work(unit.key, None))
    try:
        yield
    finally:
        _work.reset(token)


def note_attempt(attempt: int) -> None:
    """From here on, what is logged is about this attempt at the unit."""
    work = _work.get()
    if work is not None:
        _work.set(work._replace(attempt=attempt))


class TextFormatter(logging.Formatter):
    """`[TIME LEVEL HOST/PROCESS UNIT attempt N] MESSAGE`, before every line of a message or traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a record, which two handlers may want."""
        work = _work_of(record)
        told = record.__dict__.get(_TOLD)
        if told is None or told[0] != work:
            told = record.__dict__[_TOLD] = (work, self._lines(record, work))
        return str(told[1])

    def _lines(self, record: logging.LogRecord, work: _Work | None) -> str:
        about = f" {work.unit}" if work else ""
        about += f" attempt {work.attempt}" if work and work.attempt is not None else ""
        lead = f"[{_time_of(record)} {record.levelname} {_HOST}/{record.processName}{about}]"
        lines = masked(super().format(record)).splitlines() or [""]
        return "\n".join(f"{lead} {line}" for line in lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a record; `unit` and `attempt` are null where it is about no unit."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        work = _work_of(record)
        return json.dumps(
            {
                "time": _time_of(record),
                "level": record.levelname,
                "host": _HOST,
                "process": record.processName,
                "logger": record.name,
                "unit": work.unit if work else None,
                "attempt": work.attempt if work else None,
                "message": masked(super().format(record)),
            },
            sort_keys=True,
        )


def masked(text: str) -> str:
    """`text` without the passwords of addresses, and without the broker's wherever it stands."""
    text = _PASSWORD.sub(r"\1:***@", text)
    for secret in _passwords(os.environ.get("LHCQ_BROKER_URL"), os.environ.get("LHCQ_BROKER_URL_FILE")):
        text = text.replace(secret, "***")
    return text


@functools.cache
def _passwords(*_: str | None) -> set[str]:
    """The broker's password as it stands in the address, and as it is sent; for these two variables."""
    with contextlib.suppress(Exception):  # a line must come, whatever became of the settings
        address = Settings.from_environment().broker_url or ""
        password = urlsplit(address).password or ""
        return {word for word in (password, unquote(password)) if len(word) >= _SHORTEST_PASSWORD}
    return set()


def _work_of(record: logging.LogRecord) -> _Work | None:
    """The unit that a record is about: that of the task, or the one that Celery names in a line of its own."""
    return _work.get() or _named_by_celery(record.args)


def _named_by_celery(arguments: Any) -> _Work | None:
    """The unit of `Task lhcq.cluster_part[...] received`, by the values that Celery formats it from."""
    if not isinstance(arguments, dict) or not str(arguments.get("name", "")).startswith("lhcq."):
        return None
    told = str(arguments.get("args", ""))
    with contextlib.suppress(ValueError, SyntaxError, TypeError):
        values = ast.literal_eval(told) if len(told) < _LONGEST_ARGUMENTS else ()
        if values and all(NAME_PATTERN.fullmatch(str(value)) for value in values):
            return _Work(unit_key(arguments["name"], values), None)
    return None


def _time_of(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def chosen_formatter() -> logging.Formatter:
    """The formatter that the environment chooses."""
    return JsonFormatter() if Settings.from_environment().log_format == "json" else TextFormatter()


class WorkerLog(WatchedFileHandler):
    """The log of a host's workers in the workspace, to which all their processes append.

    Whichever of them finds it too large renames it, and all go on in a new one. Where the output of the process goes
    to the same file, it follows.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.path = path
        self.is_output = self.stream is not None and _is_output(path)
        self._take_output()  # it may have been renamed since this process was started

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and rename the log once it is large."""
        super().emit(record)
        try:
            if self.stream and os.fstat(self.stream.fileno()).st_size > LARGEST_LOG_BYTES:
                with exclusive(self.path.with_name(".rotating.lock"), where_possible=True):
                    rotate(self.path)  # which looks again: another process may have been first
        except (OSError, LhcqError):
            self.handleError(record)

    def reopenIfNeeded(self) -> None:  # noqa: N802
        """Go on in a new file where this one was renamed, and have the output of this process go there too."""
        before = self.stream
        super().reopenIfNeeded()
        if self.stream is not before:
            self._take_output()

    def _take_output(self) -> None:
        if self.is_output and self.stream is not None:
            os.dup2(self.stream.fileno(), 1)
            os.dup2(self.stream.fileno(), 2)


def _is_output(log: Path) -> bool:
    """Whether this process writes its output to a log, be it one that was renamed."""
    for path in (log, *log.parent.glob(f"{log.name}.*")):
        with contextlib.suppress(OSError):  # there is no output, or the log was renamed once more
            if os.path.samestat(os.fstat(2), path.stat()):
                return True
    return False


@after_setup_logger.connect
@after_setup_task_logger.connect
def format_lines(logger: logging.Logger, **_: Any) -> None:
    """Give a logger of Celery's our lines in the workspace's log, and where its output goes if that is elsewhere."""
    kept = any(isinstance(handler, WatchedFileHandler) for handler in logger.handlers)
    if not kept and (own := _own_log()) is not None:
        if own.is_output:  # else each line would stand there twice
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
        logger.addHandler(own)
    for handler in logger.handlers:
        handler.setFormatter(chosen_formatter())
    # It says of each message that it came, which the unit's own first line says again.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)


def _own_log() -> WorkerLog | None:
    """Writes to the worker's log in the workspace; None where none is named, or it cannot be written."""
    name = os.environ.get(LOG_VARIABLE)
    if not name:
        return None
    path = Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return WorkerLog(path)
    except (OSError, AttributeError, ValueError) as error:
        sys.stderr.write(f"lhcq: {path}: the log is not kept there ({error}).\n")
        return None
