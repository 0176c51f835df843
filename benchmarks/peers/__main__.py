"""`python -m benchmarks.peers [--out FILE] [--environment PEER=PYTHON]...`: lhcq and its peers on one NVIDIA GPU.

QLoRA of Mistral-7B's shape with random weights: NF4, all linear layers, r=16, no dropout, bfloat16, 8-bit AdamW,
the study's prompt, the loss at the label alone. Each peer at each of its settings in a process of its own, free and
within 8 GiB; its best counts, and one that does not run is said with its error. A peer's environment is made here by
pip, on top of this one's packages, unless its Python is given. Writes results/peers.json and prints a line a figure.
Needs about 20 GB on disk for a while (TMPDIR).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import gpu_models
from benchmarks.gpu import CAP, RESULTS, versions
from lhcq.model.tokens import encode_prompts

HERE = Path(__file__).parent
LIMIT_SECONDS = 900
PROMPTS = 1024


class Setting(NamedTuple):
    """One way to run a peer."""

    batch: int
    checkpointing: bool = False
    capped: bool = False
    compute: str = ""
    """lhcq's own `--compute`."""


# lhcq chooses its passes and checkpointing itself.
OURS = [Setting(128, capped=capped, compute=how) for how in ("bf16", "fp8") for capped in (False, True)]
THEIRS = [Setting(batch) for batch in (32, 48, 64)]
THEIRS += [Setting(batch, checkpointing=True) for batch in (64, 128)]
THEIRS += [Setting(batch, checkpointing=True, capped=True) for batch in (8, 16, 32)]
# What pip adds for a peer; None: this environment has all.
PEERS: dict[str, tuple[str, list[Setting], list[str] | None]] = {
    "lhcq": ("ours.py", OURS, None),
    "unsloth": ("with_unsloth.py", THEIRS, ["unsloth==2026.10.9", "unsloth_zoo==2026.10.9", "trl==1.15.0"]),
    "trainer": ("with_trainer.py", THEIRS, None),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.json")
    parser.add_argument("--environment", action="append", default=[], metavar="PEER=PYTHON")
    parser.add_argument(
        "--only", action="append", metavar="PEER:BATCH", help="Of the peers these settings alone."
    )
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("peers: no CUDA GPU is visible here: nothing to measure.", file=sys.stderr)
        return 1
    pythons = dict(pair.split("=", 1) for pair in chosen.environment)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        prepare(work)
        for peer, (program, settings, needs) in PEERS.items():
            try:
                python = pythons.get(peer) or environment(work / peer, needs)
            except subprocess.CalledProcessError as error:
                rows.append(
                    {"peer": peer, "error": f"its packages cannot be installed: {error.stderr[-300:]}"}
                )
                continue
            for setting in settings:
                if chosen.only and peer != "lhcq" and f"{peer}:{setting.batch}" not in chosen.only:
                    continue
                rows.append({"peer": peer, **setting._asdict(), **measured(python, program, work, setting)})
                print(f"peers: {rows[-1]}", flush=True)
    result = {
        "machine": {"device": torch.cuda.get_device_name()},
        "versions": versions(),
        "rows": rows,
        "best": [line for capped in (False, True) for line in compared(rows, capped=capped)],
    }
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def prepare(work: Path) -> None:
    """The model, one directory for lhcq and one for peers, and what all are trained on."""
    directory = work / "7B"
    gpu_models.write_random_model(gpu_models.MISTRAL_7B, directory, tokenizer=None)
    torch.cuda.empty_cache()
    theirs = work / "7B-peers"
    theirs.mkdir()
    for path in directory.iterdir():
        (theirs / path.name).symlink_to(path)
    # Unsloth loads the tokenizer, and wants these of it.
    (theirs / "tokenizer_config.json").unlink()
    (theirs / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"},
            }
        )
    )
    encode = encode_prompts(directory)
    prompts = gpu_models.diary_prompts(PROMPTS)
    # With a label's token behind, as peers read it.
    labels = [encode([f" {name}"])[0][-1] for name in ("background", "signal")]
    (work / "data.json").write_text(
        json.dumps({"prompts": prompts, "token_ids": encode(prompts), "labels": labels})
    )


def environment(place: Path, needs: list[str] | None) -> str:
    """The Python that a peer runs with."""
    if needs is None:
        return sys.executable
    venv.create(place, with_pip=True, system_site_packages=True)
    python = str(place / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *needs], check=True, capture_output=True, text=True
    )
    return python


def measured(python: str, program: str, work: Path, setting: Setting) -> dict[str, Any]:
    """What a process of the peer said of this setting, or its error."""
    asked = {**setting._asdict(), "cap": CAP if setting.capped else None, "work": str(work)}
    try:
        done = subprocess.run(
            [python, str(HERE / program), json.dumps(asked)],
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            env={
                **os.environ,
                "PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            },
            cwd=work,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"it took more than {LIMIT_SECONDS} s"}
    finally:
        shutil.rmtree(work / "out", ignore_errors=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]}
    said: dict[str, Any] = json.loads(lines[-1])
    return said


def compared(rows: list[dict[str, Any]], *, capped: bool) -> list[dict[str, Any]]:
    """The best of each, and lhcq's ways over the best peer."""
    ran = [row for row in rows if "per_second" in row and row["capped"] == capped]
    best: dict[str, dict[str, Any]] = {}
    for row in ran:
        name = f"lhcq {row['compute']}" if row["peer"] == "lhcq" else row["peer"]
        if name not in best or row["per_second"] > best[name]["per_second"]:
            best[name] = {"who": name, **row}
    peers = [row["per_second"] for name, row in best.items() if row["peer"] != "lhcq"]
    for row in best.values():
        row["over the best peer"] = row["per_second"] / max(peers) if peers else None
        where = "within 8 GiB" if capped else "free"
        print(
            f"peers: {where}: {row['who']:<12} {row['per_second']:7.1f}/s in {row['peak_gib']:.1f} GiB",
            flush=True,
        )
    return list(best.values())


if __name__ == "__main__":
    sys.exit(main())
