"""Master keys of black boxes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lhcq.errors import BadInput
from lhcq.events.masterkey import read_master_key

SPELLINGS = {0: ["0", "0.0", "0.000000000000000000e+00"], 1: ["1", "1.0", "2", "2.0", "1.0e+00", " 1 "]}


@given(
    st.lists(st.sampled_from([(label, text) for label, texts in SPELLINGS.items() for text in texts])),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n", "\n\n \n"]),
)
def test_a_key_gives_one_label_a_line_however_it_is_spelled(tmp_path_factory, lines, end, tail):
    path = tmp_path_factory.mktemp("key") / "box.masterkey"
    path.write_bytes((end.join(text for _, text in lines) + tail).encode())
    labels = read_master_key(path, len(lines))
    assert labels.dtype == np.int8
    assert labels.tolist() == [label for label, _ in lines]


@pytest.mark.parametrize(("n_events", "message"), [(2, "3 lines for 2 events"), (4, "3 lines for 4 events")])
def test_a_key_of_another_length_is_refused_with_both_numbers(tmp_path: Path, n_events, message):
    path = tmp_path / "key"
    path.write_text("0\n1\n0\n")
    with pytest.raises(BadInput, match=rf"key: {message}\. Give the master key that belongs"):
        read_master_key(path, n_events)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0\n3\n", "line 2 is '3', not 0"),
        ("0\n-1\n", "line 2 is '-1'"),
        ("0\n0.5\n", "line 2 is '0.5'"),
        ("0\n1\nnan\n", "line 3 is 'nan'"),
        ("0\n0_1\n", "line 2 is '0_1'"),
        ("label\n0\n1\n", "line 1 is 'label'"),
        ("0,1,1\n", "line 1 is '0,1,1'"),
        ("0\n\n1\n", "line 2 is blank"),
        ("0\n\n\n1\n", "line 2 is blank"),
        ("0" * 500, r"line 1 is '00000000000000000000\.\.\.'"),
        ("\N{SNOWMAN}\n", "line 1 is '\N{SNOWMAN}'"),
    ],
)
def test_anything_else_is_refused_with_its_line(tmp_path: Path, content, message):
    (tmp_path / "key").write_text(content)
    with pytest.raises(BadInput, match=message):
        read_master_key(tmp_path / "key", 3)


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path):
    (tmp_path / "key").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(5000))
    with pytest.raises(BadInput, match="line 1 is"):
        read_master_key(tmp_path / "key", 3)
    with pytest.raises(BadInput, match=r"gone: cannot be read \(No such file"):
        read_master_key(tmp_path / "gone", 3)
    with pytest.raises(BadInput, match=r"cannot be read \(Is a directory"):
        read_master_key(tmp_path, 3)


def test_a_long_key_keeps_its_order_and_box_3_s_second_signal_is_signal(tmp_path: Path):
    labels = np.random.default_rng(1).integers(0, 3, 200_000)
    (tmp_path / "key").write_text("".join(f"{label}.0\n" for label in labels))
    np.testing.assert_array_equal(
        read_master_key(tmp_path / "key", labels.size), (labels > 0).astype(np.int8)
    )
