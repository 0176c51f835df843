import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import searching
from benchmarks.answers import lines_of as lines_of_answers
from benchmarks.particles_table import tables as tables_of_particles
from benchmarks.quality_table import auc_difference, tables
from benchmarks.rows import DOCUMENT, RESULTS, marks
from benchmarks.sculpting import by_trees, lines_of, one_seed, stored_rows
from lhcq.records.prompt_numbers import read_numbers


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


@pytest.mark.parametrize(
    ("name", "command", "made"),
    [
        ("quality", "quality --stage table", tables),
        ("answers", "answers --stage table", lambda found: {"answers": lines_of_answers(found)}),
        ("particles", "particles --stage table", tables_of_particles),
        ("sculpting", "sculpting", lambda found: {"sculpting": lines_of(stored_rows())}),
    ],
)
def test_the_document_shows_the_stored_results(name, command, made):
    found = json.loads((RESULTS / f"{name}.json").read_text())
    text = DOCUMENT.read_text()
    for table, lines in made(found).items():
        begin, end = marks(table, f"python -m benchmarks.{command}")
        assert "\n".join([begin, *lines, end]) in text


@pytest.mark.parametrize(
    ("name", "made"), [("scan", searching.scan_lines), ("alarms", searching.alarm_lines)]
)
def test_the_page_of_searches_shows_the_stored_results(name, made):
    begin, end = marks(f"searching {name}", searching.made_by(name))
    assert "\n".join([begin, *made(), end]) in searching.DOCUMENT.read_text()


def test_a_score_that_is_the_mass_is_seen_to_sculpt_and_another_is_not():
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], [8000, 1000]).astype(np.int8)
    mjj = np.where(labels == 1, random.normal(3500, 150, 9000), 2300 + random.exponential(500, 9000))
    other = random.normal(2.0 * labels, 1.0)
    with_mass, without = (
        one_seed(by_trees(np.column_stack(of), labels), labels, mjj, 0)
        for of in ((mjj, other), (other, other))
    )
    assert with_mass["p_value"] < 1e-4 < without["p_value"]
    assert with_mass["distance"] > 0.3
    for one in (with_mass, without):
        assert abs(one["seen"] - one["expected"]) < 4 * np.sqrt(2 * one["expected"])
    assert read_numbers(["355 62 -1:", "0 1 2:"]).tolist() == [[355, 62, -1], [0, 1, 2]]
