"""The words of a page, and pages without pictures."""

import contextlib
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest


class PageReader(HTMLParser):
    """The text of a page, and every address that it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in {"src", "srcset", "href", "data", "poster"}
        ]

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """Pages have empty pictures, where words are read alone: nine pictures take four seconds of a core to draw."""
    from lhcq.report.style import Plot

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plot, "svg", lambda _: "<svg/>")
        yield
