"""A prediction: what a checkpoint says of every event of a dataset, a summary of it, and its page.

Beside the dataset's scores stand those of the reference, so that another selection of the same scores needs no model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lhcq.manifests import write_manifest
from lhcq.records.commits import OF, read_verified
from lhcq.records.specs import PredictSpec
from lhcq.storage import read_json, staged_directory, write_json, write_text

if TYPE_CHECKING:
    import pyarrow as pa

_SCORES, _REFERENCE, _SUMMARY, _PAGE = "scores.parquet", "reference.parquet", "summary.json", "report.html"
_ROW_GROUP = 65_536


def commit_prediction(
    final: Path,
    scores: "pa.Table",
    reference: "pa.Table",
    *,
    of: str,
    summary: Mapping[str, Any],
    page: str,
    fields: Mapping[str, Any],
) -> None:
    """Commit the directory `final`, with `fields` and the identity `of` its spec in its manifest; if it stands, it
    stays."""
    import pyarrow.parquet as pq

    with staged_directory(final) as directory:
        for table, name in ((scores, _SCORES), (reference, _REFERENCE)):
            pq.write_table(table, directory / name, compression="zstd", row_group_size=_ROW_GROUP)
        write_json(directory / _SUMMARY, dict(summary))
        write_text(directory / _PAGE, page)
        write_manifest(directory, **{OF: of, **fields})


def has_scores_of(manifest: Mapping[str, Any], spec: PredictSpec) -> bool:
    """Whether a prediction with this manifest has the scores that one of `spec` has: it may select otherwise, and
    nothing else. An earlier lhcq's does not say of what spec it is, nor has it the reference's."""
    if OF not in manifest:
        return False
    alike = spec.model_copy(update={"largest_p_value": manifest["largest_p_value"]})
    return bool(manifest[OF] == alike.identity())


def read_summary(prediction: Path) -> dict[str, Any]:
    """What a prediction amounts to; raises `NotThere` without it, `BadInput` where a file of it was changed."""
    _verify(prediction)
    return read_json(prediction / _SUMMARY)


def read_scores(prediction: Path) -> "pa.Table":
    """Its scores, an event a row; raises what `read_summary` does."""
    import pyarrow.parquet as pq

    _verify(prediction)
    return pq.read_table(scores_file(prediction))


def _verify(prediction: Path) -> None:
    read_verified(prediction, what=f"prediction {prediction.name!r}", remedy="Predict again.")


def scores_file(prediction: Path) -> Path:
    """The scores, an event a row."""
    return prediction / _SCORES


def reference_file(prediction: Path) -> Path:
    """The scores of the background that p-values are taken against, an event a row."""
    return prediction / _REFERENCE


def page_file(prediction: Path) -> Path:
    """The page."""
    return prediction / _PAGE
