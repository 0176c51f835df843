"""`python -m benchmarks.peers [--out FILE] [--environment PEER=PYTHON]...`: lhcq and its peers on one NVIDIA GPU.

QLoRA with random weights: NF4, all linear layers, r=16, no dropout, bfloat16, 8-bit AdamW, the loss at the label;
Mistral-7B's shape with the study's prompt, free and within 8 GiB, and SmolLM2-135M's with the compact one. Each peer
at each of its settings in a process of its own; its best counts, and one that does not run is said with its error.
Then 1,000 events are scored, by lhcq and by transformers' forward pass. A peer's environment is made here by pip, on
top of this one's packages, unless its Python is given. Writes results/peers.json, also after each setting, and prints
a line a figure. Needs about 20 GB on disk for a while (TMPDIR).
"""

import argparse
import json
import math
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


class Shape(NamedTuple):
    """A model, and what it is trained on."""

    shape: dict[str, object]
    prompts: list[str]
    special: dict[str, str]
    """What Unsloth, which loads the tokenizer, wants to know of it."""


SHAPES = {
    "7B": Shape(
        gpu_models.MISTRAL_7B,
        gpu_models.diary_prompts(1024),
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"},
    ),
    "135M": Shape(
        gpu_models.SMOLLM2_135M,
        gpu_models.compact_prompts(8192),
        {
            **{"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"},
            **{"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        },
    ),
}


class Setting(NamedTuple):
    """One way to run a peer."""

    batch: int
    checkpointing: bool = False
    capped: bool = False
    compute: str = ""
    """lhcq's own `--compute`."""
    scores: bool = False
    """Whether it scores events, in place of training."""
    model: str = "7B"

    @property
    def name(self) -> str:
        """As the command line has it: `64+checkpointing+capped`."""
        said = {"checkpointing": self.checkpointing, "capped": self.capped, self.compute: bool(self.compute)}
        said |= {"scores": self.scores, self.model: self.model != "7B"}
        return "+".join([str(self.batch), *(word for word, there in said.items() if there)])


# lhcq chooses its passes and checkpointing itself.
OURS = [Setting(128, capped=capped, compute=how) for how in ("bf16", "fp8") for capped in (False, True)]
THEIRS = [Setting(batch) for batch in (32, 48, 64)]
THEIRS += [Setting(batch, checkpointing=True) for batch in (64, 128)]
THEIRS += [Setting(batch, checkpointing=True, capped=True) for batch in (8, 16, 32)]
OURS += [Setting(32, compute=how, scores=True) for how in ("bf16", "fp8")]
OURS += [Setting(1024, compute="bf16", model="135M")]
THEIRS += [Setting(batch, model="135M") for batch in (256, 1024)]
FORWARD = [Setting(batch, scores=True) for batch in (16, 64, 256)]
# What pip adds for a peer; None: this environment has all.
PEERS: dict[str, tuple[str, list[Setting], list[str] | None]] = {
    "lhcq": ("ours.py", OURS, None),
    "unsloth": ("with_unsloth.py", THEIRS, ["unsloth==2026.10.9", "unsloth_zoo==2026.10.9", "trl==1.15.0"]),
    "trainer": ("with_trainer.py", THEIRS, None),
    "liger": ("with_trainer.py", THEIRS, ["liger-kernel==0.8.5"]),
    "transformers": ("with_transformers.py", FORWARD, None),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.json")
    parser.add_argument("--environment", action="append", default=[], metavar="PEER=PYTHON")
    parser.add_argument(
        "--only", action="append", metavar="PEER:SETTING",
        help="These alone, such as unsloth:48 or trainer:32+checkpointing+capped.",
    )  # fmt: skip
    parser.add_argument(
        "--smollm2", type=Path, help="A directory with SmolLM2's tokenizer. Default: Mistral's."
    )
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("peers: no CUDA GPU is visible here: nothing to measure.", file=sys.stderr)
        return 1
    pythons = dict(pair.split("=", 1) for pair in chosen.environment)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for name in SHAPES:
            prepare(work, name, chosen.smollm2)
        for peer, (_, settings, needs) in PEERS.items():
            try:
                python = pythons.get(peer) or environment(work / peer, needs)
            except subprocess.CalledProcessError as error:
                rows.append(
                    {"peer": peer, "error": f"its packages cannot be installed: {error.stderr[-300:]}"}
                )
                continue
            for setting in settings:
                if chosen.only and f"{peer}:{setting.name}" not in chosen.only:
                    continue
                rows.append({"peer": peer, **setting._asdict(), **measured(python, peer, work, setting)})
                print(f"peers: {rows[-1]}", flush=True)
                store(chosen.out, rows)
    for line in store(chosen.out, rows):
        print(
            f"peers: {line['task']}: {line['who']:<12} {line['per_second']:7.1f}/s in {line['peak_gib']:.1f} GiB, "
            f"{line['over the best peer'] or math.nan:.2f} of the best peer"
        )
    return 0


def store(out: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write what was measured so far; the best of each in each task."""
    tasks = {
        "training": lambda row: not row["capped"] and not row["scores"] and row["model"] == "7B",
        "training within 8 GiB": lambda row: row["capped"],
        "scoring": lambda row: row["scores"],
        "training 135M": lambda row: row["model"] == "135M",
    }
    ran = [row for row in rows if "per_second" in row]
    best = [line for task, has in tasks.items() for line in compared(task, [row for row in ran if has(row)])]
    machine = {"device": torch.cuda.get_device_name()}
    result = {"machine": machine, "versions": versions(), "rows": rows, "best": best}
    out.write_text(json.dumps(result, indent=1) + "\n")
    return best


def prepare(work: Path, name: str, smollm2: Path | None) -> None:
    """A model, one directory for lhcq and one for peers, and what all are trained on."""
    shape, prompts, special = SHAPES[name]
    directory, theirs = work / name, work / f"{name}-peers"
    gpu_models.write_random_model(shape, directory, tokenizer=smollm2 if name == "135M" else None)
    torch.cuda.empty_cache()
    theirs.mkdir()
    for path in directory.iterdir():
        (theirs / path.name).symlink_to(path)
    (theirs / "tokenizer_config.json").unlink()
    if name == "135M" and smollm2 is None:
        special = SHAPES["7B"].special
    (theirs / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special})
    )
    encode = encode_prompts(directory)
    # With a label's token behind, as peers read it.
    labels = [encode([f" {word}"])[0][-1] for word in ("background", "signal")]
    (work / f"{name}.json").write_text(
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


def measured(python: str, peer: str, work: Path, setting: Setting) -> dict[str, Any]:
    """What a process of the peer said of this setting, or its error."""
    program = PEERS[peer][0]
    asked = {**setting._asdict(), "peer": peer, "cap": CAP if setting.capped else None, "work": str(work)}
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


def compared(task: str, ran: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best of each, and lhcq's ways over the best peer."""
    best: dict[str, dict[str, Any]] = {}
    for row in ran:
        name = f"lhcq {row['compute']}" if row["peer"] == "lhcq" else row["peer"]
        if name not in best or row["per_second"] > best[name]["per_second"]:
            best[name] = {"task": task, "who": name, **row}
    peers = [row["per_second"] for row in best.values() if row["peer"] != "lhcq"]
    for row in best.values():
        row["over the best peer"] = row["per_second"] / max(peers) if peers else None
    return list(best.values())


if __name__ == "__main__":
    sys.exit(main())
