"""A prediction: what a checkpoint says of every event of a dataset, a summary of it, and its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lhcq.storage import read_json, staged_directory, write_json, write_manifest, write_text

if TYPE_CHECKING:
    import pyarrow as pa

_SCORES, _SUMMARY, _PAGE = "scores.parquet", "summary.json", "report.html"
_ROW_GROUP = 65_536


def commit_prediction(
    final: Path, scores: "pa.Table", *, summary: Mapping[str, Any], page: str, fields: Mapping[str, Any]
) -> None:
    """Commit the directory `final`, with `fields` in its manifest; if it stands, it stays."""
    import pyarrow.parquet as pq

    with staged_directory(final) as directory:
        pq.write_table(scores, directory / _SCORES, compression="zstd", row_group_size=_ROW_GROUP)
        write_json(directory / _SUMMARY, dict(summary))
        write_text(directory / _PAGE, page)
        write_manifest(directory, **fields)


def read_summary(prediction: Path) -> dict[str, Any]:
    """What a prediction amounts to."""
    return read_json(prediction / _SUMMARY)


def scores_file(prediction: Path) -> Path:
    """The scores, an event a row."""
    return prediction / _SCORES


def page_file(prediction: Path) -> Path:
    """The page."""
    return prediction / _PAGE
