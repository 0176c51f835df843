"""A malicious HDF5 file or model directory: other files, bombs, and programs in disguise."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lhcq.errors import BadInput
from lhcq.events.featurefile import OF_JETS, open_feature_file
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import open_event_file
from lhcq.events.pytables import write_frame
from lhcq.model.sources import check_model_directory, obtain
from lhcq.workspace import Workspace

SECRET = b"what another user wrote " * 2101


class Program:
    """Unpickled, it leaves a file: what a hostile pickle would do."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


# HDF5


def link_to_a_file(path: Path, victim: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("df")["block0_values"] = h5py.ExternalLink(str(victim), "df/block0_values")


def link_to_a_group(path: Path, victim: Path) -> None:
    with h5py.File(path, "w") as file:
        file["df"] = h5py.ExternalLink(str(victim), "df")


def soft_link(path: Path, victim: Path) -> None:
    with h5py.File(path, "w") as file:
        file["out"] = h5py.ExternalLink(str(victim), "df")
        file.create_group("df")["block0_values"] = h5py.SoftLink("/out/block0_values")


def raw_bytes_of_a_file(path: Path, victim: Path) -> None:
    with h5py.File(path, "w") as file:
        raw = [(str(victim.with_suffix(".txt")), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("df/block0_values", shape=(3, 2101), dtype="f8", external=raw)


def view_of_a_file(path: Path, victim: Path) -> None:
    view = h5py.VirtualLayout(shape=(3, 2101), dtype="f8")
    view[:] = h5py.VirtualSource(str(victim), "df/block0_values", shape=(3, 2101))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("df/block0_values", view)


def sparse_bomb(path: Path, _: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("df/block0_values", shape=(10**12, 2101), dtype="f8", chunks=(64, 2101))


def contiguous_bomb(path: Path, _: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("df/block0_values", shape=(10**9, 2101), dtype="f8")


def chunk_bomb(path: Path, _: Path) -> None:
    with h5py.File(path, "w") as file:
        values = file.create_dataset(
            "df/block0_values", shape=(40_000, 2101), dtype="f8", chunks=(40_000, 2101), compression="gzip"
        )
        values.id.write_direct_chunk((0, 0), b"\0" * 400_000)


def packed_by_lzf(path: Path, _: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("df/block0_values", data=np.ones((3, 2101)), compression="lzf", fletcher32=True)


ATTACKS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a link to a table of another file": (link_to_a_file, "no table"),
    "a link to a group of another file": (link_to_a_group, "no table"),
    "a link to a link": (soft_link, "no table"),
    "the raw bytes of another file": (raw_bytes_of_a_file, "takes its values from other files"),
    "a view of another file": (view_of_a_file, "takes its values from other files"),
    "a trillion rows in 2 kB": (sparse_bomb, "bytes of numbers"),
    "a billion rows that were never written": (contiguous_bomb, "bytes of numbers"),
    "one storage chunk of 672 MB": (chunk_bomb, "one storage chunk"),
    "a filter whose reader crashes": (packed_by_lzf, "packed by LZF"),
}


@pytest.mark.parametrize(("write", "said"), ATTACKS.values(), ids=ATTACKS)
def test_an_event_file_that_reaches_out_or_explodes_is_refused_unread(
    tmp_path: Path, write: Callable[[Path, Path], None], said: str
) -> None:
    victim = tmp_path / "victim.h5"
    victim.with_suffix(".txt").write_bytes(SECRET)
    with h5py.File(victim, "w") as file:
        file["df/block0_values"] = np.ones((3, 2101))
    path = tmp_path / "events.h5"
    write(path, victim)
    with pytest.raises(BadInput, match=said) as caught:
        open_event_file(path)
    assert "\n" not in str(caught.value)
    report = inspect_file(path)
    assert report.kind == "not lhcq"
    assert report.rows is None


def test_a_features_file_that_reaches_out_or_explodes_is_refused(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim.h5", tmp_path / "features.h5"
    write_frame(victim, [np.ones((3, 14))], rows=3, columns=OF_JETS)
    with h5py.File(path, "w") as file:
        file["df"] = h5py.ExternalLink(str(victim), "df")
    with pytest.raises(BadInput, match="no pandas table"):
        open_feature_file(path)
    with h5py.File(path, "w") as file:
        file["df/axis0"] = file["df/block0_items"] = np.arange(14)
        file["df/block0_values"] = h5py.ExternalLink(str(victim), "df/block0_values")
    with pytest.raises(BadInput, match="no table of numbers"):
        open_feature_file(path)
    with h5py.File(path, "w") as file:
        file["df/axis0"] = np.arange(14)
        file["df/block0_items"] = np.arange(14)
        file.create_dataset("df/block0_values", shape=(10**12, 14), dtype="f8", chunks=(64, 14))
    with pytest.raises(BadInput, match="bytes of numbers"):
        open_feature_file(path)
    with h5py.File(path, "w") as file:
        file["df/axis0"] = np.arange(14)
        file.create_dataset("df/block0_items", shape=(10**9,), dtype="S8", chunks=(1024,))
        file.create_dataset("df/block0_values", shape=(2, 10**9), dtype="f8", chunks=(1, 1024))
    with pytest.raises(BadInput, match="an event file"):
        open_feature_file(path)


def test_pickled_column_names_are_never_unpickled(tmp_path: Path) -> None:
    path, mark = tmp_path / "features.h5", tmp_path / "owned"
    with h5py.File(path, "w") as file:
        file["df/axis0"] = np.arange(14)
        program = np.frombuffer(pickle.dumps(Program(mark)), np.uint8)
        names = file.create_dataset("df/block0_items", (1,), dtype=h5py.vlen_dtype(np.uint8))
        names[0] = program
        file["df/block0_values"] = np.ones((2, 14))
    with pytest.raises(BadInput, match="no plain column names"):
        open_feature_file(path)
    assert not mark.exists()


def test_what_a_file_calls_its_columns_cannot_command_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    write_frame(path, [np.ones((2, 2))], rows=2, columns=["\x1b]0;owned\x07", "a\nlhcq: all is well"])
    with pytest.raises(BadInput) as caught:
        open_feature_file(path)
    assert str(caught.value).isprintable()


# Models


def weights(**entries: Any) -> bytes:
    header = json.dumps(entries or {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory that looks like a model."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(weights())
    check_model_directory(directory)
    return directory


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_model_of_pickles_is_refused_before_one_is_opened(model: Path, tmp_path: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Program(tmp_path / "owned")))
    with pytest.raises(BadInput, match="its weights are pickled") as caught:
        obtain(str(model), Workspace(tmp_path / "workspace"), say=print)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../elsewhere.safetensors", "/etc/passwd", 5])
def test_a_list_of_weights_that_names_anything_but_safetensors_of_its_directory_is_refused(
    model: Path, tmp_path: Path, name: Any
) -> None:
    (tmp_path / "elsewhere.safetensors").write_bytes(weights())
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Program(tmp_path / "owned")))
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(BadInput, match="no safetensors file of this directory"):
        check_model_directory(model)
    assert not (tmp_path / "owned").exists()


def test_weights_that_are_a_pickle_under_another_name_are_refused(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps(Program(tmp_path / "owned")))
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        check_model_directory(model)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("where", ["attn_implementation", "_attn_implementation", "text_config"])
def test_a_configuration_that_asks_for_kernels_of_the_hub_is_refused(model: Path, where: str) -> None:
    hub = "somebody/kernels"
    value = {"experts_implementation": hub} if where == "text_config" else hub
    (model / "config.json").write_text(json.dumps({"model_type": "llama", where: value}))
    with pytest.raises(BadInput, match="a program of the hub"):
        check_model_directory(model)
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "attn_implementation": "sdpa"}))
    check_model_directory(model)


@pytest.mark.parametrize(
    "content", [b"", b"pickle", weights()[:20], weights(w={"shape": ["a"], "data_offsets": [0, 4]})]
)
def test_tensors_of_a_checkpoint_are_safetensors_or_refused(tmp_path: Path, content: bytes) -> None:
    from lhcq.model.tensors import read_tensors

    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        read_tensors(tmp_path / "adapter_model.safetensors")


def test_a_checkpoint_with_a_pickle_alone_is_refused_and_the_pickle_not_opened(tmp_path: Path) -> None:
    from lhcq.model.tensors import read_tensors

    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps(Program(tmp_path / "owned")))
    with pytest.raises(BadInput, match="its weights are pickled"):
        read_tensors(tmp_path / "adapter_model.safetensors")
    assert not (tmp_path / "owned").exists()


@pytest.mark.torture
def test_the_code_that_a_model_brings_along_is_never_run(smollm2: Path, tmp_path: Path) -> None:
    """With a class of its own for everything that transformers would ask for, under a known and an unknown type."""
    from lhcq.model.base import load_base

    owned = tmp_path / "owned"
    for model_type in ("llama", "evil"):
        directory = tmp_path / model_type
        directory.mkdir()
        for path in smollm2.iterdir():
            (directory / path.name).symlink_to(path)
        (directory / "code.py").write_text(f"open({str(owned)!r}, 'w')\nclass Evil: pass\n")
        classes = {
            f"Auto{kind}": "code.Evil" for kind in ("Config", "Model", "ModelForCausalLM", "Tokenizer")
        }
        for name in ("config.json", "tokenizer_config.json"):
            value = json.loads((smollm2 / name).read_text()) | {"auto_map": classes}
            if name == "config.json":
                value["model_type"] = model_type
            (directory / name).unlink()
            (directory / name).write_text(json.dumps(value))
        if model_type == "llama":
            assert load_base(directory).model.config.model_type == "llama"
        else:
            with pytest.raises(BadInput, match="cannot load this model"):
                load_base(directory)
        assert not owned.exists()
