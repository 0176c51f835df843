"""The Celery application: `celery -A tasks.app worker`."""

import functools
import logging
from typing import Any

import redis
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from lhcq.config import Settings
from lhcq.errors import BadInput, TransientError
from lhcq.workspace import Workspace
from tasks.internals import check_messages
from tasks.settings import celery_settings, tls_options

log = logging.getLogger(__name__)

check_messages()
app = Celery(
    "lhcq",
    include=[
        "tasks.generation",
        "tasks.clustering",
        "tasks.prompting",
        "tasks.training",
        "tasks.prediction",
        "tasks.duty",
        "tasks.examination",
    ],
)

_SCHEMES = ("redis://", "rediss://", "redis+socket://")
_ASK_SECONDS = 5.0


def connect(broker_url: str) -> None:
    """Point the application at a broker."""
    app.conf.update(celery_settings(broker_url, Settings.from_environment().broker_ca))
    redis_client.cache_clear()


@functools.cache
def workspace() -> Workspace:
    """The workspace of this process."""
    settings = Settings.from_environment()
    return Workspace(settings.workspace, settings.data_roots)


@functools.cache
def redis_client() -> "redis.Redis":
    """A client of the broker's own database, for leases and counters."""
    return _client(socket_timeout=30, socket_connect_timeout=10)


def _client(**options: Any) -> "redis.Redis":
    url = str(app.conf.broker_url).replace("redis+socket://", "unix://", 1)
    keepalive = {} if url.startswith("unix://") else {"socket_keepalive": True}
    tls = tls_options(url, Settings.from_environment().broker_ca)
    return redis.Redis.from_url(url, decode_responses=True, **keepalive, **tls, **options)


def ask_broker() -> None:
    """Ask the broker once whether it is there and keeps what it is given.

    Raises `BadInput` for an address that cannot be one and for a broker that would lose work, and `TransientError`
    with the remedy when it does not answer within seconds.
    """
    url = public_url(str(app.conf.broker_url))
    if not url.startswith(_SCHEMES):
        raise BadInput(f"LHCQ_BROKER_URL is {url!r}: it has to start with one of {', '.join(_SCHEMES)}.")
    once = Retry(NoBackoff(), 0)  # a person waits for the answer
    try:
        with _client(socket_timeout=_ASK_SECONDS, socket_connect_timeout=_ASK_SECONDS, retry=once) as client:
            with client.pipeline(transaction=False) as pipe:
                pipe.ping()
                for name in ("maxmemory-policy", "appendonly", "save"):
                    pipe.config_get(name)
                answers = pipe.execute(raise_on_error=False)
            if isinstance(answers[0], redis.RedisError):
                raise answers[0]
    except redis.AuthenticationError as error:
        raise BadInput(
            f"the broker at {url} refuses the login of LHCQ_BROKER_URL, or wants one: rediss://USER:PASSWORD@HOST. "
            "Who set it up has the address, in a file to be named by LHCQ_BROKER_URL_FILE."
        ) from error
    except (redis.RedisError, OSError) as error:
        reason = str(error).rstrip(".")
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            raise BadInput(
                f"the broker at {url} shows a certificate that is not trusted ({reason}). Name the file of the "
                "authority that signed it by LHCQ_BROKER_CA, and the broker by a name that its certificate has."
            ) from error
        raise TransientError(
            f"the broker at {url} does not answer ({reason}). Start it, or unset LHCQ_BROKER_URL to let lhcq "
            "bring its own."
        ) from error
    except ValueError as error:
        # Its text may hold a piece of the password, such as one that looks like a port.
        raise BadInput(
            f"LHCQ_BROKER_URL is {url!r}: its parts cannot be told apart. In a password, write :/?#[]@% as %XX."
        ) from error
    _refuse_forgetful(url, answers[1:])


def _refuse_forgetful(url: str, answers: list[Any]) -> None:
    """Raise `BadInput` when the broker's configuration would lose messages; `answers` are those to CONFIG GET."""
    refused = next((answer for answer in answers if isinstance(answer, redis.ResponseError)), None)
    if refused is not None:  # hosted brokers forbid CONFIG
        log.warning(
            "the broker at %s does not tell its configuration (%s): see to it that maxmemory-policy is noeviction "
            "and that it writes to disk.",
            url,
            refused,
        )
        return
    settings = {key: value for answer in answers for key, value in answer.items()}
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
            f"the broker at {url} would lose work ({found}). Run {remedy} on it, and write {lines} into its "
            "configuration file."
        )


def public_url(url: str) -> str:
    """The address without what may be secret: user, password, and options, which may hold one too."""
    scheme, separator, rest = url.partition("://")
    place = rest if separator else scheme
    return f"{scheme if separator else ''}{separator}{place.rpartition('@')[2].partition('?')[0]}"


if broker_url := Settings.from_environment().broker_url:
    connect(broker_url)
