"""What earlier versions left in a workspace, made of what today's writes."""

from pathlib import Path

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
