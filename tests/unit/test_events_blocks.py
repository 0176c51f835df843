"""The blocks of a chunk: every row once, and of what cannot be used exactly that left out."""

from unittest import mock

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhcq.errors import TransientError
from lhcq.events import blocks
from lhcq.events.blocks import Gap, read_blocks
from lhcq.events.layout import (
    EventBlock,
    EventFile,
    WrongValues,
    open_event_file,
    write_event_file,
)

N_EVENTS = 70
BLOCK_ROWS = 256


@pytest.fixture(autouse=True, scope="module")
def short_blocks():
    """Several blocks in a file of a few hundred events."""
    with mock.patch.object(blocks, "BLOCK_ROWS", BLOCK_ROWS):
        yield


def write_numbered(path, n_events=N_EVENTS, storage_rows=7, **options):
    """Events whose one particle has their row for its pt; every third is signal. Gives the opened file."""
    values = np.zeros((n_events, 2101))
    values[:, 0] = np.arange(n_events) + 0.5
    values[::3, 2100] = 1.0
    if options or not storage_rows:
        with h5py.File(path, "w") as file:
            chunks = (storage_rows, 2101) if storage_rows else None
            file.create_dataset("df/block0_values", data=values, chunks=chunks, **options)
    else:
        write_event_file(path, [(values[:, :2100], values[:, 2100])], n_events, storage_rows=storage_rows)
    return open_event_file(path)


def set_value(file: EventFile, row: int, column: int, value: float) -> None:
    with h5py.File(file.path, "r+") as handle:
        handle["df/block0_values"][row, column] = value


def damage(file: EventFile, index: int) -> None:
    """Put noise in the place of one storage chunk."""
    with h5py.File(file.path) as handle:
        stored = handle["df/block0_values"].id.get_chunk_info(index)
    with file.path.open("r+b") as stream:
        stream.seek(stored.byte_offset)
        stream.write(np.random.default_rng(index).bytes(stored.size))


def split(found) -> tuple[list[int], list[tuple[int, int]]]:
    """The rows of the blocks in order, and the bounds of the gaps; the events are the ones of these rows."""
    rows, gaps = [], []
    for block in found:
        if isinstance(block, Gap):
            gaps.append((block.start, block.stop))
            continue
        assert block.particles[:, 0, 0].tolist() == [row + 0.5 for row in block.rows]
        assert not block.particles[:, 1:].any()
        assert block.n_particles.tolist() == [1] * len(block.rows)
        assert block.labels.tolist() == [int(row % 3 == 0) for row in block.rows]
        rows += block.rows.tolist()
    return rows, gaps


@pytest.fixture(scope="module")
def sound_files(tmp_path_factory):
    """Files of as many events in storage chunks of many sizes; 0: contiguous."""
    place = tmp_path_factory.mktemp("sound")
    return {
        size: write_numbered(place / f"{size}.h5", 600, size) for size in (0, 1, 7, 64, 255, 256, 300, 600)
    }


@given(data=st.data(), size=st.sampled_from([0, 1, 7, 64, 255, 256, 300, 600]))
def test_blocks_have_every_row_once_and_begin_with_storage_chunks(sound_files, data, size):
    file = sound_files[size]
    n_chunks = -(-600 // file.storage_rows)
    first = data.draw(st.integers(0, n_chunks - 1))
    start = first * file.storage_rows
    stop = min(600, data.draw(st.integers(first + 1, n_chunks)) * file.storage_rows)
    found = []

    def noted(read):
        for block in read:
            found.append(block)
            yield block  # and is looked at before the next is read

    assert split(noted(read_blocks(file, start, stop, skip_wrong=data.draw(st.booleans())))) == (
        list(range(start, stop)),
        [],
    )
    assert all(block.rows[0] % file.storage_rows == 0 for block in found)
    assert all(len(block.rows) <= max(BLOCK_ROWS, file.storage_rows) for block in found)


@given(start=st.integers(0, 599), length=st.integers(1, 600), size=st.sampled_from([0, 7, 256, 600]))
def test_any_range_is_read_once(sound_files, start, length, size):
    stop = min(600, start + length)
    assert split(read_blocks(sound_files[size], start, stop, skip_wrong=False)) == (
        list(range(start, stop)),
        [],
    )


@settings(max_examples=60)
@given(
    n_events=st.integers(1, 60),
    storage_rows=st.integers(1, 20),
    damaged=st.sets(st.integers(0, 59), max_size=6),
    wrong=st.sets(st.integers(0, 59), max_size=6),
)
def test_gaps_are_the_damaged_storage_chunks_and_the_wrong_events_and_all_else_is_read(
    tmp_path_factory, n_events, storage_rows, damaged, wrong
):
    file = write_numbered(tmp_path_factory.mktemp("any") / "events.h5", n_events, storage_rows)
    n_chunks = -(-n_events // file.storage_rows)
    damaged = {index for index in damaged if index < n_chunks}
    wrong = {row for row in wrong if row < n_events and row // file.storage_rows not in damaged}
    for row in wrong:
        set_value(file, row, 3, np.nan)
    for index in damaged:
        damage(file, index)
    lost = {row for row in range(n_events) if row // file.storage_rows in damaged} | wrong
    rows, gaps = split(read_blocks(file, 0, n_events, skip_wrong=True))
    assert rows == sorted(set(range(n_events)) - lost)
    assert [row for start, stop in gaps for row in range(start, stop)] == sorted(lost)


@pytest.mark.parametrize("skip_wrong", [False, True])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"fletcher32": True}])
def test_a_damaged_storage_chunk_is_a_gap_of_its_rows_and_says_why(tmp_path, skip_wrong, options):
    file = write_numbered(tmp_path / "events.h5", **options)
    damage(file, 4)
    found = list(read_blocks(file, 0, N_EVENTS, skip_wrong=skip_wrong))
    assert split(found) == ([*range(28), *range(35, N_EVENTS)], [(28, 35)])
    (gap,) = (block for block in found if isinstance(block, Gap))
    assert gap.reason.startswith(f"{file.path}: rows 28 to 34 cannot be read, the file is damaged there (")
    assert gap.reason.endswith("). Download it again.")
    assert "\n" not in gap.reason


def test_the_last_storage_chunk_which_is_short_can_be_damaged(tmp_path):
    file = write_numbered(tmp_path / "events.h5", 66)
    damage(file, 9)
    assert split(read_blocks(file, 35, 66, skip_wrong=False)) == (list(range(35, 63)), [(63, 66)])


def test_a_file_whose_every_storage_chunk_is_damaged_has_only_gaps(tmp_path):
    file = write_numbered(tmp_path / "events.h5")
    for index in range(10):
        damage(file, index)
    rows, gaps = split(read_blocks(file, 0, N_EVENTS, skip_wrong=False))
    assert rows == []
    assert gaps == [(start, start + 7) for start in range(0, N_EVENTS, 7)]


def test_wrong_values_are_refused_with_their_row_and_what_to_do(tmp_path):
    file = write_numbered(tmp_path / "events.h5")
    set_value(file, 33, 1, np.inf)
    with pytest.raises(WrongValues) as caught:
        list(read_blocks(file, 0, N_EVENTS, skip_wrong=False))
    assert str(caught.value) == (
        f"{file.path}: row 33, eta of particle 0: infinite (inf). `--tolerate FRACTION` leaves such events out."
    )


@pytest.mark.parametrize("storage_rows", [0, 7, N_EVENTS])
def test_a_wrong_event_is_left_out_alone_however_the_file_is_stored(tmp_path, storage_rows):
    file = write_numbered(tmp_path / "events.h5", N_EVENTS, storage_rows)
    set_value(file, 33, 0, -5.0)
    set_value(file, 34, 2100, 0.5)
    set_value(file, 69, 4, 1000.0)
    found = list(read_blocks(file, 0, N_EVENTS, skip_wrong=True))
    assert split(found) == ([*range(33), *range(35, 69)], [(33, 34), (34, 35), (69, 70)])
    assert [block.reason for block in found if isinstance(block, Gap)] == [
        f"{file.path}: row 33, pt of particle 0: negative pt (-5). "
        "If that marks places without a particle, `--padding -5` reads it so.",
        f"{file.path}: row 34, column 2100: a label that is neither 0 nor 1 (0.5).",
        f"{file.path}: row 69, eta of particle 1: |eta| above 15 (1000).",
    ]


def test_wrong_values_beside_a_damaged_storage_chunk_are_still_found(tmp_path):
    file = write_numbered(tmp_path / "events.h5")
    set_value(file, 3, 0, np.nan)
    damage(file, 4)
    with pytest.raises(WrongValues, match="row 3, pt of particle 0"):
        list(read_blocks(file, 0, N_EVENTS, skip_wrong=False))
    assert split(read_blocks(file, 0, N_EVENTS, skip_wrong=True))[1] == [(3, 4), (28, 35)]


def test_a_black_box_has_no_labels(tmp_path):
    with h5py.File(tmp_path / "box.h5", "w") as handle:
        handle.create_dataset("df/block0_values", data=np.ones((20, 2100)), chunks=(7, 2100))
    found = list(read_blocks(open_event_file(tmp_path / "box.h5"), 7, 20, skip_wrong=False))
    assert [block.labels for block in found if isinstance(block, EventBlock)] == [None]
    assert found[0].rows.tolist() == list(range(7, 20))


def test_a_system_that_cannot_read_leaves_no_gap(tmp_path, monkeypatch):
    file = write_numbered(tmp_path / "events.h5")

    def refuse(*_):
        raise OSError("Can't read data (file read failed: errno = 5, error message = 'Input/output error')")

    monkeypatch.setattr(h5py.Dataset, "read_direct", refuse)
    with pytest.raises(TransientError, match="rows 0 to 69"):
        list(read_blocks(file, 0, N_EVENTS, skip_wrong=True))


def test_a_table_that_is_gone_by_now_is_damage_and_not_an_empty_answer(tmp_path):
    file = write_numbered(tmp_path / "events.h5")
    with h5py.File(file.path, "r+") as handle:
        del handle["df/block0_values"]
    rows, gaps = split(read_blocks(file, 0, N_EVENTS, skip_wrong=False))
    assert (rows, gaps[0], gaps[-1]) == ([], (0, 7), (63, 70))
