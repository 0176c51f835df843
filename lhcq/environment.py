"""Where lhcq works, as the environment says it: read once, at the edge."""

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from lhcq.address import BrokerAddress
from lhcq.errors import BadInput
from lhcq.frozen import Frozen

SPINS = "30000"
"""How often a thread that waits for another looks whether it is there, before it sleeps."""


def spin_briefly(environment: MutableMapping[str, str]) -> None:
    """Have threads that begin with this environment wait for each other without taking a core, unless it says how.

    One that waits for another spins first, by default for milliseconds. Where more wants to run than there are
    cores, the other one is not running, and the spinning takes the very core that it waits for. A tenth of that is
    enough for the next product to come where the machine is quiet (`python -m benchmarks waiting`).
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)


class Settings(Frozen):
    """Where lhcq works: read from the environment once, at the edge."""

    workspace: Path = Path("lhcq-workspace")
    broker_url: str | None = Field(default=None, repr=False)  # it may hold a password
    """In its normal form (`lhcq.address`); None: lhcq brings its own broker and workers."""
    broker_ca: Path | None = None
    """PEM file of the authority that signed the broker's certificate; None: those that the system trusts."""
    broker_cert: Path | None = None
    """PEM file of the certificate that is shown to a broker that asks for one; None: none is shown."""
    broker_key: Path | None = None
    """PEM file of its private key; None: it stands in the certificate's file."""
    data_roots: tuple[Path, ...] = ()
    """Where workers may read event files and models and write generated ones, beside the workspace; none: wherever
    their user may."""
    log_format: Literal["text", "json"] = "text"
    """How workers log (`LHCQ_LOG_FORMAT`): lines for people, or one JSON object a record."""

    @classmethod
    def from_environment(cls) -> Self:
        """`LHCQ_WORKSPACE`, `LHCQ_BROKER_URL` or the file that `LHCQ_BROKER_URL_FILE` names, `LHCQ_BROKER_CA`,
        `LHCQ_BROKER_CERT`, `LHCQ_BROKER_KEY`, `LHCQ_DATA_ROOTS` (directories with colons between).

        Raises `BadInput` for a file that cannot be read, and for an address that is not understood whole.
        """
        url = os.environ.get("LHCQ_BROKER_URL") or _only_line("LHCQ_BROKER_URL_FILE")
        certificate, key = _file("LHCQ_BROKER_CERT"), _file("LHCQ_BROKER_KEY")
        if key and not certificate:
            raise BadInput("LHCQ_BROKER_KEY: belongs to a certificate, so name its file by LHCQ_BROKER_CERT.")
        return cls.checked(
            workspace=whole_path(os.environ.get("LHCQ_WORKSPACE") or "lhcq-workspace"),
            broker_url=BrokerAddress.of(url).url if url else None,
            broker_ca=_file("LHCQ_BROKER_CA"),
            broker_cert=certificate,
            broker_key=key,
            log_format=os.environ.get("LHCQ_LOG_FORMAT") or "text",
            data_roots=tuple(
                whole_path(root) for root in os.environ.get("LHCQ_DATA_ROOTS", "").split(":") if root
            ),
        )


def whole_path(text: str | Path) -> Path:
    """The absolute path that `text` names, with a home directory for a leading `~` where no shell put one in."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise BadInput(f"{text}: there is no such home directory. Write the whole path.") from error


def _file(variable: str) -> Path | None:
    """The file that an environment variable names; None where it is not set."""
    name = os.environ.get(variable)
    if name and not whole_path(name).is_file():
        raise BadInput(f"{variable}: there is no file {name}.")
    return whole_path(name) if name else None


def _only_line(variable: str) -> str | None:
    """The one line of the file that an environment variable names; None where it is not set."""
    name = os.environ.get(variable)
    if not name:
        return None
    try:
        lines = whole_path(name).read_text("utf-8").split()
    except (OSError, UnicodeError) as error:
        raise BadInput(
            f"{variable}: {name} cannot be read ({getattr(error, 'strerror', None) or 'not text'})."
        ) from error
    if len(lines) != 1:
        raise BadInput(f"{variable}: {name} has to hold one line, the broker's address, and nothing else.")
    return lines[0]
