import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.quality_table import MADE_BY, auc_difference, tables
from benchmarks.rows import DOCUMENT, RESULTS, marks


def test_the_difference_of_two_aucs_has_the_error_of_their_paired_placements():
    rng = np.random.default_rng(1)
    labels = np.repeat([1, 0], [30, 40])
    one = np.round(rng.normal(labels, 1.0), 1)
    other = np.round(one + rng.normal(0, 0.8, 70), 1)
    shift, low, high = auc_difference(labels, one, other)
    assert shift == pytest.approx(roc_auc_score(labels, one) - roc_auc_score(labels, other))

    def beats(score):  # share of each pair, by the definition
        signal, background = score[labels == 1][:, None], score[labels == 0][None, :]
        return (signal > background) + 0.5 * (signal == background)

    pairs = beats(one) - beats(other)
    variance = pairs.mean(axis=1).var(ddof=1) / 30 + pairs.mean(axis=0).var(ddof=1) / 40
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=1e-3)
    assert (low + high) / 2 == pytest.approx(shift)
    assert auc_difference(labels, one, one) == (0.0, 0.0, 0.0)


def test_the_document_shows_the_stored_results():
    found = json.loads((RESULTS / "quality.json").read_text())
    text = DOCUMENT.read_text()
    for name, lines in tables(found).items():
        begin, end = marks(name, MADE_BY)
        assert "\n".join([begin, *lines, end]) in text
