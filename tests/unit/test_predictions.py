"""What a prediction makes of scores: p-values, ranks, the spectrum, and figures of events unseen in training.

Longer than other files are: all of it is asked of the same made-up scores.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.errors import BadInput, NotThere
from lhcq.evaluate.metrics import metrics_of
from lhcq.evaluate.p_values import p_values
from lhcq.evaluate.predictions import read_finished, read_parts, write_prediction, write_scored
from lhcq.records.chunks import Chunk
from lhcq.records.shared_events import count_shared
from lhcq.records.subsets import SUBSETS
from lhcq.report.prediction import prediction_metrics, prediction_verdict, render_prediction
from lhcq.storage import MANIFEST
from lhcq.workspace import Workspace
from tests.specs import spec_of

N = 60

pytestmark = pytest.mark.usefixtures("all_undrawn")


def write_part(path, rows, p_signal, *, labels=None, mjj=None):
    answers = answered(rows, p_signal)
    write_scored(path, rows=rows, labels=labels, mjj=mjj, p_signal=p_signal, answers=answers)
    return path


def answered(rows, p_signal):
    """The likelier label, but for some rows that say neither."""
    return np.where(np.asarray(rows) % 7 == 3, -1, p_signal >= 0.5).astype(np.int8)


@pytest.fixture
def scored(tmp_path):
    """60 events in two parts, every third one signal, which scores higher."""
    random = np.random.default_rng(1)
    labels = (np.arange(N) % 3 == 0).astype(np.int8)
    p_signal = np.clip(random.normal(0.3 + 0.4 * labels, 0.15), 0, 1)
    mjj = random.uniform(2000, 5000, N)
    mjj[7] = np.nan
    rows = np.arange(N) * 2 + 1  # a dataset may have gaps
    paths = [
        write_part(
            tmp_path / f"{index}.arrows",
            rows[part],
            p_signal[part],
            labels=labels[part],
            mjj=[None if np.isnan(mass) else mass for mass in mjj[part]],
        )
        for index, part in enumerate((slice(0, 25), slice(25, N)))
    ]
    background = random.uniform(0, 0.6, 99)
    reference = [write_part(tmp_path / "reference.arrows", np.arange(99), background)]
    return {"paths": paths, "reference": reference, "rows": rows, "labels": labels, "p_signal": p_signal,
            "background": background, "mjj": mjj, "answers": answered(rows, p_signal)}  # fmt: skip


def predict(tmp_path, made, **changed):
    reference, parts = changed.pop("reference", made["reference"]), changed.pop("scored", made["paths"])
    labels = changed.pop("labels", None)
    given_arguments = {
        "read": lambda: (read_parts(reference), read_parts(parts, labels)),
        "n_events": N,
        "largest_p_value": 0.05,
        "of": "0123",
        "fields": {"name": "made", "run": "r", "step": 3, "dataset": "d", "template": {"name": "compact"}},
        "page": render_prediction,
    }
    return write_prediction(tmp_path / "prediction", **{**given_arguments, **changed})


def test_where_no_event_can_pass_nothing_is_said_to_be_expected(tmp_path, scored) -> None:
    summary = predict(
        tmp_path, scored, largest_p_value=0.009
    )  # of 99 background events, the smallest is 0.01
    assert summary["selection"]["expected_of_background"] == summary["selection"]["n_selected"] == 0
    told = prediction_verdict(summary)
    assert told[0] == "Selected, by a p-value of at most 0.009: 0 of 60 events."
    assert told[1].startswith("No event can pass: with 99 background events")


def test_a_prediction_has_all_events_in_order_with_what_is_known_of_them(tmp_path, scored) -> None:
    summary = predict(tmp_path, scored)
    table = pq.read_table(tmp_path / "prediction" / "scores.parquet")
    assert table["row"].to_pylist() == scored["rows"].tolist()
    assert table["p_signal"].to_pylist() == scored["p_signal"].tolist()
    assert table["label"].to_pylist() == scored["labels"].tolist()
    assert table["answer"].to_pylist() == scored["answers"].tolist()
    assert summary["unknown"] == (scored["answers"] == -1).sum() > 0
    assert table["mjj"].null_count == 1
    assert table["part"].null_count == N
    values = p_values(scored["p_signal"], scored["background"])
    assert table["p_value"].to_pylist() == values.tolist()
    assert summary["selection"]["n_selected"] == int((values <= 0.05).sum()) > 3
    assert (
        summary["figures"] == metrics_of(scored["labels"], scored["p_signal"], scored["answers"]).model_dump()
    )
    best = summary["top"][0]
    assert best["row"] == table["row"].to_pylist()[table["rank"].to_pylist().index(1)]
    assert (tmp_path / "prediction" / MANIFEST).is_file()
    assert json.loads((tmp_path / "prediction" / "summary.json").read_text()) == summary


def test_what_the_run_was_trained_on_is_judged_by_its_test_part_alone(tmp_path, scored) -> None:
    rows = scored["rows"]
    parts = {"train": rows[:30], "validation": rows[30:35], "calibration": rows[35:38], "test": rows[38:55]}
    summary = predict(tmp_path, scored, subsets=parts)
    test = slice(38, 55)
    assert (
        summary["figures"]
        == metrics_of(scored["labels"][test], scored["p_signal"][test], scored["answers"][test]).model_dump()
    )
    assert summary["judged"] == {"events": "test part", "n": 17}
    assert summary["parts"] == {"train": 30, "validation": 5, "calibration": 3, "test": 17, "none": 5}
    assert sum(summary["spectrum"]["counts"]["all"]) == 17
    assert {event["row"] for event in summary["top"]} <= set(rows[test].tolist())
    assert "test subset alone" in prediction_verdict(summary)[0]
    table = pq.read_table(tmp_path / "prediction" / "scores.parquet")
    assert table["part"].to_pylist()[29:31] == ["train", "validation"]
    assert table["part"].to_pylist()[-1] is None


def test_events_that_the_run_s_split_has_too_are_told(tmp_path, scored) -> None:
    split = tmp_path / "split"
    split.mkdir()
    for name, masses in zip(
        SUBSETS, np.split(scored["mjj"][~np.isnan(scored["mjj"])], [9, 12, 14]), strict=True
    ):
        others = np.random.default_rng(2).uniform(2000, 5000, 50)
        table = pa.table({"mjj": np.concatenate([others, masses, masses[:3]])})
        pq.write_table(table, split / f"{name}.parquet")

    shared = count_shared(split, {"features": ["mjj"]}, {"mjj": scored["mjj"]})
    summary = predict(tmp_path, scored, shared=shared)
    assert summary["shared"] == {"train": 9, "validation": 3, "calibration": 2, "test": 45}
    warning = "Beware: 14 of these events stand in the split that the run was trained on (9 in train, 3 in validation"
    assert any(one.startswith(warning) for one in prediction_verdict(summary))
    assert (
        "9 in train, 3 in validation, 2 in calibration" in (tmp_path / "prediction/report.html").read_text()
    )
    test_alone = {**dict.fromkeys(SUBSETS, 0), "test": 45}
    for harmless in (None, test_alone):
        assert not any("Beware" in one for one in prediction_verdict({**summary, "shared": harmless}))
    assert count_shared(split, {"features": []}, {"mjj": scored["mjj"]}) is None
    reordered = {**summary, "shared": dict(sorted(shared.items()))}
    assert prediction_verdict(reordered)[0] == prediction_verdict(summary)[0]


def test_an_event_in_single_precision_is_the_same_and_one_of_like_mass_is_another(tmp_path) -> None:
    random = np.random.default_rng(3)
    n = 2000
    theirs = {
        "mjj": random.uniform(2000, 7000, n),
        "m_heavy": random.exponential(200.0, n),
        "n_heavy": random.integers(20, 200, n).astype(float),
        "n_light": random.integers(20, 200, n).astype(float),
    }
    for name, part in zip(SUBSETS, np.split(np.arange(n), [1000, 1200, 1500]), strict=True):
        table = pa.table({key: values[part] for key, values in theirs.items()})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    manifest, everywhere = (
        {"features": list(theirs)},
        {"train": 1000, "validation": 200, "calibration": 300, "test": 500},
    )
    single = {key: values.astype(np.float32).astype(np.float64) for key, values in theirs.items()}
    assert count_shared(tmp_path, manifest, single) == everywhere
    nudged = {**theirs, "mjj": theirs["mjj"] * (1 - 1e-7), "m_heavy": theirs["m_heavy"] * (1 + 1e-6)}
    assert count_shared(tmp_path, manifest, nudged) == everywhere
    none = dict.fromkeys(SUBSETS, 0)
    for name, values in (("n_light", theirs["n_light"] + 1), ("m_heavy", theirs["m_heavy"] * 1.01 + 2)):
        assert count_shared(tmp_path, manifest, {**theirs, name: values}) == none
    assert count_shared(tmp_path, manifest, {**theirs, "mjj": np.full(n, np.nan)}) == none
    # Without the counts of constituents, as in an imported dataset, to the last bit.
    assert count_shared(tmp_path, manifest, {"mjj": single["mjj"]}) == none
    assert count_shared(tmp_path, manifest, {"mjj": theirs["mjj"]}) == everywhere


def test_a_key_takes_the_place_of_labels_by_source_row(tmp_path, scored) -> None:
    key = np.zeros(2 * N + 1, np.int8)
    key[scored["rows"][:10]] = 1
    summary = predict(tmp_path, scored, labels=key)
    assert summary["figures"]["n_signal"] == 10


def test_without_labels_there_are_no_figures_and_the_rest_is_there(tmp_path, scored) -> None:
    blind = [
        write_part(
            tmp_path / f"blind{index}.arrows", *(table[name].to_numpy() for name in ("row", "p_signal"))
        )
        for index, path in enumerate(scored["paths"])
        for table in Chunk(path).batches()
    ]
    summary = predict(tmp_path, scored, scored=blind)
    assert summary["figures"] is None
    assert summary["spectrum"]["edges"] == []
    page = (tmp_path / "prediction" / "report.html").read_text()
    assert "<svg" not in page
    assert "most signal-like" in page


def test_a_selection_that_nothing_can_pass_says_so(tmp_path, scored) -> None:
    verdict = " ".join(prediction_verdict(predict(tmp_path, scored, largest_p_value=0.005)))
    assert "No event can pass" in verdict
    assert "0.01" in verdict


@pytest.mark.parametrize("fault", ["missing", "doubled", "swapped"])
def test_parts_that_are_not_the_events_once_and_in_order_are_refused(tmp_path, scored, fault) -> None:
    first, second = scored["paths"]
    paths = {"missing": [first], "doubled": [first, first], "swapped": [second, first]}[fault]
    with pytest.raises(BadInput, match="in order of row"):
        predict(tmp_path, scored, scored=paths)
    assert not (tmp_path / "prediction").exists()


def test_a_second_merge_finds_the_first_and_needs_no_parts(tmp_path, scored) -> None:
    first = predict(tmp_path, scored)
    before = (tmp_path / "prediction" / MANIFEST).read_bytes()
    assert predict(tmp_path, scored, scored=[], reference=[]) == first
    assert (tmp_path / "prediction" / MANIFEST).read_bytes() == before


def test_another_selection_of_a_finished_prediction_s_scores_has_the_bytes_of_one_from_its_parts(
    tmp_path, scored
) -> None:
    rows = scored["rows"]
    labels = np.zeros(2 * N + 1, np.int8)
    labels[rows[::2]] = 1
    for given_too in ({}, {"labels": labels}, {"subsets": {"train": rows[:9], "test": rows[20:50]}}):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        strict, loose = (spec_of("predict", largest_p_value=p) for p in (0.05, 0.3))
        predict(
            place / "first",
            scored,
            of=strict.identity(),
            **given_too,
            fields={"name": "made", **strict.recorded()},
        )
        options = {
            "largest_p_value": 0.3,
            "of": loose.identity(),
            "fields": {"name": "made", **loose.recorded()},
        }
        predict(place / "parts", scored, **options, **given_too)
        first = place / "first" / "prediction"
        # Its key was read for the first: its labels stand among the scores.
        options |= {"subsets": given_too.get("subsets"), "read": lambda: read_finished(first, loose)}  # noqa: B023
        predict(place / "again", scored, **options)
        again, parts = (
            {file.name: file.read_bytes() for file in (place / name / "prediction").iterdir()}
            for name in ("again", "parts")
        )
        assert again == parts
        assert len(again) == 5
        assert again["scores.parquet"] == (first / "scores.parquet").read_bytes()
        assert again["summary.json"] != (first / "summary.json").read_bytes()


def test_the_reference_stands_beside_the_scores(tmp_path, scored) -> None:
    predict(tmp_path, scored)
    assert pq.read_table(tmp_path / "prediction" / "reference.parquet").equals(
        pa.Table.from_batches(Chunk(scored["reference"][0]).batches())
    )


@pytest.mark.parametrize("file", ["scores.parquet", "reference.parquet"])
def test_a_finished_prediction_with_a_flipped_bit_is_not_selected_from(tmp_path, scored, file) -> None:
    spec = spec_of("predict")
    predict(tmp_path, scored, of=spec.identity(), fields={"name": "made", **spec.recorded()})
    damaged = tmp_path / "prediction" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(BadInput, match=rf"{file}: differs from its manifest"):
        read_finished(tmp_path / "prediction", spec)


@pytest.mark.parametrize("other", [{"step": 11}, {"dataset_sha256": "1" * 64}, {"labels_sha256": "1" * 64}])
def test_scores_of_something_else_are_not_selected_from(tmp_path, scored, other) -> None:
    spec = spec_of("predict")
    predict(tmp_path, scored, of=spec.identity(), fields={"name": "made", **spec.recorded()})
    read_finished(tmp_path / "prediction", spec_of("predict", largest_p_value=0.9))
    with pytest.raises(BadInput, match="is not the prediction whose scores were to be used"):
        read_finished(tmp_path / "prediction", spec_of("predict", **other))


@pytest.mark.parametrize("n_reference", [9, 10, 99, 300])
def test_background_alone_is_expected_to_give_one_number_however_small_the_reference(
    tmp_path, n_reference
) -> None:
    random = np.random.default_rng(n_reference)

    def part(name, n):
        return write_part(
            tmp_path / f"{name}.arrows",
            np.arange(n),
            random.random(n),
            labels=np.zeros(n, np.int8),
            mjj=np.full(n, 3000.0),
        )

    parts = part("reference", n_reference), part("scored", 2400)
    summary = write_prediction(
        tmp_path / "prediction",
        read=lambda: (read_parts(parts[:1]), read_parts(parts[1:])),
        n_events=2400,
        largest_p_value=0.1,
        of="0123",
        fields={"name": "made", "run": "r", "step": 3, "dataset": "d", "template": {"name": "compact"}},
        page=render_prediction,
    )
    expected = summary["expectation"]["expected"]
    assert expected == pytest.approx(summary["selection"]["expected_of_background"])
    assert expected == pytest.approx(240, rel=0.1)
    assert sum(summary["spectrum"]["expected"]) == pytest.approx(expected)
    if n_reference <= 10:  # one of them passes, which makes one bin
        error = summary["selection"]["expected_of_background_error"]
        assert summary["expectation"]["error"] == pytest.approx(error)
        assert sum(summary["spectrum"]["expected_error"]) == pytest.approx(error)


def sculpted(tmp_path, *, bump: float = 0.0, reference_mjj: bool = True, n: int = 20_000):
    """Background whose score rises towards 3.5 TeV, and the summary of a prediction of it; `bump` is the share of
    signal there, which scores higher."""
    random = np.random.default_rng(3)

    def part(name, n, *, signal=0):
        mjj = np.concatenate([2300 + random.exponential(500, n), random.normal(3500, 60, signal)])
        p_signal = 0.5 * np.exp(-0.5 * ((mjj - 3500) / 300) ** 2) + random.uniform(0, 0.5, len(mjj))
        p_signal[n:] = random.uniform(0.9, 1.0, signal)
        labels = np.r_[np.zeros(n, np.int8), np.ones(signal, np.int8)]
        columns = {"labels": labels, "mjj": mjj if reference_mjj or name != "reference" else None}
        return write_part(tmp_path / f"{name}.arrows", np.arange(len(mjj)), p_signal, **columns)

    signal = int(bump * n)
    parts = part("reference", n), part("scored", n, signal=signal)
    return write_prediction(
        tmp_path / "prediction",
        read=lambda: (read_parts(parts[:1]), read_parts(parts[1:])),
        n_events=n + signal,
        largest_p_value=0.01,
        of="0123",
        fields={"name": "made", "run": "r", "step": 3, "dataset": "d", "template": {"name": "compact"}},
        page=render_prediction,
    )


def test_a_bump_of_pure_background_is_expected_and_measured(tmp_path) -> None:
    summary = sculpted(tmp_path)
    seen, expected, error = (
        np.array(one)
        for one in (
            summary["spectrum"]["counts"]["selected"],
            summary["spectrum"]["expected"],
            summary["spectrum"]["expected_error"],
        )
    )
    peak = np.argmax(expected)
    assert abs(summary["spectrum"]["edges"][peak] - 3500) < 200
    assert np.abs(seen - expected)[expected > 3].max() < 4 * np.sqrt(expected + error**2).max()
    found = summary["expectation"]
    assert abs(found["seen"] - found["expected"]) < 3 * np.hypot(found["error"], np.sqrt(found["expected"]))
    assert 0.5 < found["chi2"] / found["bins"] < 1.6
    assert found["excess"]["p_value_anywhere"] > 0.01
    for one in summary["sculpting"].values():
        assert one["low"] > 0.3
        assert one["p_value"] < 1e-6
    verdict = " ".join(prediction_verdict(summary))
    assert verdict.count("the selection sculpts it") == 2
    assert "template compact" in verdict
    assert "--without-mass" in verdict


def test_signal_above_what_background_gives_is_an_excess(tmp_path) -> None:
    excess = sculpted(tmp_path, bump=0.03)["expectation"]["excess"]
    assert excess["low"] < 3500 < excess["high"]
    assert excess["p_value_anywhere"] < 1e-4


def test_without_the_reference_s_masses_nothing_is_expected_and_the_page_says_so(tmp_path) -> None:
    summary = sculpted(tmp_path, reference_mjj=False, n=500)
    assert (
        summary["expectation"] is summary["spectrum"]["expected"] is summary["sculpting"]["reference"] is None
    )
    page = (tmp_path / "prediction" / "report.html").read_text()
    assert "calibration subset has no m_jj" in page


def test_a_prediction_of_before_sculpting_was_looked_at_is_still_told(tmp_path, scored) -> None:
    summary = predict(tmp_path, scored)
    told = prediction_verdict(summary)
    del summary["expectation"], summary["sculpting"]
    before = prediction_verdict(summary)
    assert (
        before
        == [one for one in told if "Kolmogorov" not in one and "Of those with an m_jj" not in one][
            : len(before)
        ]
    )
    summary["template"] = {"name": "wide-without-mass"}
    assert len(prediction_verdict(summary)) == len(before) - 1


def test_a_prediction_of_before_intervals_were_told_claims_none(tmp_path, scored) -> None:
    summary = predict(tmp_path, scored)
    today = dict(prediction_metrics(summary))
    assert "[" in today["Calibration error (ECE) [95%]"]
    for name in ("ece", "nll", "balanced_accuracy"):
        del summary["figures"][f"{name}_low"], summary["figures"][f"{name}_high"]
    before = dict(prediction_metrics(summary))
    assert before["Calibration error (ECE)"] == f"{summary['figures']['ece']:.3f}"
    assert before["Accuracy [95%]"] == today["Accuracy [95%]"]
    assert len(before) == len(today)
    assert "(ECE) [95%]" not in render_prediction(summary)


def test_the_spectrum_is_written_as_png_and_pdf(tmp_path, scored, monkeypatch) -> None:
    predict(tmp_path, scored)
    place = Workspace(tmp_path / "workspace")
    place.prediction("made").parent.mkdir(parents=True)
    (tmp_path / "prediction").rename(place.prediction("made"))
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    asked = ["report", "made", "--figures", str(tmp_path / "figures"), "--out", str(tmp_path / "page.html")]
    done = CliRunner().invoke(cli, [*asked, "--json"], catch_exceptions=False)
    told = json.loads(done.output)
    assert (told["kind"], told["found"]["figures"]["n"]) == ("prediction", N)
    assert [Path(path).name for path in told["figures"]] == ["made-mjj.png", "made-mjj.pdf"]
    png, pdf = (Path(path).read_bytes() for path in told["figures"])
    assert png.startswith(b"\x89PNG")
    assert pdf.startswith(b"%PDF")
    page = place.prediction("made") / "report.html"
    assert (tmp_path / "page.html").read_bytes() == page.read_bytes()
    missing = CliRunner().invoke(cli, ["report", "made", "--kind", "search"])
    assert isinstance(missing.exception, NotThere)
