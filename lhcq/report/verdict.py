"""What may be said of a run, and of its alarms, in words; commands that print them draw nothing."""

from lhcq.records.metrics import Metrics
from lhcq.records.run_state import Alarm, Answer
from lhcq.report.table import digits_apart, printed_interval
from lhcq.report.views import RunView

STUDY_ACCURACY = 0.835
"""Best checkpoint of the reference study: 1,000 validation events, 1:1 (its diary, 2025-10-16)."""
STUDY_INTERVAL = (0.811, 0.857)
"""95% Wilson interval of the study's 835 right in 1,000."""


def verdict_of(view: RunView) -> list[str]:
    """What may be said of the run, in sentences that go no further than the intervals allow."""
    ended = (
        [f"The run is {view.state}: {view.message}"]
        if view.state in {"failed", "incomplete", "cancelled"}
        else []
    )
    return ended + _judgement(view) + ([view.replaced] if view.replaced else [])


def _judgement(view: RunView) -> list[str]:
    if view.test is None:
        if view.validation is None:
            return ["No checkpoint has been validated yet, so there is nothing to judge."]
        return [
            f"So far, validation prefers the checkpoint at step {view.best_step}. Its metrics are those of the best "
            "of several on the same events, and so a little too good.",
            "The test subset is scored once, when training has ended.",
        ]
    metrics = view.test.metrics
    sentences = _against_study(metrics)
    sentences += _in_words(metrics)
    beside = [
        f"{printed_interval(found.model_dump(), 'auc')} for {trees.name}"
        for trees, found in view.baseline.beside("test")
        if found
    ]
    if beside and metrics.auc is not None:
        own = printed_interval(metrics.model_dump(), "auc")
        sentences.append(f"AUC {own}, beside {' and '.join(beside)}, on the same events.")
    return sentences


def _in_words(metrics: Metrics) -> list[str]:
    """How the generated answers, which the study's accuracy is of, differ from the likelier labels."""
    if metrics.unknown is None:
        return []
    if metrics.generated_accuracy is None:  # validated by an lhcq that generated no answers
        return (
            [
                f"The accuracy is that of the choice between the two labels. For {metrics.unknown:,} of "
                f"{metrics.n:,} events neither label is the likeliest token, so that free generation would not say "
                "it."
            ]
            if metrics.unknown
            else []
        )
    if metrics.agreement == 1.0:
        return [
            "Asked for words, the model answers each event with the likelier label, and with nothing else."
        ]
    share = metrics.agreement or 0.0
    agreed = f"{100 * share:.{digits_apart([100 * share], 100.0, least=1)}f}%"
    return [
        f"The accuracy is that of the choice between the two labels. Of the generated answers {metrics.unknown:,} of "
        f"{metrics.n:,} are neither label, and {agreed} are the likelier one; counting the unknown as "
        f"wrong, as the study did, they are right for "
        f"{printed_interval(metrics.model_dump(), 'generated_accuracy')}."
    ]


def _against_study(metrics: Metrics) -> list[str]:
    """Whether the test accuracy passes the study's, and what the comparison is worth."""
    accuracy, low, high = metrics.accuracy, metrics.accuracy_low, metrics.accuracy_high
    said = f"Test accuracy {printed_interval(metrics.model_dump(), 'accuracy', beside=STUDY_ACCURACY)}"
    share = metrics.n_signal / metrics.n
    if abs(share - 0.5) > 0.05:
        return [
            f"{said} cannot be compared with the reference study's {STUDY_ACCURACY}, which is for equal classes.",
            f"Here {share:.1%} of the events are signal, and one constant answer would be right for "
            f"{max(share, 1 - share):.1%}; the balanced accuracy is "
            f"{printed_interval(metrics.model_dump(), 'balanced_accuracy')}.",
        ]
    if low > STUDY_ACCURACY:
        judged = f"passes the reference study's {STUDY_ACCURACY}: the whole interval lies above it."
    elif accuracy > STUDY_ACCURACY:
        judged = (
            f"is above the reference study's {STUDY_ACCURACY}, but its interval includes it: not settled."
        )
    elif high >= STUDY_ACCURACY:
        judged = f"does not pass the reference study's {STUDY_ACCURACY}, though its interval includes it."
    else:
        judged = f"falls short of the reference study's {STUDY_ACCURACY}: the whole interval lies below it."
    return [
        f"{said} {judged}",
        f"The study's accuracy is the best of its checkpoints on 1,000 events ({STUDY_INTERVAL[0]} to "
        f"{STUDY_INTERVAL[1]} at 95%), and those are other events than these.",
    ]


def said_alarm(alarm: Alarm, answer: Answer | None, *, paused: bool) -> str:
    """One line about an alarm, with what followed it; `paused`: the run is, by one of its alarms."""
    followed = {
        "tell": "told",
        "stop": "training ends",
        "pause": "the run is paused" if paused else "the run was to be paused",
        "rollback": "it goes back",
    }
    outcome = followed[alarm.act]
    if alarm.act == "rollback" and answer and answer.answer == "rollback":
        outcome = f"back to step {answer.origin}, at {answer.rate_factor:.2g} of the planned rate"
    elif alarm.act == "pause" and answer:
        outcome = "the run was paused, and resumed"
    return f"Step {alarm.step}, {alarm.kind}: {alarm.message} ({outcome})."
