"""What a run's report says of its accuracy, in sentences that go no further than the intervals."""

import re
from dataclasses import replace

import numpy as np
import pytest

from lhcq.evaluate.metrics import metrics_of
from lhcq.report.collect import RunView, collect_run
from lhcq.report.plots import (
    binomial_band,
)
from lhcq.report.table import digits_apart
from lhcq.report.verdict import verdict_of
from lhcq.workspace import Workspace


@pytest.mark.parametrize(
    ("right", "n", "said"),
    [
        (560, 600, "passes the reference study's 0.835: the whole interval lies above it"),
        (510, 600, "is above the reference study's 0.835, but its interval includes it"),
        (495, 600, "does not pass the reference study's 0.835, though its interval includes it"),
        (400, 600, "falls short of the reference study's 0.835: the whole interval lies below it"),
    ],
)
def test_the_verdict_goes_no_further_than_the_interval(
    finished: Workspace, right: int, n: int, said: str
) -> None:
    assert said in verdict_of(with_test_accuracy(finished, right, n, n_signal=n // 2))[0]


def test_no_verdict_is_contradicted_by_the_numbers_that_it_prints(finished: Workspace) -> None:
    for right in range(480, 560):
        said = verdict_of(with_test_accuracy(finished, right, 600, n_signal=300))[0]
        value, low, high = map(float, re.findall(r"accuracy ([\d.]+) \[([\d.]+), ([\d.]+)\]", said)[0])
        kept = {
            "lies above": low > 0.835,
            "not settled": low <= 0.835 < value,
            "does not pass": value <= 0.835 <= high,
            "lies below": high < 0.835,
        }
        assert [what for what, true in kept.items() if true and what in said], said


def test_a_difference_of_auc_never_rounds_to_the_other_side_of_zero() -> None:
    assert digits_apart((0.00123, 0.00004, 0.00242), 0.0, least=4) == 5
    assert digits_apart((0.0123, -0.0004, 0.0242), 0.0, least=4) == 4


def test_unknown_answers_are_said_and_counted_as_the_study_counts_them(finished: Workspace) -> None:
    view = collect_run(finished, "demo")
    assert view.test is not None
    scores = view.test.scores
    said = {
        "none": np.full(len(scores.labels), -1),
        "all": scores.p_signal >= 0.5,
    }
    verdicts = {
        what: " ".join(
            verdict_of(
                replace(
                    view,
                    test=replace(view.test, metrics=metrics_of(scores.labels, scores.p_signal, answers)),
                )
            )
        )
        for what, answers in said.items()
    }
    assert (
        "600 of 600 are neither label, and 0.0% are the likelier one; counting the unknown as wrong, as the study "
        "did, they are right for 0.000 [0.000, 0.006]" in verdicts["none"]
    )
    assert "the model answers each event with the likelier label, and with nothing else" in verdicts["all"]
    old = view.test.metrics.model_copy(update={"unknown": 7, "generated_accuracy": None})
    assert "For 7 of 600 events neither label is the likeliest token" in " ".join(
        verdict_of(replace(view, test=replace(view.test, metrics=old)))
    )


def test_an_unequal_test_part_is_not_compared_with_the_study(finished: Workspace) -> None:
    verdict = " ".join(verdict_of(with_test_accuracy(finished, 560, 600, n_signal=54)))
    assert "cannot be compared" in verdict
    assert "one constant answer would be right for 91.0%" in verdict


def with_test_accuracy(workspace: Workspace, right: int, n: int, *, n_signal: int) -> RunView:
    low, high = binomial_band(np.array([float(right)]), n, z=1.96)
    view = collect_run(workspace, "demo")
    assert view.test is not None
    known = {"accuracy": right / n, "n": n, "n_signal": n_signal}
    known |= {"accuracy_low": float(low[0]), "accuracy_high": float(high[0])}
    return replace(view, test=replace(view.test, metrics=view.test.metrics.model_copy(update=known)))
