"""Makes `docs/api.md` from the docstrings of the Python interface: python docs/make_api.py, or `make docs`.

Modules are parsed, never imported: the page is the same wherever it is made.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "api.md"

_WIDTH = 100  # characters of a signature in one line
_HEAD = """# The Python interface

Made from the docstrings by `make docs`. These names and errors, the commands with their `--json`, and the files of a
workspace are what lhcq promises to keep; `tasks` and the other modules of `lhcq` may change at any time.
[examples/](../examples) has programs that run; the words are those of [glossary.md](glossary.md).
"""


class Section(NamedTuple):
    """A chapter of the page."""

    title: str
    module: str
    """Path from the root."""
    classes: tuple[str, ...] | None = None
    """The classes that it is about; None: all that the module has, and its functions."""
    intro: str = ""
    """In place of the module's own docstring, where it is about some of its classes alone."""
    without: tuple[str, ...] = ()
    """Fields and methods that are nobody's business outside."""


SECTIONS = (
    Section("What you call", "lhcq/api.py"),
    Section("A job that workers do", "lhcq/submission.py", ("Job", "Status"), "What `submit` gives."),
    Section("What you get", "lhcq/results.py"),
    Section(
        "Metrics",
        "lhcq/records/metrics.py",
        ("Metrics", "Confusion"),
        "What `lhcq.metrics`, `Run.test` and `Run.validations` give.",
    ),
    Section("Scores", "lhcq/records/scores.py", ("Scores",), "What `Run.predict` gives."),
    Section(
        "A planned job",
        "lhcq/records/jobs.py",
        ("Job",),
        "What the `plan_` functions give and `submit` takes; `Record` in the signatures above.",
        without=("created", "trace", "spec_of", "terms_of"),
    ),
    Section(
        "Progress",
        "tasks/jobs/progress.py",
        ("Progress",),
        "What `progress=` functions are told, and `Status` holds.",
    ),
    Section("Errors", "lhcq/errors.py"),
)


def api_page() -> str:
    """The text of `docs/api.md`."""
    return "\n".join([_HEAD, *(block for section in SECTIONS for block in _blocks(section))])


def exported() -> list[str]:
    """The names that `lhcq` itself has of `lhcq.api`."""
    for node in _parse("lhcq/__init__.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise LookupError("lhcq/__init__.py has no __all__")


def _parse(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text("utf-8"))


def _blocks(section: Section) -> Iterator[str]:
    tree = _parse(section.module)
    yield f"## {section.title}\n"
    yield (section.intro or _indented_as_code(ast.get_docstring(tree) or "")) + "\n"
    room = section.module.removesuffix(".py").replace("/", ".")
    short = set(exported()) if room == "lhcq.api" else set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and section.classes is None and _is_public(node.name):
            yield from _function(node, "lhcq" if node.name in short else room)
        elif isinstance(node, ast.ClassDef) and _is_wanted(node.name, section.classes):
            yield from _class(node, room, section.without)


def _function(node: ast.FunctionDef, room: str) -> Iterator[str]:
    yield f"### `{room}.{node.name}`\n"
    yield f"```\n{_signature(node)}\n```\n"
    yield f"{ast.get_docstring(node) or ''}\n"


def _class(node: ast.ClassDef, room: str, without: tuple[str, ...]) -> Iterator[str]:
    bases = ", ".join(map(ast.unparse, node.bases))
    yield f"### `{room}.{node.name}`" + (f" ({bases})" if bases and bases not in _PLAIN else "") + "\n"
    yield f"{ast.get_docstring(node) or ''}\n"
    lines = [_item(signature, text) for signature, text in _members(node, without)]
    if lines:
        yield "\n".join(lines) + "\n"


_PLAIN = {"Frozen", "Grown", "NamedTuple", "Exception"}
"""Bases that say nothing to who uses a class."""


def _members(node: ast.ClassDef, without: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Public fields, properties and methods, each with what is said of it."""
    for at, member in enumerate(node.body):
        if isinstance(member, ast.AnnAssign):
            name = ast.unparse(member.target)
            of_class = ast.unparse(member.annotation).startswith("ClassVar")  # how a record is written
            if _is_public(name) and name not in without and not of_class:
                yield f"{name}: {_unquoted(ast.unparse(member.annotation))}", _text_after(node.body, at)
        elif isinstance(member, ast.FunctionDef) and member.name not in without:
            decorators = {ast.unparse(one) for one in member.decorator_list}
            if "classmethod" in decorators or not (_is_public(member.name) or member.name == "__len__"):
                continue
            text = ast.get_docstring(member) or ""
            if decorators & {"property", "cached_property"} and member.returns is not None:
                yield f"{member.name}: {_unquoted(ast.unparse(member.returns))}", text
            else:
                yield _signature(member, oneline=True), text


def _text_after(body: list[ast.stmt], at: int) -> str:
    """The string that follows a field."""
    after = body[at + 1] if at + 1 < len(body) else None
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
        return textwrap.dedent(str(after.value.value))
    return ""


def _item(signature: str, text: str) -> str:
    paragraphs = [" ".join(one.split()) for one in text.split("\n\n") if one.strip()]
    # Four spaces, which every Markdown takes for a part of the item.
    return "\n\n    ".join(
        [f"- `{signature}`" + (f"  \n    {paragraphs[0]}" if paragraphs else ""), *paragraphs[1:]]
    )


def _signature(node: ast.FunctionDef, *, oneline: bool = False) -> str:
    """As it is called: types without quotes, a method without `self`."""
    returns = f" -> {_unquoted(ast.unparse(node.returns))}" if node.returns else ""
    named = [one for one in _arguments(node.args) if one != "self"]
    whole = f"{node.name}({', '.join(named)}){returns}"
    if oneline or len(whole) <= _WIDTH:
        return whole
    return f"{node.name}(\n" + "".join(f"    {one},\n" for one in named) + f"){returns}"


def _arguments(given: ast.arguments) -> list[str]:
    """One text an argument."""
    without_default = [None] * (len(given.args) - len(given.defaults))
    positional = zip(given.args, [*without_default, *given.defaults], strict=True)
    by_name = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return [
        *(_argument(argument, default) for argument, default in positional),
        *(["*"] if given.kwonlyargs else []),
        *(_argument(argument, default) for argument, default in by_name),
        *([f"**{_argument(given.kwarg, None)}"] if given.kwarg else []),
    ]


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    kind = f": {_unquoted(ast.unparse(argument.annotation))}" if argument.annotation else ""
    return argument.arg + kind + (f" = {ast.unparse(default)}" if default else "")


def _unquoted(text: str) -> str:
    """Types that stand in quotes, since they are loaded late, without them."""
    return text.replace("'", "")


def _is_wanted(name: str, classes: tuple[str, ...] | None) -> bool:
    return name in classes if classes else _is_public(name)


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _indented_as_code(text: str) -> str:
    """A docstring's indented lines as a block of Python."""
    return re.sub(
        r"(?:^ {4}.*\n(?:\n(?= {4}))?)+",
        lambda found: f"```python\n{textwrap.dedent(found[0])}```\n",
        text + "\n",
        flags=re.M,
    ).rstrip("\n")


if __name__ == "__main__":
    PAGE.write_text(api_page(), "utf-8")
