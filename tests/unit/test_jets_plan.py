import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.errors import BadInput
from lhcq.jets.plan import (
    FEWEST_CHUNKS,
    FEWEST_EVENTS,
    SECONDS_PER_EVENT,
    TASK_SECONDS,
    Chunk,
    events_per_chunk,
    plan_chunks,
)

sizes = st.integers(1, 5000)


@given(n_events=st.integers(0, 200_000), storage_rows=sizes, target=st.integers(20, 50_000))
def test_chunks_cover_every_row_once_on_storage_boundaries_and_are_near_the_target(
    n_events, storage_rows, target
):
    chunks = plan_chunks(n_events, storage_rows=storage_rows, target=target)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    position = 0
    for chunk in chunks:
        assert chunk.start == position < chunk.stop
        assert chunk.start % storage_rows == 0
        assert chunk.stop - chunk.start < target + storage_rows
        position = chunk.stop
    assert position == n_events


@given(n_events=st.integers(1, 200_000), storage_rows=st.integers(1, 100), target=st.integers(2000, 50_000))
def test_chunks_are_alike_when_storage_is_finer_than_the_target(n_events, storage_rows, target):
    sizes = [
        chunk.stop - chunk.start for chunk in plan_chunks(n_events, storage_rows=storage_rows, target=target)
    ]
    assert max(sizes) - min(sizes) <= 2 * storage_rows


def test_the_real_file_is_cut_on_its_storage_rows():
    assert list(plan_chunks(1000, storage_rows=7, target=400)) == [
        Chunk(index=0, start=0, stop=329),
        Chunk(index=1, start=329, stop=665),
        Chunk(index=2, start=665, stop=1000),
    ]


@pytest.mark.parametrize("numbers", [(-1, 1, 1), (10, 0, 1), (10, 1, 0)])
def test_senseless_numbers_are_refused(numbers):
    n_events, storage_rows, target = numbers
    with pytest.raises(BadInput, match="at least one event per chunk"):
        plan_chunks(n_events, storage_rows=storage_rows, target=target)


@pytest.mark.parametrize("features", ["jets", "full"])
@given(n_events=st.integers(0, 5_000_000))
def test_a_task_never_takes_longer_than_its_time_nor_is_cut_too_fine(features, n_events):
    size = events_per_chunk(n_events, features)
    assert FEWEST_EVENTS <= size <= round(TASK_SECONDS / SECONDS_PER_EVENT[features])
    if n_events >= FEWEST_CHUNKS * FEWEST_EVENTS:
        assert len(plan_chunks(n_events, storage_rows=1, target=size)) >= FEWEST_CHUNKS


@given(smaller=st.integers(0, 5_000_000), more=st.integers(0, 5_000_000))
def test_a_larger_file_has_no_smaller_chunks(smaller, more):
    assert events_per_chunk(smaller, "jets") <= events_per_chunk(smaller + more, "jets")


def test_a_small_file_is_one_chunk_a_middling_one_sixteen_and_a_large_one_many():
    assert events_per_chunk(100, "jets") == events_per_chunk(4000, "full") == 250
    assert events_per_chunk(20_000, "jets") == events_per_chunk(20_000, "full") == 1250
    assert events_per_chunk(1_100_000, "jets") == round(TASK_SECONDS / SECONDS_PER_EVENT["jets"])
    assert events_per_chunk(1_100_000, "full") == round(TASK_SECONDS / SECONDS_PER_EVENT["full"])


def test_the_seconds_of_a_task_can_be_asked_for():
    sizes = [events_per_chunk(1_100_000, "jets", seconds=seconds) for seconds in (1e-9, 1.0, 2.0)]
    assert sizes[0] == 1
    assert sizes[2] == pytest.approx(2 * sizes[1], abs=1)
