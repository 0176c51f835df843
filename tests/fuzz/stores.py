"""Datasets and model directories."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from random import Random

import pyarrow as pa

from lhcq.config import SplitConfig, TrainConfig
from lhcq.jets.merge import merge_parts
from lhcq.jets.parts import write_part
from lhcq.manifests import read_manifest, verify_files, write_manifest
from lhcq.model.labels import label_ids
from lhcq.model.preflight import estimate_needs
from lhcq.model.sources import check_model_directory
from lhcq.model.tokens import encode_prompts
from lhcq.model.weights import count_parameters
from lhcq.prompts.writing import write_split
from lhcq.records.events import events_writer
from tests.fuzz.prompts import records
from tests.fuzz.spoilt import Files, lay_out, refused, seal_again, spoil_one
from tests.made_chunks import told_apart

PART = "000000.arrows"


@functools.cache
def dataset_seed() -> Files:
    """A small dataset with its manifest, and a part."""
    with tempfile.TemporaryDirectory() as root:
        directory = Path(root) / "dataset"
        directory.mkdir()
        events = pa.concat_tables([records(Random(index), "full") for index in range(30)])
        rows, labels = pa.array(range(len(events))), pa.array([n % 2 for n in range(len(events))], pa.int8())
        events = events.set_column(0, events.schema.field(0), rows).set_column(
            1, events.schema.field(1), labels
        )
        write_part(directory / PART, [told_apart(events)], {"cpu": "any"})
        with events_writer(directory, events.schema) as writer:
            writer.write_table(events)
        write_manifest(directory, source_sha256="0" * 64, rows=len(events), labels={"signal": 1}, gaps=[])
        return {path.name: path.read_bytes() for path in directory.iterdir()}


def make_dataset(random: Random) -> tuple[str, bytes]:
    return spoil_one(dataset_seed(), random)


def attack_dataset(data: tuple[str, bytes], place: Path) -> None:
    """A manifest, the files that it names, and events that are made prompts or merged."""
    directory, final = place / "dataset", place / "split"
    shutil.rmtree(final, ignore_errors=True)
    shutil.rmtree(place / "merged", ignore_errors=True)
    lay_out(dataset_seed(), data, directory)
    with refused():
        verify_files(directory, read_manifest(directory, what="dataset", remedy="Make it."))
    with refused():
        write_split(directory, final, config=SplitConfig(limit=40))
    seal_again(directory / PART)
    merge_parts([directory / PART], place / "merged", n_events=120, manifest_fields={}, features="full")


@functools.cache
def model_seed() -> Files:
    """A model directory without a model to speak of."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    words = ["1", "2", "3", ":", "background", "signal", "[UNK]"]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": 6, "content": "[UNK]", "special": True, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False}
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: n for n, word in enumerate(words)}, "unk_token": "[UNK]"},
    }  # fmt: skip
    shape = {"hidden_size": 2, "num_hidden_layers": 1, "vocab_size": 7, "intermediate_size": 2}
    heads = {"num_attention_heads": 1, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return {
        "config.json": json.dumps({"model_type": "llama", **shape, **heads}).encode(),
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(16),
        "model.safetensors.index.json": json.dumps({"weight_map": {"w": "model.safetensors"}}).encode(),
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "tokenizer_config.json": json.dumps(
            {"bos_token": {"content": "[UNK]"}, "add_bos_token": False}
        ).encode(),
    }


def make_model(random: Random) -> tuple[str, bytes]:
    return spoil_one(model_seed(), random)


def attack_model(data: tuple[str, bytes], place: Path) -> None:
    directory = place / "model"
    lay_out(model_seed(), data, directory)
    with refused():
        check_model_directory(directory)
    with refused():
        count_parameters(directory)
    with refused():
        estimate_needs(directory, TrainConfig(), longest=20, bfloat16=False)
    label_ids(encode_prompts(directory), "1 2 3:")
