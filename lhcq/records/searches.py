"""A search for a resonance: its chunks, what it found, the scores that it rests on, and its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lhcq.errors import DamagedChunk
from lhcq.manifests import write_manifest
from lhcq.records.commits import OF, read_verified
from lhcq.storage import (
    MANIFEST,
    read_json,
    staged_directory,
    write_json,
    write_text,
)
from lhcq.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

_FOUND, _SCORES, _PSEUDO, _PAGE = "search.json", "scores.parquet", "pseudo.parquet", "report.html"
_COLUMN = "value"
_ROW_GROUP = 65_536


def write_chunk(path: Path, values: NDArray[np.float64]) -> None:
    """Commit what one task computed: the scores of a fold (n_events,), or the significances of pseudo-experiments."""
    import pyarrow as pa

    from lhcq.records import chunks

    schema = pa.schema([pa.field(_COLUMN, pa.float64(), nullable=False)])
    chunks.write_chunk(path, schema, [pa.record_batch([values.ravel()], schema=schema)])


def read_chunk(path: Path, n_values: int) -> NDArray[np.float64]:
    """What `write_chunk` wrote, (n_values,); raises `DamagedChunk` where it is damaged."""
    from lhcq.records.chunks import Chunk

    try:
        (values,) = (batch[_COLUMN].to_numpy() for batch in Chunk(path).batches())
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise DamagedChunk.at(path, f"not a readable chunk ({error})") from error
    if len(values) != n_values:
        raise DamagedChunk.at(path, f"has {len(values):,} values, not {n_values:,}")
    return np.asarray(values, np.float64)


def commit_search(
    final: Path,
    found: Mapping[str, Any],
    scores: "pa.Table",
    pseudo: "pa.Table",
    *,
    of: str,
    page: str,
    fields: Mapping[str, Any],
) -> None:
    """Commit the directory `final`, with `fields` and the identity `of` its spec in its manifest; if it stands, it
    stays."""
    import pyarrow.parquet as pq

    with staged_directory(final) as directory:
        for table, name in ((scores, _SCORES), (pseudo, _PSEUDO)):
            pq.write_table(table, directory / name, compression="zstd", row_group_size=_ROW_GROUP)
        write_json(directory / _FOUND, dict(found))
        write_text(directory / _PAGE, page)
        write_manifest(directory, **{OF: of, **fields})


def finished_searches(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The manifests of the searches that stand in a workspace, by name."""
    manifests = {name: workspace.search(name) / MANIFEST for name in workspace.names("searches")}
    return {name: read_json(path) for name, path in manifests.items() if path.is_file()}


def find_found(workspace: Workspace, name: str, identity: str) -> dict[str, Any] | None:
    """What the search of this name and identity found; None where it is gone, or another has its name."""
    directory = workspace.search(name)
    if not (directory / MANIFEST).is_file() or read_json(directory / MANIFEST).get(OF) != identity:
        return None
    return read_found(directory)


def read_found(search: Path) -> dict[str, Any]:
    """What a search found; raises `NotThere` without it, `BadInput` where a file of it was changed."""
    _verify(search)
    return read_json(search / _FOUND)


def read_scores(search: Path) -> "pa.Table":
    """Its scores, an event a row; raises what `read_found` does."""
    import pyarrow.parquet as pq

    _verify(search)
    return pq.read_table(scores_file(search))


def _verify(search: Path) -> None:
    read_verified(search, what=f"search {search.name!r}", remedy="Search again.")


def scores_file(search: Path) -> Path:
    """The scores of all events in the range of the fit, a column a region."""
    return search / _SCORES


def pseudo_file(search: Path) -> Path:
    """The significances of the pseudo-experiments, one a row, a column a test."""
    return search / _PSEUDO


def page_file(search: Path) -> Path:
    """The page."""
    return search / _PAGE
