"""Reading and writing the LHC Olympics file layout."""

import errno
import itertools
import math
import os
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhcq.errors import BadInput
from lhcq.events.columns import N_PARTICLES, WIDTH
from lhcq.events.faults import find_faults
from lhcq.events.layout import EventFile, Piece, open_event_file, read_rows, write_event_file
from lhcq.events.soundness import count_particles


def make_events(n, *, seed=0):
    """Particles (n, 700, 3) and labels (n,) with between 1 and 700 particles an event."""
    rng = np.random.default_rng(seed)
    particles = np.zeros((n, N_PARTICLES, 3))
    for event, count in enumerate(rng.integers(1, N_PARTICLES + 1, size=n)):
        particles[event, :count, 0] = rng.exponential(10.0, size=count) + 1e-3
        particles[event, :count, 1] = rng.uniform(-5, 5, size=count)
        particles[event, :count, 2] = rng.uniform(-np.pi, np.pi, size=count)
    return particles, rng.integers(0, 2, size=n).astype(np.int8)


def write_values(path, values, **options):
    """A file with nothing but the table, as h5py writes it by itself."""
    with h5py.File(path, "w") as file:
        file.create_dataset("df/block0_values", data=values, **options)
    return path


def describe(node):
    """Everything under `node` that a reader can see, without the values of `block0_values`."""
    found = {}
    for name in node.attrs:
        attribute = node.attrs.get_id(name)
        kind = attribute.get_type()
        text = (kind.get_cset(), kind.get_strpad()) if isinstance(kind, h5py.h5t.TypeStringID) else None
        space = attribute.get_space().get_simple_extent_type()
        value = None if space == h5py.h5s.NULL else node.attrs[name].item()
        found[f"{node.name}@{name}"] = (kind.get_class(), kind.get_size(), text, space, value)
    if isinstance(node, h5py.Dataset):
        plist = node.id.get_create_plist()
        filters = [plist.get_filter(index) for index in range(plist.get_nfilters())]
        found[node.name] = (
            node.dtype,
            node.shape,
            node.maxshape,
            node.chunks,
            filters,
            plist.get_fill_time(),
        )
        if node.ndim == 1:
            found[f"{node.name}[:]"] = node[:].tolist()
    else:
        for name in node:
            found |= describe(node[name])
    return found


@pytest.fixture
def real_file():
    directory = os.environ.get("LHCQ_TEST_DATA")
    if not directory:
        pytest.skip("LHCQ_TEST_DATA does not name a directory with the real events.")
    return Path(directory) / "events_anomalydetection_tiny.h5"


def test_what_is_written_is_read_back(tmp_path):
    particles, labels = make_events(10)
    write_event_file(tmp_path / "events.h5", [(particles, labels)], 10, storage_rows=4)

    file = open_event_file(tmp_path / "events.h5")
    block = read_rows(file, 0, 10)

    assert file == EventFile(
        path=tmp_path / "events.h5",
        n_events=10,
        storage_rows=4,
        labelled=True,
        size=(tmp_path / "events.h5").stat().st_size,
        width=WIDTH,
        dtype="float64",
        filter="blosc level 5, shuffled",
        pieces=(
            Piece(
                table="/df/block0_values",
                shape=(10, WIDTH),
                columns=slice(0, WIDTH),
                targets=slice(0, WIDTH),
                whole=True,
            ),
        ),
    )
    np.testing.assert_array_equal(block.particles, particles)
    np.testing.assert_array_equal(block.labels, labels)
    assert block.labels.dtype == np.int8
    assert block.rows.tolist() == list(range(10))
    assert block.n_particles.tolist() == (particles[:, :, 0] > 0).sum(axis=1).tolist()


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 7), (3, 11), (6, 8), (19, 20), (0, 20)])
def test_a_range_of_rows_is_that_part_of_the_whole(tmp_path, start, stop):
    particles, labels = make_events(20)
    write_event_file(tmp_path / "events.h5", [(particles, labels)], 20, storage_rows=7)

    block = read_rows(open_event_file(tmp_path / "events.h5"), start, stop)

    np.testing.assert_array_equal(block.particles, particles[start:stop])
    np.testing.assert_array_equal(block.labels, labels[start:stop])
    assert block.rows.tolist() == list(range(start, stop))


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 3), (4, 3), (0, 6)])
def test_rows_that_the_file_does_not_have_are_refused(tmp_path, start, stop):
    write_event_file(tmp_path / "events.h5", [make_events(5)], 5)
    with pytest.raises(ValueError, match="of a file of 5"):
        read_rows(open_event_file(tmp_path / "events.h5"), start, stop)


@pytest.mark.parametrize(
    ("options", "storage_rows", "name"),
    [
        ({}, 1, "none"),
        ({"chunks": (5, 2101)}, 5, "none"),
        ({"chunks": (12, 100)}, 12, "none"),
        ({"chunks": (3, 2101), "compression": "gzip"}, 3, "deflate"),
    ],
)
def test_the_storage_chunk_and_filter_are_read_and_not_assumed(tmp_path, options, storage_rows, name):
    particles, labels = make_events(12)
    values = np.column_stack([particles.reshape(12, -1), labels])

    file = open_event_file(write_values(tmp_path / "events.h5", values, **options))

    assert (file.storage_rows, file.filter) == (storage_rows, name)
    np.testing.assert_array_equal(read_rows(file, 2, 9).particles, particles[2:9])


def test_a_filter_that_is_not_here_is_named_before_a_value_is_read(tmp_path):
    packed = write_values(tmp_path / "events.h5", np.ones((3, WIDTH)), **hdf5plugin.Zstd())
    h5py.h5z.unregister_filter(hdf5plugin.Zstd.filter_id)
    try:
        with pytest.raises(BadInput, match=r"HDF5 filter 32015 \(.*\), which is not here.*h5repack"):
            open_event_file(packed)
    finally:
        hdf5plugin.register("zstd")
    assert open_event_file(packed).n_events == 3


def test_a_black_box_has_no_labels(tmp_path):
    particles, _ = make_events(6)

    file = open_event_file(write_values(tmp_path / "box.h5", particles.reshape(6, -1)))

    assert not file.labelled
    assert read_rows(file, 1, 4).labels is None
    np.testing.assert_array_equal(read_rows(file, 1, 4).particles, particles[1:4])


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8"])
def test_other_floating_point_types_become_float64(tmp_path, dtype):
    particles, labels = make_events(6)
    values = np.column_stack([particles.reshape(6, -1), labels]).astype(dtype)

    file = open_event_file(write_values(tmp_path / "events.h5", values))
    block = read_rows(file, 0, 6)

    assert file.dtype == ("float32" if "4" in dtype else "float64")
    assert block.particles.dtype == np.dtype(np.float64)
    np.testing.assert_array_equal(block.particles.reshape(6, -1), values[:, :-1].astype(np.float64))


def test_an_empty_slot_between_particles_is_not_counted(tmp_path):
    particles, labels = make_events(3)
    particles[1] = 0
    particles[1, [0, 5, 699], 0] = 20.0
    write_event_file(tmp_path / "events.h5", [(particles, labels)], 3)
    assert read_rows(open_event_file(tmp_path / "events.h5"), 1, 2).n_particles.tolist() == [3]


@settings(max_examples=15)
@given(cuts=st.sets(st.integers(1, 22), max_size=6), storage_rows=st.integers(1, 30))
def test_the_bytes_do_not_depend_on_how_the_events_come_in(tmp_path_factory, cuts, storage_rows):
    directory = tmp_path_factory.mktemp("cuts")
    particles, labels = make_events(23)
    edges = [0, *sorted(cuts), 23]
    blocks = [(particles[a:b], labels[a:b]) for a, b in itertools.pairwise(edges)]

    write_event_file(directory / "whole.h5", [(particles, labels)], 23, storage_rows)
    write_event_file(directory / "blocks.h5", iter(blocks), 23, storage_rows)

    assert (directory / "whole.h5").read_bytes() == (directory / "blocks.h5").read_bytes()


@pytest.mark.parametrize("announced", [4, 6])
def test_a_wrong_number_of_events_is_refused(tmp_path, announced):
    with pytest.raises(ValueError, match="announced"):
        write_event_file(tmp_path / "events.h5", [make_events(5)], announced, storage_rows=2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_an_error_that_the_process_survives():
    with pytest.raises(OSError, match="No space left") as caught:
        write_event_file(Path("/dev/full"), (make_events(20, seed=seed) for seed in range(5)), 100)
    assert caught.value.errno == errno.ENOSPC


def test_the_real_file_reads_as_published(real_file):
    file = open_event_file(real_file)
    block = read_rows(file, 0, file.n_events)

    assert (file.n_events, file.storage_rows, file.width, file.labelled) == (1000, 7, 2101, True)
    assert int(block.labels.sum()) == 93
    assert (block.n_particles.min(), block.n_particles.max()) == (47, 482)


def test_a_written_file_has_the_structure_of_the_real_one(real_file, tmp_path):
    block = read_rows(open_event_file(real_file), 0, 1000)
    write_event_file(tmp_path / "copy.h5", [(block.particles, block.labels)], 1000, storage_rows=7)

    with h5py.File(real_file, "r", locking=False) as real, h5py.File(tmp_path / "copy.h5", "r") as copy:
        assert describe(copy) == describe(real)
        np.testing.assert_array_equal(copy["df/block0_values"][:], real["df/block0_values"][:])


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("place", "value", "sound"),
    [
        *((0, value, value in (0.0, 1e9)) for value in (0.0, 1e9, 1.1e9, -1e-9, math.nan, math.inf)),
        *((2098, value, abs(value) <= 15) for value in (15.0, -15.0, 15.1, -16.0, math.nan, -math.inf)),
        *((5, value, value == 1e5) for value in (1e5, math.nan, math.inf, -math.inf)),
    ],
)
def test_a_row_is_counted_unless_one_of_its_values_is_what_no_event_has(place, value, sound, labelled):
    rng = np.random.default_rng(1)
    values = np.zeros((3, 2100 + labelled))
    values[:, 0:300:3] = rng.exponential(20, (3, 100)) * (rng.random((3, 100)) < 0.5)
    values[1, place] = value
    counts = count_particles(values)
    assert (counts is not None) == sound == (find_faults(values, first_row=0) == [])
    if sound:
        assert counts.tolist() == (values[:, 0:2100:3] > 0).sum(axis=1).tolist()


@pytest.mark.parametrize(
    ("label", "sound"), [(0.0, True), (1.0, True), (0.5, False), (2.0, False), (math.nan, False)]
)
def test_a_label_is_nought_or_one(label, sound):
    values = np.zeros((2, 2101))
    values[1, 2100] = label
    assert (count_particles(values) is not None) == sound == (find_faults(values, first_row=0) == [])
