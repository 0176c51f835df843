"""Asking a Flower that runs."""

import base64
import urllib.error
import urllib.request

# Straight to Flower, whatever proxy the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str, login: str | None = None, data: bytes | None = None) -> tuple[int, str]:
    """Status and body of a page."""
    request = urllib.request.Request(url, data)  # noqa: S310
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    try:
        with _OPENER.open(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
