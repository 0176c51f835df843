"""Reading a stretch of a parquet file."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhcq.errors import BadInput
from lhcq.records.parquet import read_stretch


@pytest.fixture
def path(tmp_path):
    """23 rows in groups of 5."""
    pq.write_table(pa.table({"row": range(23), "other": range(23)}), tmp_path / "f.parquet", row_group_size=5)
    return tmp_path / "f.parquet"


@pytest.mark.parametrize(("start", "stop"), [(0, 23), (0, 1), (4, 6), (5, 10), (7, 18), (20, 23), (3, 3)])
def test_a_stretch_is_what_it_says_wherever_groups_end(path, start, stop) -> None:
    table = read_stretch(path, start, stop, ["row"])
    assert table["row"].to_pylist() == list(range(start, stop))
    assert table.column_names == ["row"]


def test_a_file_that_ends_before_or_cannot_be_read_is_refused(path, tmp_path) -> None:
    with pytest.raises(BadInput, match="ends before row 24"):
        read_stretch(path, 20, 24, ["row"])
    with pytest.raises(BadInput, match="cannot be read"):
        read_stretch(tmp_path / "none.parquet", 0, 1, ["row"])
