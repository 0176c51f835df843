"""Configuration: presets as published, and every fault in one line."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError, model_validator

from lhcq.config import (
    CLUSTER_PRESETS,
    TRAIN_PRESETS,
    ClusterConfig,
    GenerateConfig,
    SplitConfig,
    TrainConfig,
    check_name,
    on_cluster_preset,
    template_without_mass,
)
from lhcq.environment import Settings
from lhcq.errors import BadInput
from lhcq.frozen import Frozen


def test_every_fault_comes_in_one_line_with_its_field() -> None:
    with pytest.raises(BadInput) as caught:
        TrainConfig.checked(rank=0, dropout=1.5, epochs=-1, schedule="linear", colour="red", seed="x")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("TrainConfig: ")
    for field in ("rank", "dropout", "epochs", "schedule", "colour", "seed"):
        assert re.search(rf"[:;] {field} (should be|is no value that there is)", message)
    assert "learning_rate" not in message
    assert "Input" not in message


def test_what_a_class_says_of_several_values_is_the_whole_sentence() -> None:
    with pytest.raises(BadInput) as caught:
        ReversedRange.checked(low=2, high=1)
    assert str(caught.value) == "low is above high."
    with pytest.raises(BadInput) as caught:
        ReversedRange.checked(low=2)
    assert str(caught.value) == "ReversedRange: high is missing."


class ReversedRange(Frozen):
    low: int
    high: int

    @model_validator(mode="after")
    def _in_order(self) -> "ReversedRange":
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


FAULTS: list[tuple[type[Frozen], dict[str, Any], str]] = [
    (GenerateConfig, {"background": -1, "signal": 1}, "background"),
    (GenerateConfig, {"background": 1}, "signal"),
    (GenerateConfig, {"background": 1, "signal": 1, "seed": 2**31}, "seed"),
    (ClusterConfig, {"radius": 0.0}, "radius"),
    (ClusterConfig, {"radius": 3.5}, "radius"),
    (ClusterConfig, {"radius": math.nan}, "radius"),
    (ClusterConfig, {"pt_min": -1.0}, "pt_min"),
    (ClusterConfig, {"pt_min": math.inf}, "pt_min"),
    (ClusterConfig, {"max_jets": 0}, "max_jets"),
    (ClusterConfig, {"algorithm": "cone"}, "algorithm"),
    (SplitConfig, {"ratio": "2:1"}, "'2:1' is neither 'natural' nor '1:K'"),
    (SplitConfig, {"ratio": "1:0"}, "ratio"),
    (SplitConfig, {"ratio": "1:01"}, "ratio"),
    (SplitConfig, {"ratio": "1:9999999"}, "ratio"),
    (SplitConfig, {"ratio": "1:1\n"}, "ratio"),
    (SplitConfig, {"template": "prose"}, "template"),
    (SplitConfig, {"limit": 19}, "limit"),
    (TrainConfig, {"rank": 1.5}, "rank"),
    (TrainConfig, {"alpha": math.inf}, "alpha"),
    (TrainConfig, {"dropout": 1.0}, "dropout"),
    (TrainConfig, {"learning_rate": 0.0}, "learning_rate"),
    (TrainConfig, {"learning_rate": math.nan}, "learning_rate"),
    (TrainConfig, {"epochs": math.inf}, "epochs"),
    (TrainConfig, {"warmup_fraction": 1.0}, "warmup_fraction"),
    (TrainConfig, {"checkpoint_every": 0}, "checkpoint_every"),
    (TrainConfig, {"max_tokens": 7}, "max_tokens"),
    (TrainConfig, {"max_grad_norm": 0.0}, "max_grad_norm"),
]


@pytest.mark.parametrize(("kind", "values", "named"), FAULTS)
def test_a_value_that_cannot_work_is_refused(kind: type[Frozen], values: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput) as caught:
        kind.checked(**values)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ClusterConfig().radius = 0.5  # type: ignore[misc]


@pytest.mark.parametrize("preset", [*CLUSTER_PRESETS.values(), *TRAIN_PRESETS.values(), SplitConfig()])
def test_a_stored_configuration_comes_back_the_same(preset: Frozen) -> None:
    assert type(preset).model_validate_json(preset.model_dump_json()) == preset


def test_the_cluster_presets_are_the_published_definitions() -> None:
    lhco = CLUSTER_PRESETS["lhco"]
    jets = {"algorithm": "antikt", "radius": 1.0, "pt_min": 20.0, "max_jets": 2}
    assert lhco == ClusterConfig(**jets, features="full", axes="wta-kt")
    diary = CLUSTER_PRESETS["diary"]
    assert (diary.algorithm, diary.radius, diary.pt_min, diary.max_jets) == ("antikt", 0.5, 1200.0, None)


@pytest.mark.parametrize("preset", CLUSTER_PRESETS)
def test_whoever_asks_a_preset_for_substructure_gets_the_axes_that_all_datasets_have(preset: str) -> None:
    full = ClusterConfig(**on_cluster_preset(preset, {"features": "full"}))
    assert full.axes == "wta-kt"
    assert ClusterConfig(**on_cluster_preset(preset, {"features": "full", "axes": "kt"})).axes == "kt"


@pytest.mark.parametrize("preset", CLUSTER_PRESETS)
def test_a_clustering_without_substructure_names_no_axes_and_is_the_one_of_before(preset: str) -> None:
    before = {"algorithm", "radius", "pt_min", "max_jets", "features"}
    jets = ClusterConfig(**on_cluster_preset(preset, {"features": "jets"}))
    assert set(jets.model_dump()) == before
    assert ClusterConfig(**on_cluster_preset(preset, {"features": "jets", "axes": "kt"})) == jets
    with pytest.raises(BadInput, match="axes onepass-kt are of N-subjettiness, which features jets has not"):
        on_cluster_preset(preset, {"features": "jets", "axes": "onepass-kt"})


def test_the_diary_trains_as_the_study_did() -> None:
    diary = TRAIN_PRESETS["diary"]
    assert (diary.rank, diary.alpha, diary.dropout) == (12, 48.0, 0.15)
    assert (diary.learning_rate, diary.accumulation, diary.checkpoint_every) == (3e-5, 16, 100)
    assert diary.target == "query-value"


def test_the_default_training_takes_all_linear_layers_and_its_rate_from_the_model() -> None:
    default = TRAIN_PRESETS["default"]
    assert (default.target, default.learning_rate, default.class_weighted) == ("all-linear", None, True)
    # The model's own defaults are those of runs of before there was a term of answers.
    assert default == TrainConfig(answer_weight=None)


def test_a_template_without_a_mass_is_asked_for_by_its_name_or_by_that_of_the_other() -> None:
    assert template_without_mass("compact") == template_without_mass("compact-without-mass")
    assert SplitConfig(template=template_without_mass("wide")).template == "wide-without-mass"  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="four-momenta, which determine m_jj: take compact or wide"):
        template_without_mass("diary")


def test_a_ratio_gives_its_number_of_background_events() -> None:
    assert SplitConfig().background_per_signal == 1
    assert SplitConfig(ratio="1:20").background_per_signal == 20
    assert SplitConfig(ratio="natural").background_per_signal is None


@pytest.mark.parametrize("name", ["a", "A.b_c-1", "9", "x" * 64])
def test_a_plain_name_is_given_back(name: str) -> None:
    assert check_name(name, what="run") == name


def test_the_settings_are_the_environments_or_the_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (None, ""):
        for name in ("LHCQ_WORKSPACE", "LHCQ_BROKER_URL"):
            monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
        settings = Settings.from_environment()
        assert settings == Settings(workspace=tmp_path / "lhcq-workspace", broker_url=None)
    monkeypatch.setenv("LHCQ_WORKSPACE", "elsewhere")
    monkeypatch.setenv("LHCQ_BROKER_URL", "redis://host/1")
    settings = Settings.from_environment()
    assert settings == Settings(workspace=tmp_path / "elsewhere", broker_url="redis://host:6379/1")
