"""How long a training takes is known beforehand, to a factor of two, where it was measured."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lhcq.config import TrainConfig
from lhcq.model import duration
from lhcq.model.duration import Pace, Shape, pace_here, pace_of_gpu, shape_of, step_seconds
from tests.deployed import ROOT

SMOLLM2, MISTRAL = Shape(106_202_880, 30, 576), Shape(6_979_588_096, 32, 4096)
MEASURED = [
    ("135M compact: training", SMOLLM2, 20.465, 1024),
    ("135M compact: training, batch 8", SMOLLM2, 20.465, 8),
    ("135M compact: training, batch 128", SMOLLM2, 20.465, 128),
    ("7B diary, all linear: training", MISTRAL, 176.89, 75),
]


@pytest.mark.parametrize(("figure", "shape", "tokens", "prompts"), MEASURED)
def test_the_rates_of_the_benchmark_are_met(figure: str, shape: Shape, tokens: float, prompts: int) -> None:
    found = json.loads((ROOT / "benchmarks/results/gpu.json").read_text())
    (measured,) = [row["value"] for row in found["rows"] if row["figure"] == figure]
    pace = pace_of_gpu(found["machine"]["device"])
    assert pace is not None
    assert prompts / pace.training(shape, prompts * tokens) == pytest.approx(measured, rel=0.4)


def test_a_gpu_that_is_not_known_has_no_pace() -> None:
    assert pace_of_gpu("Graphics of the year 2035") is None
    assert pace_of_gpu("NVIDIA A100-SXM4-80GB") is not None


def test_the_shape_of_a_model_is_read_off_its_files(smollm2: Path, few_layers: Path) -> None:
    assert shape_of(smollm2) == SMOLLM2
    assert shape_of(few_layers) == Shape(SMOLLM2.weights * 4 // 30, 4, 576)


def test_a_step_takes_as_long_as_its_prompts_and_passes(smollm2: Path) -> None:
    pace, config = Pace(1e11), TrainConfig(batch_size=8)
    once = step_seconds(smollm2, config, 20, pace)
    assert step_seconds(smollm2, config, 40, pace) == pytest.approx(2 * once)
    assert step_seconds(smollm2, TrainConfig(batch_size=8, accumulation=3), 20, pace) == pytest.approx(
        3 * once
    )
    assert once == pytest.approx(6 * SMOLLM2.weights * 160 / 1e11)


def test_this_machine_has_a_pace_where_it_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lhcq.model.duration.gpus_here", list)
    pace_here.cache_clear()
    pace = pace_here()
    pace_here.cache_clear()
    assert pace is not None
    assert pace.products > 1e8


def test_a_machine_that_lets_others_go_first_has_the_pace_that_it_has_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = duration._measured_rate()
    product = np.dot

    def after_others(one: Any, other: Any) -> Any:
        time.sleep(0.05)  # a hundred times what the product takes
        return product(one, other)

    monkeypatch.setattr(duration.np, "dot", after_others)
    monkeypatch.setattr(duration, "_PROBE_SECONDS", 0.01)
    assert alone / 5 < duration._measured_rate() < 5 * alone
