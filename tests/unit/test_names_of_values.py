"""What differs between two requests is told in the words that a person gave them in."""

import re

import click
import pytest

from lhcq.cli.main import cli
from lhcq.config import TrainConfig
from lhcq.records.specs import OF_RECIPES, SPECS, PredictSpec
from tests.specs import job_of, spec_of

VERBS = {"scan": "search"}


def options_of(kind: str) -> dict[str, str]:
    """Of the verb that asks for such a job: the field that each option gives, and how it is spelled."""
    context = click.Context(cli)
    verb = cli.get_command(context, VERBS.get(kind, kind))
    assert verb is not None
    return {one.name or "": one.opts[0] for one in verb.get_params(context) if isinstance(one, click.Option)}


@pytest.mark.parametrize("kind", SPECS)
def test_a_value_is_told_by_the_option_that_gives_it(kind: str) -> None:
    model, options = SPECS[kind], options_of(kind)
    config = model.model_fields.get("config")
    inner = getattr(config.annotation, "model_fields", {}) if config and kind != "predict" else {}
    places = {name: name for name in model.model_fields} | {f"config.{name}": name for name in inner}
    tuned = TrainConfig.model_fields if "tuning" in model.model_fields else {}
    for place, name in places.items():
        spelled, words = options.get(name), model.called(place)
        if place.startswith("config.") or (spelled and spelled != f"--{name.replace('_', '-')}"):
            assert words == name if name in OF_RECIPES else "--" in words, place
            assert spelled is None or spelled in words, place
            assert set(re.findall(r"--[a-z-]+", words)) <= set(options.values()), words
    for name in tuned:
        named = re.findall(r"--[a-z-]+", model.called(f"tuning.config.{name}"))
        assert set(named) <= set(options.values()), named
        assert name not in ("epochs", "max_steps", "batch_size", "learning_rate", "accumulation") or named, (
            name
        )
    assert set(model.asked_as) <= places.keys() | {f"tuning.config.{name}" for name in tuned}


def test_what_follows_from_another_value_that_differs_is_not_told() -> None:
    one = job_of("train", "own").spec
    other = spec_of("train", rank=8, config_sha256="1" * 64, total_steps=20, checkpoint_steps=[20])
    assert other.differences(one) == ["--rank 8, was 16"]
    steps = one.model_copy(update={"total_steps": 20})  # as another version may plan them
    assert steps.differences(one) == ["total_steps 20, was 10"]


@pytest.mark.parametrize("kind", SPECS)
def test_what_follows_is_no_value_that_an_option_gives(kind: str) -> None:
    model, options = SPECS[kind], options_of(kind)
    assert set(model.follows) <= set(model.model_fields)
    assert {name for names in model.follows.values() for name in names} <= set(model.model_fields)
    assert not {name for name in model.follows if name in options and name not in ("config", "preset")}


def test_a_selection_that_differs_is_told_as_it_was_asked_for() -> None:
    one = job_of("predict", "own").spec_of(PredictSpec)
    other = one.model_copy(update={"largest_p_value": 0.5})
    assert other.differences(one) == [f"--select 0.5, was {one.largest_p_value}"]
