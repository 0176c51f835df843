"""Names of checkpoints: numbers, tags, `best` and `latest`."""

import pytest

from lhcq.errors import BadInput, LhcqError, NameTaken, NotThere
from lhcq.evaluate.validation import write_validation
from lhcq.records.tags import resolve_step, tag_step, tags_of
from lhcq.storage import MANIFEST


@pytest.fixture
def run_dir(place):
    """A run with checkpoints 2, 4 and 6, of which 2 and 4 are validated and 4 is the better."""
    directory = place.run("run")
    for step in (2, 4, 6):
        place.checkpoint("run", step).mkdir(parents=True)
        (place.checkpoint("run", step) / MANIFEST).write_text("{}")
    for step, p_signal in ((2, [0.6, 0.4, 0.9, 0.2]), (4, [0.1, 0.2, 0.9, 0.8])):
        final = place.validation("run", step)
        write_validation(
            final, step=step, rows=range(4), labels=[0, 0, 1, 1], p_signal=p_signal, answers=None
        )
    return directory


def test_a_step_may_be_a_number_a_tag_best_or_latest(run_dir) -> None:
    tag_step(run_dir, 2, "v0.1")
    assert [resolve_step(run_dir, text) for text in ("6", "v0.1", "best", "latest")] == [6, 2, 4, 6]


def test_a_tag_stays_with_its_step(run_dir) -> None:
    tag_step(run_dir, 2, "v0.1")
    tag_step(run_dir, 2, "v0.1")
    with pytest.raises(NameTaken, match="names step 2 already"):
        tag_step(run_dir, 4, "v0.1")
    assert tags_of(run_dir) == {"v0.1": 2}


@pytest.mark.parametrize(("step", "tag"), [(2, "12"), (2, "best"), (2, "latest"), (2, "../up"), (3, "v1")])
def test_what_could_mislead_is_refused_and_leaves_no_tag(run_dir, step, tag) -> None:
    with pytest.raises((BadInput, NotThere)):
        tag_step(run_dir, step, tag)
    assert tags_of(run_dir) == {}


@pytest.mark.parametrize(
    ("text", "message"), [("5", "no checkpoint at step 5; it has 2, 4, 6"), ("v9", "no 'v9'")]
)
def test_a_checkpoint_that_is_not_there_is_named_in_one_line(run_dir, text, message) -> None:
    with pytest.raises(NotThere, match=message) as refused:
        resolve_step(run_dir, text)
    assert "\n" not in str(refused.value)


def test_no_run_and_no_validation_are_said(place, run_dir) -> None:
    with pytest.raises(NotThere, match="does not exist"):
        resolve_step(place.run("other"), "latest")
    place.run("new").mkdir()
    for text in ("best", "latest"):
        with pytest.raises(NotThere, match=r"no .* checkpoint yet"):
            resolve_step(place.run("new"), text)
    with pytest.raises(LhcqError):
        resolve_step(run_dir, "../2")
