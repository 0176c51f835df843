"""The arrays that CATHODE and sk_cathode make of features files become datasets, by the sources that wrote them."""

import numpy as np
import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.errors import BadInput
from lhcq.events.featurefile import open_feature_file, read_features
from lhcq.events.inspect import inspect_file
from lhcq.prompts.features import compute_features
from lhcq.prompts.templates import describe_template
from lhcq.records.events import read_dataset, read_events, read_schema
from lhcq.report.quantities import plan_quantities
from lhcq.workspace import Workspace
from tests.feature_files import make_values

N = 60


def reduce_features(values: np.ndarray) -> np.ndarray:
    """What those programs make of 15 columns of a features file: by mass and in TeV."""
    first, second = values[:, 0:7], values[:, 7:14]
    light, heavy = (
        np.where((first[:, 3] < second[:, 3])[:, None] == is_light, first, second)
        for is_light in (True, False)
    )
    energy = sum(np.sqrt((jet[:, :4] ** 2).sum(axis=1)) for jet in (first, second))
    momentum = first[:, :3] + second[:, :3]
    mjj = np.sqrt(energy**2 - (momentum**2).sum(axis=1))
    tau21 = [jet[:, 5] / (1e-5 + jet[:, 4]) for jet in (light, heavy)]
    masses = [mjj / 1000, light[:, 3] / 1000, (heavy[:, 3] - light[:, 3]) / 1000]
    return np.column_stack([*masses, *tau21, values[:, 14]])


@pytest.fixture
def array(tmp_path, monkeypatch):
    monkeypatch.setenv("LHCQ_WORKSPACE", str(tmp_path / "place"))
    np.save(tmp_path / "outerdata_train.npy", reduce_features(make_values(N)))
    return tmp_path / "outerdata_train.npy"


def run(*arguments):
    return CliRunner().invoke(cli, [str(one) for one in arguments], catch_exceptions=True)


def test_the_features_are_those_of_the_features_file_that_the_array_was_made_of(array, tmp_path) -> None:
    from tests.feature_files import COLUMNS, import_file, write_frame

    assert run("import", array, "--name", "reduced").exit_code == 0
    full = write_frame(tmp_path / "a.features.h5", [(list(COLUMNS), make_values(N))])
    import_file(full, tmp_path / "full")
    place = Workspace(tmp_path / "place")
    made = [
        compute_features(read_events(directory, ["row", "label", "jets", "mjj"]))
        for directory in (place.dataset("reduced"), tmp_path / "full")
    ]
    assert set(made[0]) == {"mjj", "m_heavy", "m_light", "tau21_heavy", "tau21_light"}
    for name, values in made[0].items():
        np.testing.assert_allclose(values, made[1][name], rtol=1e-6)
    manifest = read_dataset(place.dataset("reduced"))
    assert manifest["labels"] == {"signal": N // 4, "background": N - N // 4, "unknown": 0}
    assert (manifest["tau_axes"], manifest["jet_columns"]) == ("published", ["m", "tau21"])


def test_a_prompt_is_made_of_what_is_known(array, tmp_path) -> None:
    run("import", array, "--name", "reduced")
    schema = read_schema(Workspace(tmp_path / "place").dataset("reduced"))
    known = ("mjj", "m_heavy", "m_light", "tau21_heavy", "tau21_light")
    assert describe_template("compact", schema).columns == known


def test_the_distance_is_read_where_it_is_there(array, tmp_path) -> None:
    np.save(tmp_path / "wide.npy", np.insert(np.load(array), 5, 3.0, axis=1))
    assert run("import", tmp_path / "wide.npy", "--name", "wide").exit_code == 0
    directory = Workspace(tmp_path / "place").dataset("wide")
    assert "delta_r" in read_schema(directory).names
    assert set(read_events(directory, ["delta_r"])["delta_r"].to_pylist()) == {3.0}


def test_inspect_says_what_it_is_and_what_is_next(array) -> None:
    report = inspect_file(array)
    assert (report.kind, report.rows, report.problems) == ("features", N, [])
    assert report.labels == {"background": N - N // 4, "signal": N // 4}
    assert report.next == [f"lhcq import {array} --name NAME"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values * [1000, 1000, 1000, 1, 1, 1], r"row 0: .* is no mjj"),
        (lambda values: values[:, [1, 0, 2, 3, 4, 5]], r"is no mjj"),
        (lambda values: np.where(np.arange(6) == 3, np.nan, values), r"tau21_light: not finite"),
        (lambda values: np.where(np.arange(6) == 5, 3.0, values), r"row 0.*label"),
        (lambda values: np.where(np.arange(6) == 2, -values, values), r"is no m_apart"),
    ],
)
def test_another_order_another_unit_and_impossible_values_are_refused(array, tmp_path, change, said) -> None:
    np.save(tmp_path / "other.npy", np.ascontiguousarray(change(np.load(array))))
    with pytest.raises(BadInput, match=said):
        list(read_features(open_feature_file(tmp_path / "other.npy"), rows=16))
    assert run("import", tmp_path / "other.npy", "--name", "other").exit_code != 0
    assert not Workspace(tmp_path / "place").dataset("other").exists()


def test_what_is_known_can_be_drawn(array, tmp_path) -> None:
    run("import", array, "--name", "reduced")
    drawn, _ = plan_quantities(read_schema(Workspace(tmp_path / "place").dataset("reduced")))
    names = {"mjj", "m_heavier", "m_lighter", "tau21_heavier", "tau21_lighter"}
    assert {one.name for one in drawn} >= names
