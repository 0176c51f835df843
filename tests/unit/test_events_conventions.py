"""Files whose numbers mean something else than the released ones: another label, another padding."""

from pathlib import Path

import numpy as np
import pytest

from lhcq.config import CLUSTER_PRESETS, ClusterConfig, Conventions
from lhcq.errors import BadInput
from lhcq.events.blocks import read_blocks
from lhcq.events.featurefile import OF_JETS, open_feature_file, read_features
from lhcq.events.inspect import inspect_file
from lhcq.events.layout import WrongValues, open_event_file, read_rows
from tests.unit.test_events_frames import PARTICLES, TRUTH, check, columns_of, write_pandas

NUMBERS = list(range(2100))


def write_events(path: Path, particles: np.ndarray, labels: np.ndarray) -> Path:
    return write_pandas(path, {**columns_of(NUMBERS, particles), 2100: labels.astype(float)})


@pytest.mark.parametrize(("label", "meaning"), [(2, 1), (-1, 1), (2, 0)])
def test_another_label_is_named_with_its_remedy_and_read_by_it(
    tmp_path: Path, label: int, meaning: int
) -> None:
    path = write_events(tmp_path / "events.h5", PARTICLES, np.where(TRUTH, label, 0))
    with pytest.raises(WrongValues, match=rf"row 1, .*\({label}\).*`--label-map {label}=1`"):
        read_rows(open_event_file(path), 0, 24)
    (problem,) = inspect_file(path).problems
    assert f"6 rows in all. If {label} is a second signal, `--label-map {label}=1` reads it so" in problem
    conventions = Conventions(label_map={str(label): meaning})
    assert inspect_file(path, conventions).problems == []
    labels = read_rows(open_event_file(path, conventions), 0, 24).labels
    assert labels is not None
    assert labels.tolist() == (TRUTH * meaning).tolist()


def test_a_second_signal_of_a_features_file_is_named_and_mapped(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    columns = {name: rng.uniform(100, 200, 24) for name in OF_JETS}
    path = write_pandas(tmp_path / "a.features.h5", {**columns, "label": np.where(TRUTH, 2.0, 0.0)})
    with pytest.raises(BadInput, match=r"row 1, label: .*\(2\).*`--label-map 2=1` reads it so"):
        list(read_features(open_feature_file(path), rows=10))
    (problem,) = inspect_file(path).problems
    assert "6 rows in all" in problem
    conventions = Conventions(label_map={"2": 1})
    assert inspect_file(path, conventions).labels == {"background": 18, "signal": 6}
    blocks = list(read_features(open_feature_file(path, conventions), rows=10))
    assert sum(int(block.labels.sum()) for block in blocks if block.labels is not None) == 6


@pytest.mark.parametrize(("mark", "padding"), [(np.nan, "nan"), (-999.0, -999.0)])
def test_places_that_are_marked_as_empty_are_empty(tmp_path: Path, mark: float, padding: float | str) -> None:
    empty = np.random.default_rng(2).random((24, 700)) < 0.9
    slots = np.repeat(empty, 3, axis=1)
    path = write_events(tmp_path / "events.h5", np.where(slots, mark, PARTICLES), TRUTH)
    with pytest.raises(WrongValues, match=rf"row 0, pt of particle .* `--padding {mark:g}` reads it so"):
        read_rows(open_event_file(path), 0, 24)
    assert any(f"`--padding {mark:g}`" in problem for problem in inspect_file(path).problems)
    file = open_event_file(path, Conventions(padding=padding))
    expected = np.where(slots, 0.0, PARTICLES).reshape(24, 700, 3)
    np.testing.assert_array_equal(read_rows(file, 0, 24).particles, expected)
    blocks = list(read_blocks(file, 0, 24, skip_wrong=False))
    np.testing.assert_array_equal(np.concatenate([block.particles for block in blocks]), expected)
    assert inspect_file(path, Conventions(padding=padding)).problems == []


def test_a_number_that_is_missing_in_a_particle_is_no_padding(tmp_path: Path) -> None:
    particles = PARTICLES.copy()
    particles[3, 31] = np.nan  # eta of the eleventh
    path = write_events(tmp_path / "events.h5", particles, TRUTH)
    with pytest.raises(WrongValues, match="row 3, eta of particle 10: not a number"):
        read_rows(open_event_file(path, Conventions(padding="nan")), 0, 24)


def test_what_is_usual_leaves_no_trace_in_a_jobs_record() -> None:
    older = {"algorithm": "antikt", "radius": 1.0, "pt_min": 20.0, "max_jets": 2, "features": "full"}
    assert ClusterConfig(features="full").model_dump() == older
    assert CLUSTER_PRESETS["lhco"].model_dump() == {**older, "axes": "wta-kt"}
    asked = ClusterConfig(padding="nan", label_map={"2": 1})
    assert ClusterConfig.checked(**asked.model_dump()) == asked
    assert asked.model_dump()["label_map"] == {"2": 1}


@pytest.mark.parametrize("given", [{"label_map": {"two": 1}}, {"label_map": {"2": 3}}, {"padding": "no"}])
def test_conventions_that_make_no_sense_are_refused(given: dict) -> None:
    with pytest.raises(BadInput, match="Conventions: "):
        Conventions.checked(**given)


def test_a_file_as_released_is_read_as_before(tmp_path: Path) -> None:
    check(write_events(tmp_path / "events.h5", PARTICLES, TRUTH))
