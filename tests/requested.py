"""What jobs are asked for of: events, a dataset, a split, a model."""

import json
import math
from pathlib import Path
from typing import Any

from lhcq.config import TrainConfig
from lhcq.requests.train import TrainRequest, train_request
from lhcq.workspace import Workspace
from tests.tiny_models import write_tokenizer

N_SOURCE, N_RECORDS = 40, 44


SUBSETS = ("train", "validation", "calibration", "test")


TRAINING = TrainConfig(max_steps=2, rank=4)


def write_weights(directory: Path, n_weights: int) -> Path:
    """A model as far as a request looks at one: so many weights of half a bit each, in a file with a hole."""
    write_tokenizer(directory)
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    size = math.ceil(n_weights / 8)
    entry = {"dtype": "U8", "shape": [n_weights], "data_offsets": [0, size]}
    header = json.dumps({"weight": entry}).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return directory


def ask_training(place: Workspace, model: Path, config: TrainConfig = TRAINING, **rest: Any) -> TrainRequest:
    return train_request(place, "split", "run", config, model="tiny", model_dir=model, **rest)
