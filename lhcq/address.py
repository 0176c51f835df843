"""The broker's address: read once, here, and told to each library in the words that it understands.

kombu, Celery's result backend and redis-py each read an address of their own, and differ where it matters: in the
database behind a unix socket, and in what they make of a field that they do not know.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from lhcq.errors import BadInput

_TCP = ("redis", "rediss")
_SOCKET = "redis+socket"
_SCHEMES = {**{name: name for name in _TCP}, _SOCKET: _SOCKET, "unix": _SOCKET}
_DATABASE_FIELDS = ("virtual_host", "db")  # as Celery has it, and as redis-py has it
_PORT = 6379
_FORMS = "redis://HOST:PORT/DATABASE, rediss:// for TLS, or redis+socket:///PATH?virtual_host=DATABASE"


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """One server and one database of it."""

    scheme: str
    host: str = ""
    """Empty for a unix socket."""
    port: int = 0
    socket: str = ""
    """Path of a unix socket; empty for TCP."""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Read an address; raises `BadInput`, without what may be secret, for all that is not understood whole."""
        try:
            return cls._read(url.strip())
        except ValueError as error:
            # Its text may hold a piece of the password, such as one that looks like a port.
            raise BadInput(
                f"LHCQ_BROKER_URL is {public_url(url)!r}: its parts cannot be told apart. It has to read {_FORMS}; "
                "in a password, write :/?#[]@% as %XX."
            ) from error

    @classmethod
    def _read(cls, url: str) -> Self:
        shown = f"LHCQ_BROKER_URL is {public_url(url)!r}"
        parts = urlsplit(url)
        scheme = _SCHEMES.get(parts.scheme) if "://" in url else None
        if scheme is None:
            starts = ", ".join(f"{name}://" for name in _SCHEMES)
            raise BadInput(f"{shown}: it has to start with one of {starts}.")
        if "#" in url:
            raise BadInput(f"{shown}: it has a '#'. In a password, write :/?#[]@% as %XX.")
        fields = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        if any("ssl_" in name for name, _ in fields):
            raise BadInput(
                "LHCQ_BROKER_URL: the broker's certificate is always verified, so the address takes no ssl_ options. "
                "Name the file of its authority by LHCQ_BROKER_CA."
            )
        if unknown := sorted({name for name, _ in fields} - {*_DATABASE_FIELDS}):
            # With an '@' behind it, the '?' may be one of the password.
            names = ", ".join(unknown) if "@" not in parts.query else "something"
            raise BadInput(
                f"{shown} with {names} behind its '?', which nothing reads. It has to read {_FORMS}."
            )
        databases = [value for _, value in fields]
        path = unquote(parts.path)
        if scheme in _TCP:
            databases += [path.strip("/")] if path.strip("/") else []
        read = cls._database(databases, shown)
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if scheme == _SOCKET:
            if parts.hostname or not path.startswith("/") or path == "/":
                raise BadInput(
                    f"{shown}: a socket has a whole path and no host, as in {_SOCKET}:///run/broker.sock."
                )
            return cls(scheme=scheme, socket=path, database=read, username=user, password=password)
        host = unquote(parts.hostname or "") or "localhost"
        return cls(
            scheme=scheme,
            host=host,
            port=parts.port or _PORT,
            database=read,
            username=user,
            password=password,
        )

    @staticmethod
    def _database(given: list[str], shown: str) -> int:
        """The one number that all places agree on, 0 where none says one."""
        if any(not re.fullmatch(r"[0-9]{1,9}", one) for one in given) or len({int(one) for one in given}) > 1:
            raise BadInput(
                f"{shown}: its database has to be one whole number, such as 0. It has to read {_FORMS}."
            )
        return int(given[0]) if given else 0

    @property
    def tls(self) -> bool:
        """Whether what is said is encrypted."""
        return self.scheme == "rediss"

    @property
    def url(self) -> str:
        """The normal form, which kombu reads as it is meant. It holds the password."""
        login = ""
        if self.username or self.password:
            secret = f":{quote(self.password, safe='')}" if self.password else ""
            login = f"{quote(self.username or '', safe='')}{secret}@"
        return f"{self.scheme}://{login}{self._place}"

    @property
    def shown(self) -> str:
        """The normal form for people, without the login."""
        return f"{self.scheme}://{self._place}"

    @property
    def _place(self) -> str:
        if self.socket:
            return quote(self.socket) + (f"?virtual_host={self.database}" if self.database else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.database}"

    def on(self, database: int) -> "BrokerAddress":
        """The same server with another database."""
        return replace(self, database=database)

    def client_options(self) -> dict[str, Any]:
        """What redis-py's client is given; TLS options come beside them."""
        login = {"db": self.database, "username": self.username, "password": self.password}
        if self.socket:
            return {"unix_socket_path": self.socket, **login}
        return {"host": self.host, "port": self.port, "ssl": self.tls, "socket_keepalive": True, **login}


def public_url(url: str) -> str:
    """An address that may be none, without what may be secret: user, password, and options, which may hold one."""
    scheme, separator, rest = url.partition("://")
    place = rest if separator else scheme
    return f"{scheme if separator else ''}{separator}{place.rpartition('@')[2].partition('?')[0]}"
