"""Configurations and prompts."""

from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from lhcq.config import ClusterConfig, GenerateConfig, SplitConfig, TrainConfig
from lhcq.frozen import Frozen
from lhcq.prompts.templates import choose_columns, describe_template, render
from lhcq.records.events import schema_of
from tests.fuzz.mutation import strange_value

_CONFIGURATIONS: tuple[type[Frozen], ...] = (ClusterConfig, SplitConfig, TrainConfig, GenerateConfig)


def make_configuration(random: Random) -> tuple[int, dict[str, Any]]:
    which = random.randrange(len(_CONFIGURATIONS))
    fields = sorted(_CONFIGURATIONS[which].model_fields)
    given = {random.choice(fields): strange_value(random) for _ in range(random.randrange(1, 4))}
    if random.random() < 0.1:
        given[str(strange_value(random))] = strange_value(random)
    return which, given


def attack_configuration(data: tuple[int, dict[str, Any]], _: Path) -> None:
    which, given = data
    _CONFIGURATIONS[which].checked(**given).model_dump_json()


def records(random: Random, features: Any, *, constituents: bool = False) -> pa.Table:
    """Four events with numbers as they come."""
    schema = schema_of(features, constituents=constituents)

    def value(field: pa.Field) -> Any:
        if field.nullable and random.random() < 0.2:
            return None
        if pa.types.is_struct(field.type):
            return {inner.name: value(inner) for inner in field.type}
        if pa.types.is_list(field.type):
            return [value(field.type.value_field) for _ in range(random.randrange(4))]
        if pa.types.is_integer(field.type):
            return random.choice((0, 1, 7, 100))
        return random.choice((0.0, -0.0, 1.5, 357.25, 1e3))

    return pa.Table.from_pylist(
        [{field.name: value(field) for field in schema} for _ in range(4)], schema=schema
    )


def make_prompts(random: Random) -> tuple[pa.Table, str, int | None]:
    table = records(random, random.choice(("jets", "full")), constituents=random.random() < 0.7)
    if random.random() < 0.5:
        table = _with_strange_floats(table, random)
    if random.random() < 0.4:
        table = table.drop_columns([random.choice([name for name in table.column_names if name != "jets"])])
    if random.random() < 0.1:
        table = table.slice(0, 0)
    name = random.choice(("compact", "particles", "diary", str(strange_value(random))))
    return table, name, random.choice((None, None, 1, 2, 3, -1, 10**30))


def _with_strange_floats(table: pa.Table, random: Random) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            strange = [
                random.choice((float("nan"), float("inf"), -1e308, 1e19, 5e-324)) for _ in range(len(table))
            ]
            table = table.set_column(index, field, pa.array(strange))
    return table


def attack_prompts(data: tuple[pa.Table, str, int | None], _: Path) -> None:
    table, name, version = data
    choose_columns(name, table.schema, version=version)
    describe_template(name, table.schema, version=version)
    prompts = render(name, table, version=version)
    assert len(prompts) == len(table)
