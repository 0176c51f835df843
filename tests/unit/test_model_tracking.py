"""Trackers: a copy of what a run says, for who has one."""

from importlib.util import find_spec

import pytest

from lhcq.errors import BadInput
from lhcq.model.tracking import require_tracker, tell_tracker


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_refused_in_one_line(name) -> None:
    if find_spec(name):
        require_tracker(name)
        return
    with pytest.raises(BadInput, match=f"--track {name}: it is not installed") as refused:
        require_tracker(name)
    assert "\n" not in str(refused.value)


def test_tensorboard_is_told_a_run_in_pieces(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_dir = tmp_path / "run"
    tell_tracker("tensorboard", run_dir, [(1, {"loss": 0.7}), (2, {"loss": 0.5})])
    tell_tracker("tensorboard", run_dir, [(2, {"validation/auc": 0.8}), (3, {"loss": 0.25})])
    seen = EventAccumulator(str(run_dir / "tensorboard"))
    seen.Reload()
    assert [(one.step, one.value) for one in seen.Scalars("loss")] == [
        (1, pytest.approx(0.7)),
        (2, 0.5),
        (3, 0.25),
    ]
    assert [one.step for one in seen.Scalars("validation/auc")] == [2]
