"""Who else reaches the broker and Flower: the settings that `lhcq doctor` calls insecure."""

import ipaddress
import os
import socket
import urllib.error
import urllib.request

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lhcq.address import BrokerAddress
from tasks.broker.connection import broker_address, redis_client
from tasks.doctor.finding import Finding
from tasks.workers.flower import API_VARIABLE

CHECK = "security"
_ASK_SECONDS = 3.0
FLOWER_PORT = 5555


def security_findings() -> list[Finding]:
    """What is open to strangers at the broker that the application points at, and of Flower on this host."""
    found = [*broker_exposure(broker_address()), *flower_exposure(own_addresses(), FLOWER_PORT)]
    return found or [Finding(check=CHECK, state="ok", found="the broker and Flower are closed to strangers")]


def broker_exposure(address: BrokerAddress) -> list[Finding]:
    """Whether a stranger may enter the broker, and whether what is said to it can be overheard."""
    if address.socket:
        return []  # in a directory that is its user's alone
    local = is_loopback(address.host)
    found = []
    if _enters_without_password():
        found.append(_no_password(address, local=local and not _listens_to_all()))
    if not address.tls and not local:
        found.append(
            Finding(
                check=CHECK,
                state="warning",
                found=f"what is said to the broker at {address.host}, its password too, "
                "can be read on the way (no TLS)",
                remedy="Use a rediss:// address, with the file of its authority in LHCQ_BROKER_CA.",
            )
        )
    return found


def _no_password(address: BrokerAddress, *, local: bool) -> Finding:
    who = "every user of its host" if local else "everybody who reaches it"
    return Finding(
        check=CHECK,
        state="warning" if local else "error",
        found=f"the broker at {address.host} wants no password: {who} can take and forge work",
        remedy="Set `requirepass` (or an ACL user) there, and name it in LHCQ_BROKER_URL.",
    )


def is_private(address: BrokerAddress) -> bool:
    """Whether a broker is asked for at an address that this host alone reaches."""
    return bool(address.socket) or is_loopback(address.host)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from its own host alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _enters_without_password() -> bool:
    """Whether the broker serves somebody who names no user and no password: tried, not read off a setting."""
    pool = redis_client().connection_pool
    credentials = ("username", "password", "credential_provider")
    options = {key: value for key, value in pool.connection_kwargs.items() if key not in credentials}
    options |= {"socket_timeout": _ASK_SECONDS, "retry": Retry(NoBackoff(), 0)}
    bare = redis.ConnectionPool(connection_class=pool.connection_class, **options)
    try:
        return bool(redis.Redis(connection_pool=bare).ping())
    except redis.RedisError:
        return False
    finally:
        bare.disconnect()


def _listens_to_all() -> bool:
    """Whether the broker, met on loopback, listens to other hosts as well and does not refuse them by itself."""
    try:
        bound = str(redis_client().config_get("bind").get("bind", ""))
        protected = str(redis_client().config_get("protected-mode").get("protected-mode", "yes"))
    except redis.RedisError:
        return False
    others = [address for address in bound.split() if not is_loopback(address.lstrip("-"))]
    return protected == "no" and bool(others or not bound)


def flower_exposure(addresses: list[str], port: int) -> list[Finding]:
    """Whether a Flower answers at an address that other hosts reach, or its API is open by the environment."""
    found = []
    for address in addresses:
        if _flower_answers(address, port):
            found.append(
                Finding(
                    check=CHECK,
                    state="warning",
                    found=f"Flower answers other hosts at {address}:{port}",
                    remedy="Start it by `lhcq flower`, on loopback, and reach it through `ssh -L`.",
                )
            )
    if os.environ.get(API_VARIABLE, "").lower() in ("1", "true", "yes", "on"):
        found.append(
            Finding(
                check=CHECK,
                state="warning",
                found=f"{API_VARIABLE} opens Flower's API to everybody who reaches it",
                remedy="Unset it: with its login the API works.",
            )
        )
    return found


def _flower_answers(address: str, port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}:{port}/healthcheck", timeout=_ASK_SECONDS) as answer:
            return bool(answer.read(16) == b"OK")
    except (urllib.error.URLError, OSError, ValueError):
        return False


def own_addresses() -> list[str]:
    """This host's address towards others; none where it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                ("192.0.2.1", 9)
            )  # reserved for documentation: only a route is looked up, nothing is sent
        except OSError:
            return []
        address = str(probe.getsockname()[0])
        return [] if address.startswith("127.") else [address]
