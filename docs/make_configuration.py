"""Makes `docs/configuration.md` of the models in `lhcq.config`: python docs/make_configuration.py, or `make docs`."""

import ast
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from lhcq import config
from lhcq.frozen import Frozen

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "configuration.md"

_HEAD = """# Configuration

Made from the code by `make docs`. What a stage can be told, under the names that recipes ([recipes.md](recipes.md))
and the functions of [the Python interface](api.md) have; most are options of [the commands](commands.md), with `-`
for `_`. Every fault of a configuration is told in one message, and what a run was made with stands in its record and
its recipe. What lhcq reads of the environment is a table of its own ([deploy](../deploy/README.md)).
"""

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_KINDS = {int: "whole number", float: "number", str: "text", bool: "`True` or `False`", NoneType: "`None`"}


class Section(NamedTuple):
    """A chapter of the page."""

    title: str
    model: type[Frozen]
    presets: Mapping[str, Frozen] = {}


SECTIONS = (
    Section("generate", config.GenerateConfig),
    Section("cluster", config.ClusterConfig, config.CLUSTER_PRESETS),
    Section("prepare", config.SplitConfig),
    Section("train", config.TrainConfig, config.TRAIN_PRESETS),
    Section("search", config.SearchConfig),
    Section("search --scan", config.ScanConfig),
)


def configuration_page() -> str:
    """The text of `docs/configuration.md`."""
    tree = ast.parse((ROOT / "lhcq/config.py").read_text("utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return "\n".join([_HEAD, *(line for one in SECTIONS for line in _lines(one, classes))])


def _lines(section: Section, classes: Mapping[str, ast.ClassDef]) -> Iterator[str]:
    presets = section.presets or {"default": None}
    yield f"## {section.title}\n"
    yield f"{ast.get_docstring(classes[section.model.__name__]) or ''}\n"
    yield f"| value | {' | '.join(presets)} | |"
    yield f"| --- | {' | '.join('---' for _ in presets)} | --- |"
    said = dict(_said(section.model, classes))
    for name, field in section.model.model_fields.items():
        values = [field.default if one is None else getattr(one, name) for one in presets.values()]
        bounds = [f"{_BOUNDS[word]} {bound:,}" for one in field.metadata for word, bound in _bounds(one)]
        kind = "; ".join([_kind(field.annotation), *bounds])
        yield f"| `{name}` | {' | '.join(map(_value, values))} | {kind}. {said[name]}".rstrip() + " |"
    yield ""


def _said(model: type[Frozen], classes: Mapping[str, ast.ClassDef]) -> Iterator[tuple[str, str]]:
    """What is said of each field, in the string that follows it; those of the bases first."""
    for base in reversed(model.__mro__):
        body = classes[base.__name__].body if base.__name__ in classes else []
        for node, after in pairwise([*body, ast.Pass()]):
            if isinstance(node, ast.AnnAssign):
                told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                yield ast.unparse(node.target), " ".join(str(after.value.value).split()) if told else ""


def _kind(annotation: Any) -> str:
    """What a value may be, in words; of a choice the words themselves."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{one}`" for one in parts)
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_kind(one) for one in parts)
    if get_origin(annotation) is dict:
        return f"{_kind(parts[0])} to {_kind(parts[1])}"
    if get_origin(annotation) is tuple:
        return f"several, each a {_kind(parts[0])}"
    return _KINDS[annotation]


def _bounds(of_field: object) -> Iterator[tuple[str, float]]:
    return ((word, getattr(of_field, word)) for word in _BOUNDS if hasattr(of_field, word))


def _value(value: object) -> str:
    return "has to be given" if value is PydanticUndefined else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(configuration_page(), "utf-8")
