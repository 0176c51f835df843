"""Signal among background: as many as asked for, the same with the same seed, each event once and unchanged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.jets.mix import mix_datasets
from lhcq.manifests import write_manifest
from lhcq.records.duplicates import Duplicates, read_firsts, write_duplicates
from lhcq.records.events import events_writer, find_dataset, read_dataset, read_events, read_schema
from lhcq.storage import read_json
from lhcq.workspace import Workspace
from tests.search_events import write_events


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path)
    write_events(place.dataset("one"), 20_000, 0, seed=1)
    write_events(place.dataset("two"), 500, 30, seed=2)
    write_events(place.dataset("signal"), 10, 200, seed=3)
    return place


def mixed(place: Workspace, name: str = "mix", **options: Any) -> pa.Table:
    wanted = {"n_signal": 50, "seed": 4, **options}
    mix_datasets(
        [place.dataset(one) for one in ("one", "two")], place.dataset("signal"), place.dataset(name), **wanted
    )
    return read_events(place.dataset(name), read_schema(place.dataset(name)).names)


def test_all_background_is_there_in_its_order_and_signal_anywhere_among_it(place: Workspace) -> None:
    table = mixed(place)
    labels = table["label"].to_numpy()
    assert table["row"].to_pylist() == list(range(20_550))
    assert (labels.sum(), len(labels)) == (50, 20_550)
    background = [
        read_events(place.dataset(name), ["label", "mjj"]).to_pandas().query("label == 0")["mjj"]
        for name in ("one", "two")
    ]
    np.testing.assert_array_equal(table["mjj"].to_numpy()[labels == 0], np.concatenate(background))
    places = np.flatnonzero(labels)
    assert places.min() < 4000
    assert places.max() > 16_000
    signal = read_events(place.dataset("signal"), ["label", "mjj"]).to_pandas().query("label == 1")["mjj"]
    assert set(table["mjj"].to_numpy()[labels == 1]) <= set(signal)


def test_the_seed_decides_and_nothing_else(place: Workspace) -> None:
    first, again, other = (mixed(place, name, seed=seed) for name, seed in (("a", 4), ("b", 4), ("c", 5)))
    assert first.equals(again)
    assert not first.equals(other)
    assert read_dataset(place.dataset("a"))["files"] == read_dataset(place.dataset("b"))["files"]


def test_some_of_the_background_are_so_many_of_either_dataset_by_chance(place: Workspace) -> None:
    table = mixed(place, n_background=4000, n_signal=0)
    assert table.num_rows == 4000
    assert find_dataset(place.dataset("mix"))["labels"] == {"signal": 0, "background": 4000, "unknown": 0}


def test_more_than_there_is_is_refused(place: Workspace) -> None:
    with pytest.raises(
        BadInput, match=r"signal: 201 signal events are asked for \(--signal-events\), and 200 have that"
    ):
        mixed(place, n_signal=201)
    assert not place.dataset("mix").exists()


def test_a_dataset_twice_is_refused(place: Workspace) -> None:
    one = place.dataset("one")
    with pytest.raises(BadInput, match="named twice as background"):
        mix_datasets([one, one], place.dataset("signal"), place.dataset("mix"), n_signal=1)


def test_backgrounds_that_share_events_are_refused(place: Workspace) -> None:
    write_events(place.dataset("again"), 20_000, 0, seed=1)  # the same file, clustered under another name
    one, again, signal = (place.dataset(name) for name in ("one", "again", "signal"))
    with pytest.raises(BadInput, match="again: 20,000 of its background events stand in one as well"):
        mix_datasets([one, again], signal, place.dataset("mix"), n_signal=1)
    mix_datasets([one], signal, place.dataset("trial"), n_signal=1, n_background=300)
    with pytest.raises(BadInput, match="one: 300 of its background events stand in trial as well"):
        mix_datasets([place.dataset("trial"), one], signal, place.dataset("mix"), n_signal=1)
    assert not place.dataset("mix").exists()


def test_an_event_that_is_signal_and_background_is_one_event_of_the_mixture(place: Workspace) -> None:
    directory = place.dataset("contrary")
    write_events(directory, 0, 60, seed=3)
    known = read_events(directory, read_schema(directory).names)
    place.dataset("background").mkdir()
    labels = pa.array(np.zeros(60), pa.int8())
    with events_writer(place.dataset("background"), known.schema) as writer:
        writer.write_table(
            known.set_column(known.schema.get_field_index("label"), "label", labels).cast(known.schema)
        )
    manifest = read_json(directory / "manifest.json")
    del manifest["files"]
    write_manifest(place.dataset("background"), **{**manifest, "name": "background"})
    mix_datasets([place.dataset("background")], directory, place.dataset("mix"), n_signal=20)
    found = read_dataset(place.dataset("mix"))
    assert found["duplicates"]["rows"] == found["duplicates"]["contradictory"] == 20
    table = read_events(place.dataset("mix"), ["row", "label", "mjj"])
    mjj, rows = table["mjj"].to_numpy(), table["row"].to_numpy()
    firsts = read_firsts(place.dataset("mix"), found, rows)
    np.testing.assert_array_equal(mjj[firsts], mjj)
    assert len(set(firsts.tolist())) == len(set(mjj.tolist())) == 60


def test_jets_that_were_made_otherwise_are_refused(place: Workspace) -> None:
    directory = place.dataset("signal")
    manifest = read_json(directory / "manifest.json")
    del manifest["files"]
    write_manifest(directory, **{**manifest, "config": {"radius": 0.5}})
    with pytest.raises(
        BadInput, match="signal: its events have other columns or other jets than those of one"
    ):
        mixed(place)


def test_what_is_not_there_is_said(place: Workspace) -> None:
    with pytest.raises(NotThere, match="dataset 'nothing' does not exist"):
        mix_datasets([place.dataset("one")], place.dataset("nothing"), place.dataset("mix"), n_signal=1)


def test_a_name_in_use_is_left_alone_and_the_same_mixture_is_given_again(place: Workspace) -> None:
    table = mixed(place)
    assert mixed(place).equals(table)
    with pytest.raises(NameTaken, match="exists already, with another source_sha256"):
        mixed(place, n_signal=51)


def test_duplicates_of_a_source_are_duplicates_of_the_mixture(place: Workspace) -> None:
    directory = place.dataset("two")
    manifest = read_json(directory / "manifest.json")
    del manifest["files"]
    labels = read_events(directory, ["label"])["label"].to_numpy()
    first, later = np.flatnonzero(labels == 0)[[3, 9]]
    write_duplicates(
        directory, Duplicates(rows=np.array([later]), firsts=np.array([first]), n_contradictory=0)
    )
    write_manifest(directory, **manifest)
    table = mixed(place)
    mjj = read_events(directory, ["mjj"])["mjj"].to_numpy()
    rows = table["row"].to_numpy()
    firsts = read_firsts(place.dataset("mix"), read_dataset(place.dataset("mix")), rows)
    (moved,) = np.flatnonzero(firsts != rows)
    assert table["mjj"][int(moved)].as_py() == mjj[later]
    assert table["mjj"][int(firsts[moved])].as_py() == mjj[first]


def test_the_command_tells_what_it_mixed(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    asked = [
        "mix",
        "mix",
        "--background",
        "one",
        "--background",
        "two",
        "--signal",
        "signal",
        "--signal-events",
        "9",
    ]
    done = CliRunner().invoke(cli, asked, standalone_mode=False)
    assert done.stdout.splitlines()[1] == "  signal 9, background 20,500"
    answered = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)
    assert answered["labels"] == {"signal": 9, "background": 20_500, "unknown": 0}
    assert answered["mixed"]["backgrounds"] == ["one", "two"]
    assert answered["seconds"] is None
