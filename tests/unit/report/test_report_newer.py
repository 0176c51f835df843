"""A run whose results a later lhcq wrote is read: what is not known of them is left out, and nothing is rewritten."""

import json
from pathlib import Path

import pytest

from lhcq.cli.runs import run_answer
from lhcq.errors import NewerFormat
from lhcq.records.failures import Failure, Holder, failures_of, record_failure
from lhcq.records.jobs import load_job, outcome_of
from lhcq.records.metrics import CalibratedMetrics, Calibration, NaturalMetrics
from lhcq.records.run_state import Alarm, Answer, Judgement, current_course, write_answer, write_judgement
from lhcq.records.validations import read_metrics, write_calibrated
from lhcq.workspace import RunPaths, Workspace
from tasks.jobs.store import mend_outcome
from tests.older import with_later_fields
from tests.reported import write_run, write_split

NATURAL = NaturalMetrics(
    threshold=0.9,
    signal_fraction=0.01,
    signal_efficiency=0.5,
    background_efficiency=0.01,
    precision=0.3,
    precision_low=0.1,
    significance_improvement=5.0,
    significance_improvement_low=3.0,
)


@pytest.fixture
def run(place: Workspace) -> Path:
    """A run with a record of each kind that a report reads."""
    write_split(place.split("half"))
    write_run(place, "demo")
    directory = place.run("demo")
    fitted = Calibration(n=40, n_signal=20, temperature=1.1, balanced_threshold=0.5, rare_threshold=0.9)
    tested = read_metrics(RunPaths(directory).test)
    write_calibrated(directory, CalibratedMetrics(calibration=fitted, calibrated=tested, natural=(NATURAL,)))
    write_judgement(
        directory,
        Judgement(
            step=20,
            best=20,
            previous_best=None,
            only_this_right=None,
            only_previous_right=None,
            p_value=None,
            stop="",
        ),
    )
    alarm = Alarm(kind="collapse", step=20, after=20, message="all alike", act="tell")
    path = RunPaths(directory).alarm(20, 0, "collapse")
    path.parent.mkdir()
    path.write_text(alarm.model_dump_json())
    by = Holder(host="node7", pid=1, since=1.0, log=None)
    unit = "lhcq.validate:demo:20"
    failure = Failure(unit=unit, message="lost", permanent=False, attempts=5, by=by, traceback="")
    record_failure(place, load_job(place, "train", "demo"), failure)
    return directory


def test_what_a_later_lhcq_adds_to_results_and_states_is_left_out(place: Workspace, run: Path) -> None:
    job = load_job(place, "train", "demo")
    before = run_answer(place, "demo"), failures_of(place, job), outcome_of(place, job)
    with_later_fields(run)
    stood = {path: path.read_bytes() for path in run.rglob("*.json")}
    assert all(b"of_a_later_lhcq" in text for path, text in stood.items() if path.name != "job.json")
    assert (run_answer(place, "demo"), failures_of(place, job), outcome_of(place, job)) == before
    assert mend_outcome(place, job) == before[2]
    assert {path: path.read_bytes() for path in run.rglob("*.json")} == stood


def test_what_decides_how_a_run_goes_on_is_refused_by_name(place: Workspace, run: Path) -> None:
    course = current_course(run)
    write_answer(run, course, Answer(answer="resume", origin=course.step, rate_factor=1.0))
    path = RunPaths(run).answer(course.step, course.round)
    path.write_text(json.dumps({**json.loads(path.read_text()), "warm_up": 10}))
    with pytest.raises(
        NewerFormat, match=r"warm_up is no value that there is\)\. Use that lhcq or a newer one\.$"
    ):
        current_course(run)
