"""One request to a web server: what lhcq follows, what it refuses, and what went wrong in words."""

import contextlib
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from lhcq.errors import BadInput
from lhcq.version import RELEASE

# Zenodo answers 403 to the agents that Python's libraries send by themselves.
_AGENT = f"lhcq/{RELEASE}"


class Interrupted(Exception):
    """A download ended before its file did; trying again may help, after `wait` seconds where the server said so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _HttpsStaysHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the web, but none out of it, and none from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith(("https:", f"{req.type}:")):
            raise urllib.error.HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _proxies(url: str) -> dict[str, str]:
    """The proxies of the environment, by scheme; refuses one for `url` that is not spoken to here."""
    named = urllib.request.getproxies()
    proxies = {scheme: named.get(scheme) or named.get("all", "") for scheme in ("http", "https")}
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme, "")
    if proxy.startswith("socks") and not urllib.request.proxy_bypass(parts.netloc):
        raise BadInput(
            f"{url}: the environment names a SOCKS proxy ({proxy.rpartition('@')[2]}), and lhcq loads through HTTP "
            f"proxies alone. Load it by `curl --location --output FILE {url}`, with FILE the file's own name, "
            "then run the same command there: what stands is verified, and not loaded again."
        )
    return {scheme: proxy for scheme, proxy in proxies.items() if proxy}


def _opener(proxies: dict[str, str]) -> urllib.request.OpenerDirector:
    """HTTP and HTTPS, by these proxies, and nothing else: no file, ftp or data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        _HttpsStaysHttps(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


@contextlib.contextmanager
def open_url(url: str, headers: dict[str, str], stall_seconds: float) -> Iterator[Any]:
    """Ask for `url`, which is http or https, and give the server's answer, whatever its status.

    Raises `Interrupted` when trying again may help, and `BadInput` when the connection cannot be trusted.
    """
    asked = urllib.request.Request(url, headers={"User-Agent": _AGENT, **headers})  # noqa: S310 - checked
    try:
        response = _opener(_proxies(url)).open(asked, timeout=stall_seconds)
    except urllib.error.HTTPError as error:
        response = error
    except (OSError, http.client.HTTPException) as error:
        raise _explained(error, url, stall_seconds) from error
    except ValueError as error:  # a redirect to something that is no address
        raise BadInput(f"{url}: the server redirects to an address that cannot be read ({error}).") from error
    with contextlib.closing(response):
        yield response


def read_some(response: http.client.HTTPResponse, most: int, stall_seconds: float) -> bytes:
    """At most `most` bytes: those that are there, so that a cut loses none. Raises `Interrupted`."""
    try:
        return response.read1(most)
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(_reason(error, stall_seconds)) from error


def _explained(error: Exception, url: str, stall_seconds: float) -> Exception:
    """An error before any answer: one to try again after, or one that stays."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return BadInput(
            f"{url}: the server's certificate is not trusted ({cause.verify_message}). Check this machine's clock; "
            "where the network brings its own certificates, name their file in SSL_CERT_FILE."
        )
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return BadInput(f"{url}: no secure connection can be made (TLS: {cause.reason or cause}).")
    return Interrupted(_reason(cause, stall_seconds))


def _reason(cause: object, stall_seconds: float) -> str:
    match cause:
        case TimeoutError():
            return f"nothing came for {stall_seconds:g} s"
        case socket.gaierror():
            return f"the server's name cannot be resolved ({cause.strerror})"
        case ConnectionResetError() | http.client.HTTPException() | ssl.SSLError():
            return "the connection was cut"
        case OSError() if cause.strerror:
            return cause.strerror.lower()
    return str(cause) or type(cause).__name__
