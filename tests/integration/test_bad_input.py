"""Wrong input gets one line that says what, where and what to do; exit 1; nothing half-written."""

from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest


def missing(path: Path, good: Path) -> None:
    """No file."""


def truncated(path: Path, good: Path) -> None:
    path.write_bytes(good.read_bytes()[:-5000])


def not_hdf5(path: Path, good: Path) -> None:
    path.write_text("pt,eta,phi\n1,2,3\n")


def empty(path: Path, good: Path) -> None:
    path.write_bytes(b"")


def directory(path: Path, good: Path) -> None:
    path.mkdir()


def other_hdf5(path: Path, good: Path) -> None:
    with h5py.File(path, "w") as file:
        file["something"] = np.arange(10)


def wrong_width(path: Path, good: Path) -> None:
    write_block(path, np.zeros((5, 1000)))


def no_rows(path: Path, good: Path) -> None:
    write_block(path, np.zeros((0, 2101)))


def features(path: Path, good: Path) -> None:
    values = np.arange(1.0, 76.0).reshape(5, 15)
    values[:, 14] = [0, 1, 0, 1, 0]
    write_block(path, values)


def write_block(path: Path, values: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("df/block0_values", data=values)
        file["df/axis0"] = np.arange(values.shape[1])
        file["df/axis1"] = np.arange(values.shape[0])
        file["df/block0_items"] = np.arange(values.shape[1])


def changed_value(column: int, value: float) -> Callable[[Path, Path], None]:
    def change(path: Path, good: Path) -> None:
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "r+") as file:
            file["df/block0_values"][11, column] = value

    return change


DISK_SIZE = "8m"

FILES = {
    "missing": (missing, "no such file"),
    "truncated": (truncated, "truncated"),
    "not HDF5": (not_hdf5, "HDF5"),
    "empty": (empty, "empty"),
    "a directory": (directory, "directory"),
    "another HDF5 file": (other_hdf5, "df"),
    "wrong width": (wrong_width, "1000"),
    "no events": (no_rows, "no "),
    "a features file": (features, "features"),
    "NaN": (changed_value(0, np.nan), "row 11"),
    "a label of 2": (changed_value(2100, 2.0), "row 11"),
}
FOUND_BY_WORKERS = ("NaN", "a label of 2")


def refuses(asked, event_file: Path, path: Path, case: str) -> None:
    """A clustering of a bad file is refused by `asked`, the command or one in this process, and leaves no dataset."""
    make, expected = FILES[case]
    make(path, event_file)
    line = asked.refused("cluster", path, "--name", "bad")
    assert str(path) in line
    assert expected in line
    assert not list(asked.workspace.glob("datasets/*"))


@pytest.mark.parametrize("case", [case for case in FILES if case not in FOUND_BY_WORKERS])
def test_a_bad_event_file_is_refused_in_one_line(inside, event_file, tmp_path: Path, case: str) -> None:
    refuses(inside, event_file, tmp_path / "bad.h5", case)
    assert inside.ask("status")["jobs"] == []


@pytest.mark.parametrize("case", FOUND_BY_WORKERS)
def test_a_wrong_value_is_found_by_a_worker_and_told_in_one_line(
    lhcq, inside, event_file, tmp_path: Path, case: str
) -> None:
    refuses(lhcq, event_file, tmp_path / "bad.h5", case)
    assert [job["state"] for job in inside.ask("status")["jobs"]] == ["failed"]


@pytest.mark.parametrize("case", FILES)
def test_inspect_says_what_is_wrong_with_a_bad_file(inside, event_file, tmp_path: Path, case: str) -> None:
    make, expected = FILES[case]
    path = tmp_path / "bad.h5"
    make(path, event_file)
    if case == "missing":
        assert expected in inside.refused("inspect", path)
    elif case == "a features file":
        assert inside.ask("inspect", path)["kind"] == "features"
    else:
        done = inside.run("inspect", path, code=1)
        assert "problem: " in done.stdout
        assert expected in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("prepare", "nothing", "--split", "s"), "dataset 'nothing' does not exist"),
        (("export", "nothing"), "nothing"),
        (("train", "nothing", "--name", "r"), "split 'nothing' does not exist"),
        (("report", "nothing"), "run 'nothing' does not exist"),
        (("watch", "nothing"), "no job is called 'nothing'"),
        (("pause", "nothing"), "no job is called 'nothing'"),
        (("resume", "nothing"), "no job is called 'nothing'"),
        (("cancel", "nothing"), "no job is called 'nothing'"),
        (("report", "../../etc"), "cannot name a run"),
        (("train", "s", "--name", "a/b"), "cannot name a run"),
        (("prepare", "..", "--split", "s"), "cannot name a dataset"),
        (("prepare", "d", "--split", "s", "--ratio", "2:1"), "ratio"),
        (("train", "s", "--name", "r", "--rank", "0"), "rank"),
        (("generate", "nowhere/out.h5", "--background", "1", "--signal", "1"), "no such directory"),
        (("generate", "out.h5", "--background", "0", "--signal", "0"), "nothing to generate"),
    ],
)
def test_absent_and_impossible_names_are_refused_in_one_line(
    inside, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in inside.refused(*arguments)
    assert inside.ask("status")["jobs"] == []


def test_a_worker_without_a_broker_is_refused_in_one_line(lhcq) -> None:
    assert "LHCQ_BROKER_URL" in lhcq.refused("worker", "cpu")
    assert lhcq.ask("status")["jobs"] == []


def test_every_wrong_option_is_wrong_usage(inside) -> None:
    for arguments in (["cluster"], ["nonsense"], ["cluster", "x", "--name", "y", "--algorithm", "cone"]):
        inside.run(*arguments, code=2)


def test_all_faults_of_a_configuration_come_in_one_line(inside) -> None:
    line = inside.refused("train", "s", "--name", "r", "--rank", "0", "--dropout", "2", "--epochs", "-1")
    assert all(name in line for name in ("rank", "dropout", "epochs"))


def test_a_name_already_taken_is_refused_and_what_is_there_stays(lhcq, event_file, tmp_path: Path) -> None:
    first = lhcq.ask("cluster", event_file, "--name", "made")
    before = (lhcq.workspace / "datasets/made/events.parquet").stat()
    again = lhcq.ask("cluster", event_file, "--name", "made")
    assert again == first | {"seconds": None, "events_per_second": None}
    assert "2,100 events (done already): " in lhcq.run("cluster", event_file, "--name", "made").stdout
    assert "--radius 0.5, was 1.0" in lhcq.refused("cluster", event_file, "--name", "made", "--radius", "0.5")
    assert (lhcq.workspace / "datasets/made/events.parquet").stat() == before

    taken = tmp_path / "taken.h5"
    taken.write_text("mine")
    assert "exists already" in lhcq.refused("generate", taken, "--background", "1", "--signal", "1")
    assert taken.read_text() == "mine"


def test_detaching_without_workers_that_stay_is_refused(lhcq, event_file) -> None:
    assert "lhcq up" in lhcq.refused("cluster", event_file, "--name", "x", "--detach")


def test_a_model_directory_without_weights_is_refused(inside, event_file, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    inside.cluster_here(event_file, "made")
    line = inside.refused("prepare", "made", "--split", "s", "--model", model)
    assert str(model) in line
    assert not list(inside.workspace.glob("splits/*"))
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    assert "safetensors" in inside.refused("prepare", "made", "--split", "s", "--model", model)


def test_a_full_disk_is_refused_and_the_job_goes_on_once_there_is_room(
    lhcq, event_file, small_disk: Path
) -> None:
    lhcq.workspace = small_disk / "workspace"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(7_700_000))
    line = lhcq.refused("cluster", event_file, "--name", "made")
    assert "no space left on the device" in line
    assert str(small_disk) in line
    assert not list(small_disk.glob("workspace/datasets/*"))
    filler.unlink()
    lhcq.run("cluster", event_file, "--name", "made")


def test_a_disk_that_fills_up_on_the_way_ends_the_waiting_in_one_line(
    lhcq, event_file, small_disk: Path, until
) -> None:
    lhcq.workspace = small_disk / "workspace"
    command = ("cluster", event_file, "--name", "made", "--events-per-chunk", "14", "--workers", "1")
    process = lhcq.start(*command)
    parts = lhcq.workspace / "jobs/cluster-made/parts"
    until(lambda: list(parts.rglob("*.arrows")), "the first part")
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(9_000_000))
    done = lhcq.finish(process)
    assert done.returncode == 1, done.stderr
    assert "no space left on the device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(small_disk.glob("workspace/datasets/*"))
    filler.unlink()
    lhcq.run(*command)
