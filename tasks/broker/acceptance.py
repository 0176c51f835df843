"""Whether a broker can be worked with: it answers, allows what is needed, keeps what it is given, and serves this
workspace alone.

Asked once by every verb, worker and `lhcq doctor`, since each of these fails late and without a word otherwise: a
user who may not subscribe is a worker that dies, an evicting broker is a job that never ends.
"""

import hashlib
import json
import logging
import secrets
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from lhcq.address import BrokerAddress
from lhcq.environment import Settings
from lhcq.errors import BadInput, TransientError
from lhcq.workspace import Workspace
from tasks.broker.connection import CLAIM_KEY, broker_address, new_client
from tasks.broker.transport import CHANNELS, KEYS

log = logging.getLogger(__name__)

_ASK_SECONDS = 5.0
_PROBE = "lhcq:probe"
_PROBE_SECONDS = 60
_SCRIPT = "return 1"
_MANY = 12
_OF_OUR_FILES = ("PEM", "KEY_VALUES_MISMATCH", "BAD_DECRYPT", "NO_START_LINE")
"""What OpenSSL says of a file of ours, before anything is sent."""
_ABOUT_CERTIFICATES = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE")
"""Alerts by which a server refuses what a client shows; the last one is how TLS 1.2 says that it shows nothing."""
_BROAD = "+@all -@admin -@dangerous"
"""What `deploy/make-secrets` gives as well; it holds all of `_commands`."""


def ask_broker(workspace: Workspace) -> None:
    """Ask the broker once whether it can be worked with for a workspace.

    The workspace lays claim to the broker's database if none has. Raises `BadInput` with the remedy for a broker that
    would lose work, refuses what is needed, or serves another workspace, and `TransientError` when it does not answer
    within seconds.
    """
    address = broker_address()
    once = Retry(NoBackoff(), 0)  # a person waits for the answer
    try:
        with new_client(
            socket_timeout=_ASK_SECONDS, socket_connect_timeout=_ASK_SECONDS, retry=once
        ) as client:
            client.ping()
            _refuse_stinginess(address, denials(client))
            _refuse_forgetfulness(address, client)
            _refuse_another_workspace(address, client, workspace)
    except redis.AuthenticationError as error:
        raise BadInput(
            f"the broker at {address.shown} refuses the login of LHCQ_BROKER_URL, or wants one: "
            "rediss://USER:PASSWORD@HOST. Who set it up has the address, in a file to be named by "
            "LHCQ_BROKER_URL_FILE."
        ) from error
    except NoPermissionError as error:  # at the connection's first words
        raise BadInput(_stingy(address, f"({error})", _BROAD)) from error
    except redis.ReadOnlyError as error:
        raise BadInput(
            f"the broker at {address.shown} is a replica that takes no writes. Name its primary in LHCQ_BROKER_URL."
        ) from error
    except (redis.RedisError, OSError) as error:
        raise _silence(address, error) from error


def _silence(address: BrokerAddress, error: Exception) -> BadInput | TransientError:
    """Why nothing came back that can be worked with."""
    reason = str(error).rstrip(".")
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return BadInput(
            f"the broker at {address.shown} shows a certificate that is not trusted ({reason}). Name the file of the "
            "authority that signed it by LHCQ_BROKER_CA, and the broker by a name that its certificate has."
        )
    if address.tls and _asks_for_certificate(address):
        shown = Settings.from_environment().broker_cert
        return BadInput(
            f"the broker at {address.shown} asks for a certificate, and "
            f"{f'does not take {shown}' if shown else 'none is shown'}. Name the file of one that it trusts by "
            "LHCQ_BROKER_CERT, and that of its key by LHCQ_BROKER_KEY; or set `tls-auth-clients no` in the broker's "
            "configuration, where a password is enough."
        )
    if address.tls and any(word in reason for word in _OF_OUR_FILES):
        return BadInput(
            f"the certificate of LHCQ_BROKER_CERT and the key of LHCQ_BROKER_KEY cannot be used ({reason}). Both "
            "have to be PEM, unencrypted, and belong together."
        )
    if "DB index" in reason or "Invalid Database" in reason:
        return BadInput(
            f"the broker at {address.shown} has no database {address.database} ({reason}). Choose a smaller number "
            "in LHCQ_BROKER_URL, or raise `databases` in its configuration file."
        )
    return TransientError(
        f"the broker at {address.shown} does not answer ({reason}). Start it, or unset LHCQ_BROKER_URL to let lhcq "
        "bring its own."
    )


def _asks_for_certificate(address: BrokerAddress) -> bool:
    """Whether the broker sends us away for the certificate that we show, or for want of one.

    Asked by a connection on which nothing is written: in TLS 1.3 a server refuses after the handshake, and by then
    a client that has written may find the line closed, and never see why.
    """
    settings = Settings.from_environment()
    try:
        context = ssl.create_default_context(cafile=settings.broker_ca)
        if settings.broker_cert:
            context.load_cert_chain(settings.broker_cert, settings.broker_key)
        with (
            socket.create_connection((address.host, address.port), _ASK_SECONDS) as line,
            context.wrap_socket(line, server_hostname=address.host) as secured,
        ):
            secured.settimeout(1.0)  # a broker that is content waits for us to speak
            secured.recv(1)
    except ssl.SSLError as error:
        alert = error.reason or ""
        return "ALERT" in alert and any(word in alert for word in _ABOUT_CERTIFICATES)
    except OSError:
        return False
    return False


def denials(client: "redis.Redis") -> list[str]:
    """The rules of an access list that the broker's user lacks: `+command`, `~*` for keys, `&*` for channels.

    Everything that lhcq, Celery and kombu say to a broker is tried, on keys of the probe's own where something is
    written, on the real ones where something is only looked at or nothing is removed.
    """
    missing = dict.fromkeys(_refused_commands(client))
    with client.pubsub() as listener:  # type: ignore[no-untyped-call]
        try:
            listener.psubscribe(*(channel.format(db=_database(client)) for channel in CHANNELS))
            listener.get_message(timeout=_ASK_SECONDS)
            listener.punsubscribe()
            while (told := listener.get_message(timeout=_ASK_SECONDS)) and told["type"] != "punsubscribe":
                pass
        except NoPermissionError as error:
            missing |= dict.fromkeys(
                [_rule("punsubscribe" if "punsub" in str(error) else "psubscribe", error)]
            )
    return sorted(missing)


def _database(client: "redis.Redis") -> int:
    return int(client.connection_pool.connection_kwargs.get("db") or 0)


def _refused_commands(client: "redis.Redis") -> Iterator[str]:
    key = f"{_PROBE}:{secrets.token_hex(8)}"
    commands = _commands(key, _database(client))
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        answers = pipe.execute(raise_on_error=False)
    for command in (("WATCH", key), ("UNWATCH",)):  # a pipeline would send these two at once
        commands.append(command)
        try:
            answers.append(client.execute_command(*command))  # type: ignore[no-untyped-call]
        except NoPermissionError as error:
            answers.append(error)
    for command, answer in zip(commands, answers, strict=True):
        if isinstance(answer, redis.ReadOnlyError):
            raise answer
        if isinstance(answer, redis.ResponseError) and "permission" in str(
            answer
        ):  # EXEC words it its own way
            name = "|".join(command[0].lower().split())
            rule = _rule(name, answer)
            if (name, rule) != ("publish", "&*"):  # what is listened to tells more
                yield rule


def _rule(command: str, error: Exception) -> str:
    """What is missing, by the server's words; a command is refused before its keys and channels are looked at."""
    text = str(error)
    if "access" not in text:
        return f"+{command}"
    return "&*" if "channel" in text else "~*"


def _commands(key: str, database: int) -> list[tuple[Any, ...]]:
    """One use of every command, none of which changes anything of anybody's."""
    items, table, order, group, word = (f"{key}:{name}" for name in ("list", "hash", "zset", "set", "word"))
    written = (items, table, order, group, word)
    digest = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
    return [
        ("LPUSH", items, "a"),
        ("RPUSH", items, "b"),
        ("LLEN", items),
        ("LRANGE", items, 0, -1),
        ("RPOP", items),
        ("LPOP", items),
        ("BRPOP", items, 0.01),
        ("HSET", table, "a", 1),
        ("HGET", table, "a"),
        ("HMGET", table, "a"),
        ("HINCRBY", table, "a", 1),
        ("HDEL", table, "b"),
        ("ZADD", order, 1, "a"),
        ("ZRANGE", order, 0, -1),
        ("ZSCORE", order, "a"),
        ("ZRANGEBYSCORE", order, 0, 1),
        ("ZCOUNT", order, 0, 1),
        ("ZREM", order, "b"),
        ("SADD", group, "a"),
        ("SISMEMBER", group, "a"),
        ("SCARD", group),
        ("SMEMBERS", group),
        ("SREM", group, "b"),
        ("SETEX", word, _PROBE_SECONDS, 1),
        ("SET", word, 1, "EX", _PROBE_SECONDS),
        ("GET", word),
        ("MGET", word),
        ("INCR", word),
        ("PTTL", word),
        ("EXISTS", word),
        *(("EXPIRE", name, _PROBE_SECONDS) for name in written),
        *(("PEXPIRE", name, 1000 * _PROBE_SECONDS) for name in written),
        ("SCRIPT LOAD", _SCRIPT),
        ("SCRIPT EXISTS", digest),
        ("EVALSHA", digest, 1, word),
        ("MULTI",),
        ("EXEC",),
        ("SCAN", 0, "MATCH", word),
        ("TIME",),
        ("PUBLISH", f"/{database}.{_PROBE}", ""),
        *(("EXISTS", name) for name in KEYS),
        ("DEL", *written),
    ]


def _refuse_stinginess(address: BrokerAddress, missing: list[str]) -> None:
    """Raise `BadInput` when rules are missing, with those that mend it."""
    if not missing:
        return
    commands = [rule for rule in missing if rule.startswith("+")]
    rest = [rule for rule in missing if not rule.startswith("+")]
    words = {"~*": "its keys", "&*": "its channels"}
    told = [*(rule[1:].upper().replace("|", " ") for rule in commands), *(words[rule] for rule in rest)]
    shown = ", ".join(told[:_MANY]) + (f" and {len(told) - _MANY} more" if len(told) > _MANY else "")
    rules = [*(commands if len(commands) <= _MANY else [_BROAD]), *rest]
    raise BadInput(_stingy(address, shown, " ".join(rules)))


def _stingy(address: BrokerAddress, refused: str, rules: str) -> str:
    user = address.username or "default"
    return (
        f"the broker at {address.shown} refuses its user {user} what lhcq needs: {refused}. "
        f"Run `ACL SETUSER {user} {rules}` on it, and write that into its access list."
    )


def _refuse_forgetfulness(address: BrokerAddress, client: "redis.Redis") -> None:
    """Raise `BadInput` when the broker's configuration would lose messages."""
    settings: dict[Any, Any] = {}
    try:
        for name in ("maxmemory-policy", "appendonly", "save"):
            settings |= client.config_get(name)
    except redis.ResponseError as refused:  # hosted brokers forbid CONFIG
        log.warning(
            "the broker at %s does not tell its configuration (%s): see to it that maxmemory-policy is noeviction "
            "and that it writes to disk.",
            address.shown,
            refused,
        )
        return
    wanted = {}
    if settings["maxmemory-policy"] != "noeviction":
        wanted["maxmemory-policy"] = "noeviction"
    if settings["appendonly"] == "no" and not settings["save"]:
        wanted["appendonly"] = "yes"
    if wanted:
        remedy = " and ".join(f"`CONFIG SET {name} {value}`" for name, value in wanted.items())
        lines = ", ".join(f"`{name} {value}`" for name, value in wanted.items())
        found = ", ".join(f"{name} is {settings[name]}" for name in wanted)
        raise BadInput(
            f"the broker at {address.shown} would lose work ({found}). Run {remedy} on it, and write {lines} into "
            "its configuration file."
        )


def _refuse_another_workspace(address: BrokerAddress, client: "redis.Redis", workspace: Workspace) -> None:
    """Raise `BadInput` when the database serves another workspace: parts would wander, counters would be shared."""
    other = claimed_by_another(client, workspace)
    if other:
        raise BadInput(
            f"the broker at {address.shown} serves another workspace ({other}), and this is {workspace.root}. Set "
            "LHCQ_WORKSPACE to that one, or give this one a database of its own: "
            f"{address.on(address.database + 1).shown}. If the other is gone, empty the database with FLUSHDB."
        )


def claimed_by_another(client: "redis.Redis", workspace: Workspace) -> str | None:
    """Lay claim to the database for a workspace; where another's was first, where that one was seen."""
    identity = workspace.identity()
    if identity is None:
        return None
    claim = {"workspace": identity, "seen": f"{socket.gethostname()}:{workspace.root}"}
    held = client.get(CLAIM_KEY)
    if held is None:
        client.set(CLAIM_KEY, json.dumps(claim), nx=True)
        held = client.get(CLAIM_KEY) or json.dumps(claim)
    try:
        first = json.loads(str(held))
        seen = str(first["seen"])
        ours = first["workspace"] == identity and not workspace.is_copy_of(Path(seen.partition(":")[2]))
        return None if ours else seen
    except (ValueError, LookupError, TypeError):
        return f"as its key {CLAIM_KEY} says in words of another version"
