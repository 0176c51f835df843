"""A run knows its base: the same weights however they are stored, and no others."""

import json
import os
import shutil
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lhcq.config import TrainConfig
from lhcq.errors import BadInput
from lhcq.model import identity, model_cache
from lhcq.model.base import load_base
from lhcq.model.checkpoint import write_checkpoint
from lhcq.model.identity import identify, require_same
from lhcq.model.library_output import quiet_transformers
from lhcq.model.loop import train_segment
from lhcq.model.score import score_prompts
from tests.tiny_models import build_model, write_model, write_tokenizer

CONFIG = TrainConfig(learning_rate=1e-2, batch_size=2, dropout=0.0)


@pytest.fixture
def llama(tmp_path):
    return write_model(tmp_path / "llama")


@pytest.fixture
def resident_alone(monkeypatch):
    """Whatever this process had loaded, it has again afterwards."""
    monkeypatch.setattr(model_cache, "_resident", None)


def touch_one_weight(directory):
    """Another number in the same place: same size, same time of change."""
    path = directory / "model.safetensors"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )


def age(directory, monkeypatch):
    """Let the files be old enough to be remembered."""
    later = time.time() + 60
    monkeypatch.setattr(identity.time, "time", lambda: later)


def test_the_same_weights_in_shards_or_another_order_are_the_same(llama, tmp_path):
    with quiet_transformers():
        build_model("llama").save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    write_tokenizer(tmp_path / "shards")
    backwards = shutil.copytree(llama, tmp_path / "backwards")
    weights = load_file(llama / "model.safetensors")
    save_file(dict(reversed(weights.items())), backwards / "model.safetensors", metadata={"saved": "later"})
    assert identify(tmp_path / "shards") == identify(backwards) == identify(llama)


def test_other_weights_another_configuration_and_another_tokenizer_are_told_apart(llama, tmp_path):
    first = identify(llama)
    for part, change in {
        "weights": touch_one_weight,
        "configuration": lambda directory: (directory / "config.json").write_text(
            (directory / "config.json").read_text().replace("10000.0", "50000.0")
        ),
        "tokenizer": lambda directory: write_tokenizer(directory, before="<s>"),
    }.items():
        copy = shutil.copytree(llama, tmp_path / part)
        change(copy)
        with pytest.raises(
            BadInput, match=f"the base model's {part} changed since the run began .* Put back"
        ):
            require_same(first.model_dump(), identify(copy), copy)
    require_same(None, first, llama)  # an older run's record
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(
        json.dumps({**config, "transformers_version": "9", "dtype": "bfloat16"})
    )
    assert identify(llama) == first


def test_a_file_is_read_once_and_again_when_it_changes(llama, tmp_path, monkeypatch):
    read = []
    digest = identity._digest
    monkeypatch.setattr(identity, "_digest", lambda path: read.append(path) or digest(path))
    monkeypatch.setattr(identity, "_read", {})
    age(llama, monkeypatch)
    cache = tmp_path / "cache"
    first = identify(llama, cache)
    assert identify(llama, cache) == first
    identity._read.clear()  # another process
    assert identify(llama, cache) == first
    assert len(read) == 1
    touch_one_weight(llama)
    assert identify(llama, cache) != first
    for entry in cache.iterdir():  # in whatever order: of the weights, and of the tokenizer
        entry.write_text("{")
    identity._read.clear()
    assert identify(llama, cache) != first
    assert len(read) == 3


def test_a_file_that_has_just_changed_is_not_remembered(llama, tmp_path):
    identify(llama, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("resident_alone")
def test_a_worker_that_has_the_old_weights_in_memory_notices_new_ones(llama):
    base = model_cache.resident_base(llama)
    recorded = base.identity
    assert model_cache.resident_base(llama, recorded=recorded) is base
    touch_one_weight(llama)
    assert model_cache.resident_base(llama) is not base
    with pytest.raises(BadInput, match="the base model's weights changed"):
        model_cache.resident_base(llama, recorded=recorded)


def test_a_checkpoint_is_not_loaded_onto_another_base(llama, tmp_path):
    base = load_base(llama)
    many = 2 * CONFIG.batch_size
    run = {
        "prompts": ["1:"] * many,
        "labels": np.arange(many) % 2,
        "config": CONFIG,
        "on_step": lambda _: True,
    }
    state = train_segment(base, **run, checkpoint=None, until_step=1)
    write_checkpoint(tmp_path / "1", state, config_hash="c")
    assert json.loads((tmp_path / "1" / "manifest.json").read_text())["base"] == base.identity.model_dump()
    other = load_base(write_model(tmp_path / "other", seed=2))
    asked = {"checkpoint": tmp_path / "1", "config": CONFIG, "prompts": ["1:"], "batch_size": 1}
    with pytest.raises(BadInput, match="the base model's weights changed"):
        score_prompts(other, **asked)
    with pytest.raises(BadInput, match="the base model's weights changed"):
        train_segment(other, **run, checkpoint=tmp_path / "1", until_step=2)
    assert torch.isfinite(torch.tensor(score_prompts(base, **asked).p_signal)).all()
