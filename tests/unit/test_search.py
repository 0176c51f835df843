"""A search from a dataset to its page, without a queue; and what is refused."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

import lhcq
from lhcq.cli.main import cli
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.evaluate.weak import FEWEST_EVENTS, weak_labels, weak_weights
from lhcq.records.events import read_events
from lhcq.records.searches import page_file, read_chunk, scores_file, write_chunk
from lhcq.report.search import search_verdict
from lhcq.requests import scan, search
from lhcq.requests.search import (
    Experiments,
    Shuffle,
    Training,
    chunk_of,
    in_range,
    rounds_of,
    search_config,
    search_request,
)
from lhcq.results import Search
from lhcq.storage import MANIFEST
from lhcq.workspace import Workspace
from tests.deployed import ROOT
from tests.search_events import FEW, write_events


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with 6,000 background events and 200 of signal, the same unlabelled, and background alone."""
    place = Workspace(tmp_path_factory.mktemp("search"))
    write_events(place.dataset("mixed"), 6000, 200)
    write_events(place.dataset("box"), 6000, 200, labelled=False)
    write_events(place.dataset("plain"), 600, 0)
    return place


@pytest.fixture(scope="module")
def found(place: Workspace) -> Search:
    return lhcq.search("mixed", workspace=place, **FEW)


def test_a_resonance_is_found_with_its_mass_and_those_of_its_daughters(found: Search) -> None:
    best = found.found["tests"][found.found["best"]]
    assert (best["low"], best["high"]) == (3300, 3700)
    assert found.p_value is not None
    assert found.p_value < 1e-5
    excess = found.found["excess"]
    assert abs(excess["mass"]["value"] - 3500) < 100
    for name, mass in (("m_sd_heavy", 450), ("m_sd_light", 90)):
        assert excess["looks"][name]["median"] == pytest.approx(mass, rel=0.15)
    (answer,) = [sentence for sentence in found.verdict() if sentence.startswith("Answer: ")]
    assert re.search(
        r"mass 3,\d{3} ± \d+ GeV; heavier daughter 4\d\d ± \d+ GeV; lighter daughter [\d.]+ ±", answer
    )


@pytest.mark.usefixtures("undrawn")
def test_without_labels_and_cut_off_in_the_middle_it_finds_the_same(place: Workspace, found: Search) -> None:
    def stop(progress: Any) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lhcq.search("box", workspace=place, progress=stop, **FEW)
    blind = lhcq.search("box", workspace=place, **FEW)
    assert scores_file(blind.path).read_bytes() == scores_file(found.path).read_bytes()
    for field in ("tests", "global", "spread", "excess"):
        assert blind.found[field] == found.found[field]
    assert blind.found["truth"] is None
    assert found.found["truth"][0]["improvement"] > 2


def test_every_event_has_a_score_for_each_region(place: Workspace, found: Search) -> None:
    table = found.to_arrow()
    assert table.column_names == [
        "row",
        "mjj",
        "fold",
        "score_3300_3700",
        "score_3500_3900",
    ]
    assert table.num_rows == found.found["n_events"]
    assert set(table["fold"].to_pylist()) == {0, 1}


def test_a_classifier_of_ones_own_learns_as_the_page_says(place: Workspace, found: Search) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/search.md").read_text("utf-8"), re.S)
    said: dict[str, Any] = {"search": found, "dataset": lhcq.dataset("mixed", workspace=place)}
    exec(program, said)  # noqa: S102
    labels = read_events(place.dataset("mixed"), ["label"])["label"].to_numpy()
    signal = labels[found.to_arrow()["row"].to_numpy()] == 1
    assert roc_auc_score(signal, said["scores"]) > 0.9
    # What is said of the weights is what the search has.
    weak = weak_labels(said["mjj"], (3300, 3700), search_config(**FEW).sideband)
    searched = weak_weights(said["mjj"], weak, (3300, 3700))
    assert said["weights"] / said["weights"].sum() == pytest.approx(searched / searched.sum())


def test_the_page_stands_alone_and_shows_every_spectrum(found: Search) -> None:
    page = found.report.read_text("utf-8")
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("Spectrum of the dijet mass") == 2
    assert "3,300 to 3,700 GeV" in page
    assert "Groomed mass of the heavier jet" in page


def test_its_pictures_are_written_as_png_and_pdf(
    place: Workspace, found: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    asked = ["report", "mixed", "--figures", str(tmp_path), "--json"]
    told = json.loads(CliRunner().invoke(cli, asked, catch_exceptions=False).output)
    assert told["kind"] == "search"
    assert told["report"] == str(found.report)
    names = [Path(path).name for path in told["figures"]]
    assert {"mixed-tests.pdf", "mixed-spectrum-3300-3700-0.1.png", "mixed-look-m_sd_heavy.pdf"} <= set(names)
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF"}
    assert len(names) == len(set(names)) == len(list(tmp_path.iterdir()))
    for path in map(Path, told["figures"]):
        assert path.read_bytes().startswith(starts[path.suffix])


def test_the_same_search_again_is_no_work_and_another_needs_a_name(place: Workspace, found: Search) -> None:
    before = found.report.stat().st_mtime_ns
    assert lhcq.search("mixed", workspace=place, **FEW).report.stat().st_mtime_ns == before
    with pytest.raises(NameTaken, match=r"made of something else \(--seed 2, was 1\)"):
        lhcq.search("mixed", workspace=place, **FEW, seed=2)
    with pytest.raises(NameTaken, match=r"\(--folds 3, was 2; --sideband 200\.0, was 400\.0\)"):
        lhcq.search("mixed", workspace=place, **{**FEW, "folds": 3, "sideband": 200.0})


def test_a_template_that_knows_the_mass_is_refused_with_the_reason(place: Workspace) -> None:
    with pytest.raises(
        BadInput, match="template: compact holds m_jj or determines it: a classifier of a region"
    ):
        lhcq.search("mixed", "other", workspace=place, template="compact")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": (3000.0, 3300.0, 400.0)}, "no region of 400 GeV fits"),
        ({"fit": (2900.0, 6000.0)}, r"has to reach beyond the regions, from below 2900 to above 5100 GeV"),
        ({"selections": (0.01, 1.5)}, "each selection is a share between 0 and 1"),
        ({"model": ""}, "model: String should have at least 1 character"),
    ],
)
def test_what_cannot_be_searched_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        search_config(**options)


def test_a_fit_that_begins_below_the_triggers_threshold_is_refused(place: Workspace) -> None:
    config = search_config(regions=(2700.0, 3900.0, 400.0))  # made-up events begin at 2,600 GeV
    with pytest.raises(
        BadInput, match=r"mixed: m_jj rises from 2,500 GeV, where the fit begins, until about 2,700"
    ):
        search_request(place, "mixed", config)


def test_an_excess_beside_which_the_function_does_not_fit_is_no_resonance(found: Search) -> None:
    assert any(sentence.startswith("Answer: ") for sentence in found.verdict())
    poor = copy.deepcopy(found.found)
    poor["tests"][poor["best"]]["fit"]["p_value"] = 1e-3
    poor["excess"]["mass"]["fit"]["p_value"] = 1e-3
    earlier = copy.deepcopy(poor)
    del earlier["excess"]["mass"]["fit"], earlier["excess"]["mass"]["expected"]
    hopeless = copy.deepcopy(found.found)
    hopeless["inclusive"][0]["fit"]["p_value"] = 1e-9
    for one in (poor, earlier, hopeless):
        said = search_verdict(one)
        assert not any(sentence.startswith("Answer: ") for sentence in said)
        assert any(sentence.startswith("No resonance is claimed, since the function") for sentence in said)


def test_a_global_p_value_below_the_local_one_is_explained(found: Search) -> None:
    few = copy.deepcopy(found.found)
    few["global"] |= {"how": "pseudo-experiments", "beyond": 34, "p_value": 0.035, "local_p_value": 0.04}
    assert any("below the local one" in sentence for sentence in search_verdict(few))
    few["global"]["local_p_value"] = 0.01
    assert not any("below the local one" in sentence for sentence in search_verdict(few))


@pytest.mark.parametrize(
    ("spreads", "said", "unsaid"),
    [
        ([(0.9, 1.0)], "those here are the fits' own, as that is not above 1.", "too few"),
        (
            [(1.3, 1.0)],
            "At 1.00% these tests are too few to divide by their spread, so p-values are too",
            "divided",
        ),
        ([(1.3, 1.3)], "those here are divided by that, where it is above 1.", "too few"),
        ([(1.3, 1.3), (1.2, 1.0)], "where it is above 1. At 0.10% these tests are too few", "own"),
    ],
)
def test_significances_that_are_not_divided_by_a_spread_above_one_are_named(
    found: Search, spreads: list[tuple[float, float]], said: str, unsaid: str
) -> None:
    one = copy.deepcopy(found.found)
    one["spread"] = [
        {"share": share, "measured": measured, "width": width, "error": 0.2, "n": 14}
        for share, (measured, width) in zip((0.01, 0.001), spreads, strict=False)
    ]
    (sentence,) = (line for line in search_verdict(one) if line.startswith("Among the same events"))
    assert said in sentence
    assert unsaid not in sentence


def test_a_resonance_that_reaches_over_its_region_is_one_where_a_gaussian_describes_it(found: Search) -> None:
    wide = copy.deepcopy(found.found)
    wide["tests"][wide["best"]]["fit"]["p_value"] = 1e-3
    said = search_verdict(wide)
    assert any(sentence.startswith("Answer: ") for sentence in said)
    assert any("reaches over the region" in sentence for sentence in said)
    assert not any("the fit's" in sentence and "3,300–3,700" in sentence for sentence in said)


def test_a_region_without_events_is_refused_before_anything_starts_and_named(place: Workspace) -> None:
    with pytest.raises(BadInput, match=r"plain: the region from 5,000 to 5,400 GeV: .* events to learn from"):
        lhcq.search("plain", workspace=place, regions=(5000.0, 5400.0, 400.0))
    assert not place.job("search", "plain").exists()


def test_what_counts_is_what_all_folds_but_one_have_to_learn_from(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    mjj = read_events(write_events(place.dataset("events"), 3000, 0), ["mjj"])["mjj"].to_numpy()
    assert np.count_nonzero((mjj >= 3700) & (mjj < 3900)) > FEWEST_EVENTS
    with pytest.raises(
        BadInput, match="from 3,300 to 3,700 GeV: its upper sideband has 49 events to learn from"
    ):
        search_request(place, "events", search_config(**FEW, sideband=200.0))


def test_a_sideband_is_as_wide_as_a_region_and_ends_where_the_fit_does() -> None:
    config = search_config()
    assert (config.sideband, config.fit_low, config.fit_high) == (400.0, 2700.0, 7500.0)
    mjj = np.arange(2600.0, 3900.0, 100.0)
    seen = mjj[in_range(mjj, config)]
    beside = seen[weak_labels(seen, config.regions[0], config.sideband) == 0]
    assert beside.tolist() == [2700.0, 2800.0, 3300.0, 3400.0, 3500.0, 3600.0]
    assert search_config(sideband=100.0).fit_low == 2800.0


def test_a_dataset_has_to_be_there_and_to_have_what_the_classifier_sees(place: Workspace) -> None:
    with pytest.raises(NotThere, match="dataset 'nothing' does not exist"):
        search_request(place, "nothing", search_config())


def test_chunks_are_trainings_then_shuffles_then_pseudo_experiments(place: Workspace) -> None:
    config = search_config(**{**FEW, "seeds": 2, "pseudo_experiments": 120})
    job = search_request(place, "mixed", config)
    assert rounds_of(job.spec) == (2 * 2 * 2 + 2, 3)
    assert job.parts == 13
    chunks = [chunk_of(job.spec, index) for index in range(job.parts)]
    assert chunks[:5] == [
        Training(0, 0, 0),
        Training(0, 0, 1),
        Training(0, 1, 0),
        Training(0, 1, 1),
        Training(1, 0, 0),
    ]
    assert chunks[8:10] == [Shuffle(0, 0), Shuffle(0, 1)]
    assert chunks[10:] == [Experiments(0, 50), Experiments(50, 100), Experiments(100, 120)]


def test_the_command_tells_and_answers_in_json(
    place: Workspace, found: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    options = [
        "--regions",
        "3300..3900..400",
        "--select",
        "0.1",
        "--folds",
        "2",
        "--shuffles",
        "1",
        "--pseudo-experiments",
        "20",
    ]
    told = CliRunner().invoke(cli, ["search", "mixed", *options], standalone_mode=False)
    assert "(done already)" in told.stdout
    assert "The largest excess is between 3,300 and 3,700 GeV" in told.stdout
    assert told.stdout.splitlines()[-1] == str(page_file(place.search("mixed")))
    answered = json.loads(CliRunner().invoke(cli, ["search", "mixed", *options, "--json"]).stdout)
    assert answered["global"]["p_value"] == found.p_value
    assert answered["report"] == str(found.report)


@pytest.mark.parametrize("regions", ["3000..4000", "3000..x..400", "3000-4000-400"])
def test_regions_that_cannot_be_read_are_wrong_usage(regions: str) -> None:
    done = CliRunner().invoke(cli, ["search", "mixed", "--regions", regions])
    assert done.exit_code == 2
    assert f"'{regions}' is not LOW..HIGH..WIDTH in GeV" in done.output


def test_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0.arrows"
    write_chunk(path, np.arange(100.0))
    np.testing.assert_array_equal(read_chunk(path, 100), np.arange(100.0))
    with pytest.raises(BadInput, match="has 100 values, not 99"):
        read_chunk(path, 99)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BadInput, match="it alone is made again"):
        read_chunk(path, 100)


def test_a_dataset_made_anew_is_not_searched_on_with(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    write_events(place.dataset("events"), 6000, 0)
    config = search_config(**FEW)
    request = search_request(place, "events", config)
    for path in place.dataset("events").iterdir():
        path.unlink()
    place.dataset("events").rmdir()
    write_events(place.dataset("events"), 6000, 0, seed=2)
    from tasks.client import do_here

    with pytest.raises(BadInput, match="is not what this search began with"):
        do_here(place, request)
    assert not (place.search("events") / MANIFEST).exists()


def test_what_asking_needs_of_the_events_is_read_at_once(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(place.dataset("mixed"), 3000, 400)
    read: list[list[str]] = []

    def reading(directory: Path, columns: list[str]) -> Any:
        read.append(columns)
        return read_events(directory, columns)

    for module in (search, scan):
        monkeypatch.setattr(module, "read_events", reading, raising=False)
    search.search_request(place, "mixed", search.search_config(**FEW))
    scan.scan_request(place, "mixed", scan.scan_config((0, 100), regions=FEW["regions"], folds=2))
    assert read == [["mjj", "row"], ["mjj", "label", "row"]]
