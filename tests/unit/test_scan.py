"""A scan: signal put among background by the hundred, and what a search and those who know labels find of it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import lhcq
from lhcq.cli.main import cli
from lhcq.errors import BadInput
from lhcq.evaluate.injection import Injected, idealised_fold, inject, supervised_fold
from lhcq.evaluate.weak import WeakEvents, score_fold
from lhcq.report.scan import rows_of_points, scan_verdict
from lhcq.requests.scan import Injection, chunk_of, scan_config, scan_request
from lhcq.results import Scan
from lhcq.workspace import Workspace
from tests.search_events import write_events
from tests.tiny_models import write_model

FEW: dict[str, Any] = {
    "regions": (3300.0, 3900.0, 400.0),
    "folds": 2,
    "seeds": 2,
    "selections": (0.1,),
}
REGION = (3300.0, 3700.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    place = Workspace(tmp_path_factory.mktemp("scan"))
    write_events(place.dataset("mixed"), 6000, 400)
    write_events(place.dataset("box"), 3000, 20, labelled=False)
    return place


@pytest.fixture(scope="module")
def scanned(place: Workspace) -> Scan:
    return lhcq.scan("mixed", [200, 0], workspace=place, **FEW)


def test_more_signal_is_more_significance_for_every_learner_and_for_all_events(scanned: Scan) -> None:
    found = scanned.found
    assert found["region"] == [3300.0, 3700.0]
    assert [(point["put_in"], point["seed"]) for point in found["points"]] == [
        (0, 1),
        (0, 2),
        (200, 1),
        (200, 2),
    ]
    none, some = found["points"][:2], found["points"][2:]
    assert found["learners"] == ["trees", "idealised", "supervised"]
    for learner in found["learners"]:
        of = {name: [point["learners"][learner][0] for point in points] for name, points in
              (("none", none), ("some", some))}  # fmt: skip
        assert min(one["z"] for one in of["some"]) > max(one["z"] for one in of["none"]) + 2
        assert min(one["improvement"] for one in of["some"]) > 1.5
        assert all(one["improvement"] is None for one in of["none"])
    assert min(point["inclusive"] for point in some) > max(point["inclusive"] for point in none)
    assert [point["in"] for point in none] == [0.0, 0.0]
    assert {point["background_in_region"] for point in found["points"]} == {none[0]["background_in_region"]}


@pytest.mark.usefixtures("undrawn")
def test_cut_off_in_the_middle_it_goes_on_to_the_same_bytes(place: Workspace, scanned: Scan) -> None:
    def stop(progress: Any) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    write_events(other := place.root.parent / "scan-other" / "datasets" / "mixed", 6000, 400)
    there = Workspace(other.parents[1])
    with pytest.raises(KeyboardInterrupt):
        lhcq.scan("mixed", [0, 200], workspace=there, progress=stop, **FEW)
    again = lhcq.scan("mixed", [0, 200], workspace=there, **FEW)
    assert (again.path / "scan.json").read_bytes() == (scanned.path / "scan.json").read_bytes()


def test_the_page_stands_alone_with_the_plots_and_every_point(scanned: Scan) -> None:
    page = scanned.report.read_text("utf-8")
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("Significance improvement by the number of signal events put in") == 1
    assert all(cell in page for row in rows_of_points(scanned.found) for cell in row)
    assert scanned.verdict()[0] in page.replace("&#39;", "'")


def test_the_verdict_says_from_how_many_events_on_five_sigma_are_found(scanned: Scan) -> None:
    found = json.loads(json.dumps(scanned.found))
    for point in found["points"]:
        point["learners"]["trees"][0]["z"] = {0: None, 200: 4.0}[point["put_in"]]
        point["learners"]["supervised"][0]["z"] = {0: 0.1, 200: 9.0}[point["put_in"]]
    said = scan_verdict(found)[0]
    assert "trees without labels of none of up to 200 signal events;" in said
    assert "the supervised classifier from 200 signal events on" in said
    assert rows_of_points(found)[0][-3] == "no fit"
    more = json.loads(json.dumps([point for point in found["points"] if point["put_in"] == 200]))
    for point in more:  # a selection that is full of signal, which leaves nothing to fit
        point["put_in"] = 400
        point["learners"]["supervised"][0]["z"] = 3.0
    said = scan_verdict(found | {"points": found["points"] + more})[0]
    assert "the supervised classifier of 200 signal events, but not of 400" in said


def test_its_pictures_are_written_as_png_and_pdf(
    place: Workspace, scanned: Scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    asked = ["report", "mixed", "--kind", "scan", "--figures", str(tmp_path)]
    done = CliRunner().invoke(cli, asked, catch_exceptions=False)
    names = {
        f"mixed-{name}-0.1.{form}" for name in ("significance", "improvement") for form in ("png", "pdf")
    }
    assert {path.name for path in tmp_path.iterdir()} == names
    assert scanned.verdict()[0] in done.output


def test_chunks_are_folds_then_seeds_then_numbers_of_events(place: Workspace) -> None:
    job = scan_request(place, "mixed", scan_config([0, 200], **FEW))
    chunks = [chunk_of(job.spec, index) for index in range(job.parts)]  # type: ignore[arg-type]
    assert chunks[:3] == [Injection(0, 1, 0), Injection(0, 1, 1), Injection(0, 2, 0)]
    assert chunks[-1] == Injection(200, 2, 1)
    assert len(set(chunks)) == job.parts == 8


@pytest.mark.parametrize(
    ("dataset", "put_in", "message"),
    [
        ("box", [100], r"box: [\d,]+ of the [\d,]+ events in the fit's range have no label, and a scan"),
        ("mixed", [400], r"mixed: 400 signal events are to be put in, and 50 more .* has \d+\. Put in fewer"),
        ("mixed", [-1, 5], r"each is a number of signal events, from 0 on"),
        ("mixed", [], r"put_in"),
    ],
)
def test_what_cannot_be_scanned_is_refused(
    place: Workspace, dataset: str, put_in: list[int], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        lhcq.plan_scan(dataset, put_in, workspace=place, **FEW)


def test_a_region_with_too_few_events_is_refused_before_any_training(place: Workspace) -> None:
    away: dict[str, Any] = {**FEW, "regions": (5000.0, 5400.0, 400.0), "fit": (2700.0, 8000.0)}
    with pytest.raises(
        BadInput, match=r"^mixed: the region from 5,000 to 5,400 GeV: .* events to learn from"
    ):
        lhcq.plan_scan("mixed", [0, 100], workspace=place, **away)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--scan", "0,some"), "is no list of numbers of events such as 0,300,600"),
        (("--scan", "0", "--shuffles", "3"), "--shuffles: of a search. With --scan there is none"),
        (("--scan", "0", "--pseudo-experiments", "30"), "--pseudo-experiments: of a search."),
        (("--scan", "0", "--beside", "other"), "--beside: of a search."),
    ],
)
def test_options_that_a_scan_has_not_are_refused(
    place: Workspace, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    done = CliRunner().invoke(cli, ["search", "mixed", *words])
    assert done.exit_code != 0
    assert message in (done.output + str(done.exception))


def made_up(n: int = 6000, n_signal: int = 600, *, known: bool = False) -> tuple[WeakEvents, Any]:
    """Events and labels: two features, of which the second knows m_jj where that is `known`."""
    random = np.random.default_rng(5)
    labels = (np.arange(n + n_signal) < n_signal).astype(np.int8)
    mjj = np.where(
        labels == 1, random.normal(3500, 60, len(labels)), 2800 + random.exponential(450, len(labels))
    )
    values = random.normal(size=(len(labels), 2))
    values[labels == 1, 0] += 2.5
    if known:
        values[labels == 0, 1] = (mjj[labels == 0] - 3500) / 100 + random.normal(size=n)
    rows = np.arange(len(labels))
    return WeakEvents(rows=rows, mjj=mjj, folds=np.zeros(len(rows), np.int8), values=values), labels


def put_in(n_signal: int, seed: int = 1, firsts: Any = None, **how: Any) -> Injected:
    events, labels = made_up(**how)
    firsts = events.rows if firsts is None else firsts
    return inject(events, labels, firsts, n_signal=n_signal, seed=seed, n_folds=3, key=f"{seed}")


def test_all_background_is_there_and_as_much_signal_as_was_asked_for_and_the_rest_is_kept_apart() -> None:
    events, labels = made_up()
    for seed in (1, 2):
        put = put_in(150, seed)
        assert put.labels.sum() == 150
        assert set(events.rows[labels == 0]) <= set(put.events.rows)
        chosen = put.events.rows[put.labels == 1]
        others = {tuple(one) for one in put.others}
        assert len(others) == (labels == 1).sum() - 150
        assert others.isdisjoint({tuple(one) for one in events.values[chosen]})
        assert np.array_equal(put.events.mjj, events.mjj[put.events.rows])
    drawn = [set(put_in(150, seed).events.rows) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_duplicates_share_their_fold() -> None:
    events, _ = made_up()
    firsts = events.rows - events.rows % 2  # each second event is a copy of the one before
    put = put_in(100, firsts=firsts)
    first = dict(zip(put.events.rows.tolist(), put.events.folds.tolist(), strict=True))
    pairs = [(first[row], first[row + 1]) for row in first if row % 2 == 0 and row + 1 in first]
    assert len(pairs) > 2000
    assert all(one == other for one, other in pairs)


def test_who_knows_labels_has_not_seen_the_events_that_it_scores() -> None:
    put = put_in(200)
    fold = put.events.folds == 1
    mjj, labels = put.events.mjj.copy(), put.labels.copy()
    mjj[fold], labels[fold] = 3400.0, 1 - labels[fold]  # would change whatever learnt from them
    changed = replace(put, labels=labels, events=replace(put.events, mjj=mjj))

    def scores(one: Injected) -> list[Any]:
        return [idealised_fold(one, REGION, fold=1, seed=1), supervised_fold(one, fold=1, seed=1)]

    for before, after in zip(scores(put), scores(changed), strict=True):
        assert np.array_equal(before, after)
        assert np.ptp(before) > 0.1


def test_the_idealised_classifier_is_not_fooled_by_features_that_know_the_mass() -> None:
    put = put_in(0, known=True)
    asked = put.events.folds == 1
    inside = (put.events.mjj[asked] >= REGION[0]) & (put.events.mjj[asked] < REGION[1])

    def bump(scores: Any) -> float:
        """How much likelier an event of the region is to be among the tenth that is selected."""
        selected = scores >= np.quantile(scores, 0.9)
        return float(selected[inside].mean() / selected[~inside].mean())

    assert bump(score_fold(put.events, REGION, 200.0, fold=1, seed=1)) > 4
    assert 0.6 < bump(idealised_fold(put, REGION, fold=1, seed=1)) < 1.6


@pytest.mark.usefixtures("undrawn")
def test_with_a_language_model_the_trees_stand_beside_it(place: Workspace, tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny")
    one = {**FEW, "seeds": 1, "regions": (3300.0, 3700.0, 400.0)}
    found = lhcq.scan("mixed", [100], workspace=place, model=str(model), max_steps=2, **one)
    assert found.name == "mixed-tiny"
    assert found.found["learners"] == [str(model), "trees", "idealised", "supervised"]
    (point,) = found.found["points"]
    by_trees = lhcq.scan("mixed", [100], "by-trees", workspace=place, **one).found["points"][0]
    assert point["learners"]["trees"] == by_trees["learners"]["trees"]
    assert point["learners"][str(model)] != point["learners"]["trees"]
