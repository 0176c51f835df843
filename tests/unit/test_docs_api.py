"""docs/api.md is what the docstrings of the Python interface say, and leaves none of it out."""

import inspect
import re
from types import ModuleType
from typing import Any

import pytest

import lhcq
from docs.make_api import PAGE, api_page, exported
from lhcq import api, errors, results
from lhcq.records.metrics import Metrics
from lhcq.records.scores import Scores
from tasks.jobs.progress import Progress

HEADINGS = set(re.findall(r"(?m)^### `([\w.]+)`", PAGE.read_text("utf-8")))


def public(module: ModuleType) -> dict[str, Any]:
    """The functions and classes that a module defines for others."""
    return {
        name: one
        for name, one in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(one) or inspect.isclass(one))
        and one.__module__ == module.__name__
    }


def test_the_page_is_what_the_docstrings_give() -> None:
    assert PAGE.read_text("utf-8") == api_page(), "make it again: make docs"


def test_every_name_of_lhcq_is_on_the_page_under_that_name() -> None:
    assert exported() == lhcq.__all__
    assert {f"lhcq.{name}" for name in lhcq.__all__} <= HEADINGS


@pytest.mark.parametrize("module", [api, results, errors], ids=lambda module: module.__name__)
def test_all_that_the_interface_has_is_on_the_page(module: ModuleType) -> None:
    said = {heading.rpartition(".")[2] for heading in HEADINGS if heading.startswith("lhcq.")}
    assert set(public(module)) <= said


@pytest.mark.parametrize(
    "kind",
    [*(one for one in (*public(api).values(), *public(results).values()) if inspect.isclass(one))],
    ids=lambda kind: str(kind.__name__),
)
def test_every_public_member_of_a_result_says_what_it_is(kind: type) -> None:
    silent = [
        name
        for name, one in vars(kind).items()
        if not name.startswith("_")
        and (callable(one) or isinstance(one, property) or hasattr(one, "func"))
        and not inspect.getdoc(one)
    ]
    assert silent == []


def test_what_is_nobodys_business_outside_is_not_on_the_page() -> None:
    assert [heading for heading in HEADINGS if heading.rpartition(".")[2].startswith("_")] == []
    assert "ClassVar" not in PAGE.read_text("utf-8")


@pytest.mark.parametrize("kind", [Metrics, Scores, Progress])
def test_what_the_interface_gives_is_on_the_page_field_by_field(kind: type) -> None:
    page = PAGE.read_text("utf-8")
    _, _, rest = page.partition(f"{kind.__module__}.{kind.__name__}`")
    section = re.split(r"(?m)^##", rest)[0]
    for name in inspect.get_annotations(kind):
        assert f"- `{name}: " in section


def test_a_docstring_that_changes_changes_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from docs import make_api

    for section in make_api.SECTIONS:
        (tmp_path / section.module).parent.mkdir(parents=True, exist_ok=True)
        text = (make_api.ROOT / section.module).read_text("utf-8")
        (tmp_path / section.module).write_text(text.replace("P(signal) of each event", "P of each"), "utf-8")
    (tmp_path / "lhcq/__init__.py").write_text((make_api.ROOT / "lhcq/__init__.py").read_text("utf-8"))
    monkeypatch.setattr(make_api, "ROOT", tmp_path)
    assert make_api.api_page() != PAGE.read_text("utf-8")
