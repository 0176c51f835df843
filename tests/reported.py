"""A run with a report, in a workspace that holds what the other stages would have written."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lhcq.config import SplitConfig, TrainConfig
from lhcq.evaluate.validation import write_validation
from lhcq.manifests import write_manifest
from lhcq.records.commits import digests_of
from lhcq.records.run_state import best_step
from lhcq.storage import MANIFEST, append_line, read_json, write_json
from lhcq.workspace import Workspace
from tests.specs import job_of

FEATURES = ["mjj", "m_heavy", "m_light", "pt_heavy", "delta_r", "n_particles"]


STEPS = [20, 40, 60, 80]


PARTS = {"train": 640, "validation": 400, "calibration": 100, "test": 600}


def events_like_lhco(n: int, rng: np.random.Generator, *, signal_share: float = 0.5) -> dict[str, np.ndarray]:
    """Labels and features of `n` events that look like QCD dijets and W' -> X Y, GeV; some lack the second jet."""
    label = (rng.random(n) < signal_share).astype(np.int8)
    is_signal = label == 1
    mjj = np.where(
        is_signal, rng.normal(3450, 220, n) - rng.exponential(120, n), 2350 + rng.exponential(420, n)
    )
    m_heavy = np.where(is_signal, rng.normal(470, 55, n), 60 + rng.gamma(1.7, 110, n))
    m_light = np.where(is_signal, rng.normal(100, 16, n), 25 + rng.gamma(1.6, 45, n))
    alone = rng.random(n) < 0.03
    m_light[alone] = mjj[alone] = np.nan
    return {
        "label": label,
        "mjj": mjj,
        "m_heavy": np.abs(m_heavy),
        "m_light": np.abs(m_light),
        "pt_heavy": 1200 + rng.exponential(180, n),
        "delta_r": rng.normal(3.1, 0.25, n),
        "n_particles": rng.normal(170, 45, n),
    }


def write_split(split: Path, *, signal_share: float = 0.5, seed: int = 7, template: str = "compact") -> None:
    rng = np.random.default_rng(seed)
    first, counts = 0, {}
    split.mkdir(parents=True)
    for part, n in PARTS.items():
        events = events_like_lhco(n, rng, signal_share=signal_share)
        rows = rng.permutation(np.arange(first, first + n))
        told = np.column_stack([events["mjj"] / 10, events["m_heavy"], events["m_light"]])
        prompts = [f"{one:.0f} {heavy:.0f} {light:.0f}:" for one, heavy, light in np.nan_to_num(told)]
        columns = {"row": rows, "label": events["label"], "prompt": prompts}
        pq.write_table(
            pa.table(columns | {name: events[name] for name in FEATURES}), split / f"{part}.parquet"
        )
        counts[part] = {"signal": int(events["label"].sum()), "background": int((events["label"] == 0).sum())}
        first += n
    write_manifest(
        split,
        dataset="demo",
        config=SplitConfig().model_dump(),
        counts=counts,
        features=FEATURES,
        template={
            "name": template,
            "version": 1,
            "sha256": "ab" * 32,
            "columns": ["mjj", "m_heavy", "m_light"],
        },
        tokens={"mean": 18.2, "p99": 22, "max": 24},
    )


def model_scores(split: Path, part: str, *, sharpness: float) -> dict[str, np.ndarray]:
    """Scores of a made-up model that gets better with `sharpness`."""
    table = pq.read_table(split / f"{part}.parquet")
    rng = np.random.default_rng(int(100 * sharpness) + len(part))
    label = table["label"].to_numpy()
    logit = sharpness * (label - 0.5) * 2 + rng.normal(0, 1.35, label.size) * np.sqrt(sharpness)
    return {
        "rows": table["row"].to_numpy(),
        "labels": label,
        "p_signal": 1 / (1 + np.exp(-logit)),
        "answers": np.where(rng.random(label.size) < 0.004, -1, logit >= 0),
    }


def write_run(
    workspace: Workspace, name: str, *, steps_done: int = 80, validated: int = 4, ended: bool = True
) -> None:
    """A run of the split `half`, with as much done as asked."""
    run = workspace.run(name)
    job = job_of(
        "train",
        name,
        parts=0,
        created=1_790_000_000.0,
        split="half",
        split_sha256=digests_of(read_json(workspace.split("half") / MANIFEST)),
        config=TrainConfig().model_dump(),
        total_steps=STEPS[-1],
        checkpoint_steps=STEPS,
    )
    write_json(run / "job.json", job.model_dump())
    rng = np.random.default_rng(3)
    for step in range(1, steps_done + 1):
        loss = 0.28 + 0.5 * np.exp(-step / 14) + rng.normal(0, 0.09) * np.exp(-step / 90)
        rate = 1e-3 * min(step / 5, 0.5 * (1 + np.cos(np.pi * step / STEPS[-1])))
        line = {"event": "step", "step": step, "loss": float(abs(loss)), "learning_rate": float(rate)}
        append_line(
            run / "events.jsonl", {**line, "grad_norm": 1.0, "samples_per_second": 5.5, "time": 1.79e9 + step}
        )
        if step in STEPS:
            append_line(run / "events.jsonl", {"event": "checkpoint", "step": step, "time": 1.79e9 + step})
    split = workspace.split("half")
    for step, sharpness in list(zip(STEPS, (0.8, 2.0, 3.1, 2.9), strict=False))[:validated]:
        scores = model_scores(split, "validation", sharpness=sharpness)
        write_validation(workspace.validation(name, step), step=step, **scores)
    if ended:
        best = best_step(run)
        assert best is not None
        write_validation(run / "test", step=best, **model_scores(split, "test", sharpness=3.1))
        outcome = {"state": "done", "message": f"best checkpoint: step {best}", "finished": 1_790_000_160.0}
        write_json(run / "outcome.json", outcome)
