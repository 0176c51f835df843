"""What earlier versions left in a workspace, or later ones will, made of what today's writes."""

import json
from pathlib import Path
from typing import Any

from lhcq.manifests import write_manifest
from lhcq.storage import MANIFEST, read_json, write_json


def without_prompt_trees(baseline: Path) -> None:
    """Make of a baseline what one was while there were trees on all features alone."""
    manifest, figures = read_json(baseline / MANIFEST), read_json(baseline / "figures.json")
    for subset in ("validation", "test"):
        (baseline / f"prompt-{subset}.parquet").unlink()
        del figures[f"prompt-{subset}"]
    write_json(baseline / "figures.json", figures)
    write_manifest(
        baseline, **{name: value for name, value in manifest.items() if name not in ("files", "prompt")}
    )


def with_later_fields(run_dir: Path) -> None:
    """Make of a run's results and states what a later lhcq may add to: a field in each record, and in each part."""
    for path in sorted(run_dir.rglob("*.json")):
        if path.name in (MANIFEST, "job.json") or "checkpoints" in path.parts:
            continue
        write_json(path, _grown(json.loads(path.read_text("utf-8"))))
    for path in sorted(run_dir.rglob(MANIFEST)):
        fields = {name: value for name, value in read_json(path).items() if name != "files"}
        write_manifest(path.parent, **fields, of_a_later_lhcq=True)


def _grown(value: Any) -> Any:
    if isinstance(value, list):
        return [_grown(one) for one in value]
    if isinstance(value, dict):
        return {**{name: _grown(one) for name, one in value.items()}, "of_a_later_lhcq": 1.0}
    return value
