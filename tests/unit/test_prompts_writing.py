"""Splits whose prompts hold constituents."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lhcq.config import SplitConfig
from lhcq.errors import BadInput, NameTaken, NotThere
from lhcq.evaluate.baseline import fit_baseline
from lhcq.manifests import read_manifest, verify_files, write_manifest
from lhcq.prompts import writing
from lhcq.prompts.features import compute_features, features_of
from lhcq.prompts.templates import describe_template, noise_of, render
from lhcq.prompts.writing import write_split
from lhcq.records import subsets
from lhcq.records.events import schema_of
from lhcq.records.subsets import SUBSETS
from lhcq.storage import read_json
from tests.prompt_splits import SCHEMA, encode, make_dataset, read_part

FEATURES = [feature.name for feature in features_of(SCHEMA)]


@pytest.mark.parametrize("template", ["compact", "diary"])
def test_every_prompt_stands_beside_the_row_label_and_features_of_its_event(tmp_path, template):
    dataset = make_dataset(tmp_path / "mini")
    write_split(dataset, tmp_path / "split", config=SplitConfig(ratio="natural", template=template))
    events = pq.read_table(dataset / "events.parquet")
    prompts, features = render(template, events), compute_features(events)
    seen = []
    for name in SUBSETS:
        for event in read_part(tmp_path / "split", name):
            row = event["row"]
            seen.append(row)
            assert event["label"] == int(row % 5 == 0)
            assert event["prompt"] == prompts[row]
            np.testing.assert_array_equal(
                [event[feature] for feature in FEATURES], [features[feature][row] for feature in FEATURES]
            )
    assert sorted(seen) == list(range(400))


def test_the_columns_of_a_part_are_the_documented_ones(tmp_path):
    write_split(make_dataset(tmp_path / "mini"), tmp_path / "split", config=SplitConfig())
    schema = pq.read_schema(tmp_path / "split" / "train.parquet")
    assert schema.names == ["row", "label", "prompt", *FEATURES]
    assert [str(kind) for kind in schema.types] == ["int64", "int8", "string", *["double"] * len(FEATURES)]


def test_the_manifest_says_what_the_split_was_made_from(tmp_path):
    dataset = make_dataset(tmp_path / "mini")
    config = SplitConfig(ratio="1:2", limit=200)
    manifest = write_split(dataset, tmp_path / "split", config=config, encode=encode, model_name="smollm2")
    assert manifest == read_manifest(tmp_path / "split", what="split", remedy="")
    verify_files(tmp_path / "split", manifest)
    prompts = [event["prompt"] for name in SUBSETS for event in read_part(tmp_path / "split", name)]
    lengths = [len(prompt) for prompt in prompts]
    files = manifest.pop("files")
    assert sorted(files) == sorted(f"{name}.parquet" for name in SUBSETS)
    tokens = manifest.pop("tokens")
    assert tokens.pop("mean") == pytest.approx(np.mean(lengths))
    assert tokens == {
        "model": "smollm2",
        "p99": np.percentile(lengths, 99, method="higher"),
        "max": max(lengths),
    }
    assert manifest == {
        "dataset": "mini",
        "dataset_sha256": hashlib.sha256((dataset / "events.parquet").read_bytes()).hexdigest(),
        "source_sha256": "ab" * 32,
        "duplicates_sha256": None,
        "config": {"ratio": "1:2", "limit": 200, "template": "compact", "seed": 1},
        "counts": {
            "train": {"signal": 40, "background": 80},
            "validation": {"signal": 10, "background": 20},
            "calibration": {"signal": 6, "background": 12},
            "test": {"signal": 10, "background": 20},
        },
        "unlabelled": 0,
        "template": json.loads(describe_template("compact", SCHEMA).model_dump_json()),
        "features": FEATURES,
        "jets": {},
    }


def test_a_dataset_with_all_features_gives_them_all_to_prompts_and_trees(tmp_path):
    dataset = make_dataset(tmp_path / "full")
    schema, rng = schema_of("full"), np.random.default_rng(2)
    jet = schema.field("jets").type.value_type
    more = [jet.field(index).name for index in range(jet.num_fields)]
    records = pq.read_table(dataset / "events.parquet").to_pylist()
    for record in records:
        pair = len(record["jets"]) == 2
        record |= {"h_t": float(rng.uniform(2000, 4000)), "delta_eta": 0.5 if pair else None}
        for one in record["jets"]:
            one |= {name: float(rng.uniform(1, 9)) for name in more if name not in one}
    pq.write_table(pa.Table.from_pylist(records, schema=schema), dataset / "events.parquet")
    (dataset / "manifest.json").unlink()
    write_manifest(dataset, source_sha256="ab" * 32, labels={"unknown": 0}, rows=400)
    manifest = write_split(dataset, tmp_path / "split", config=SplitConfig())
    assert manifest["features"] == [one.name for one in features_of(schema)]
    assert manifest["template"]["columns"] == [
        "mjj", "m_sd_heavy", "m_sd_light", "n_particles", "d2_heavy", "d2_light",
    ]  # fmt: skip
    for event in read_part(tmp_path / "split", "train"):
        values = [event[name] for name in manifest["template"]["columns"]]
        numbers = [0 if np.isnan(v) else round(v / u) for v, u in zip(values, UNITS, strict=True)]
        assert event["prompt"] == " ".join(map(str, numbers)) + ":"
    fit_baseline(tmp_path / "split", tmp_path / "trees")
    trees = read_manifest(tmp_path / "trees", what="trees", remedy="")
    assert trees["features"] == manifest["features"]


UNITS = (10, 1, 1, 10, 0.1, 0.1)


def test_a_split_has_the_same_bytes_each_time_whatever_is_read_at_once(tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path / "mini")
    first = write_split(dataset, tmp_path / "a", config=SplitConfig())
    assert write_split(dataset, tmp_path / "b", config=SplitConfig()) == first
    iter_batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile,
        "iter_batches",
        lambda self, batch_size, columns: iter_batches(self, 17, columns=columns),
    )
    assert write_split(dataset, tmp_path / "c", config=SplitConfig())["files"] == first["files"]


def test_parts_larger_than_a_row_group_keep_their_order(tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path / "mini")
    write_split(dataset, tmp_path / "whole", config=SplitConfig())
    monkeypatch.setattr(writing, "ROW_GROUP", 16)
    monkeypatch.setattr(subsets, "ROW_GROUP", 16)
    write_split(dataset, tmp_path / "cut", config=SplitConfig())
    assert pq.ParquetFile(tmp_path / "cut" / "train.parquet").num_row_groups == 6
    for name in SUBSETS:
        whole, cut = (pq.read_table(tmp_path / split / f"{name}.parquet") for split in ("whole", "cut"))
        for column in whole.column_names:
            np.testing.assert_array_equal(cut[column].to_numpy(), whole[column].to_numpy())


def test_copies_of_training_events_have_other_numbers_close_by_and_nothing_else_differs(tmp_path):
    dataset = make_dataset(tmp_path / "made")
    write_split(dataset, tmp_path / "once", config=SplitConfig())
    write_split(dataset, tmp_path / "thrice", config=SplitConfig(copies=3), encode=encode, max_tokens=99)
    write_split(dataset, tmp_path / "again", config=SplitConfig(copies=3))
    for part in SUBSETS:
        once, thrice, again = (
            (tmp_path / name / f"{part}.parquet").read_bytes() for name in ("once", "thrice", "again")
        )
        assert thrice == again
        assert (once == thrice) is (part != "train")
    before, copies = read_part(tmp_path / "once", "train"), read_part(tmp_path / "thrice", "train")
    assert [event["row"] for event in copies] == 3 * [event["row"] for event in before]
    prompts = {event["row"]: set() for event in before}
    for event, original in zip(copies, 3 * before, strict=True):
        np.testing.assert_equal({**event, "prompt": ""}, {**original, "prompt": ""})
        prompts[event["row"]].add(event["prompt"])
        moved, numbers = ([int(one) for one in text["prompt"][:-1].split()] for text in (event, original))
        columns = describe_template("compact", SCHEMA).columns
        for name, one, other in zip(columns, moved, numbers, strict=True):
            unit = {"mjj": 10.0, "n_particles": 10.0, "n_heavy": 10.0, "n_light": 10.0}.get(name, 1.0)
            assert abs(one - other) <= noise_of(name) / unit + 1
            assert one == 0 or not np.isnan(event[name])
    assert sum(len(different) > 1 for different in prompts.values()) > 0.9 * len(prompts)


def test_a_split_without_a_mass_has_the_numbers_of_its_prompts_beside_all_others(tmp_path):
    dataset = make_dataset(tmp_path / "made")
    config = SplitConfig(template="compact-without-mass", copies=2)
    manifest = write_split(dataset, tmp_path / "split", config=config)
    assert manifest["features"] == [*FEATURES, "m_over_pt_heavy", "m_over_pt_light"]
    prompts = render("compact-without-mass", pq.read_table(dataset / "events.parquet"))
    for event in read_part(tmp_path / "split", "test"):
        assert event["prompt"] == prompts[event["row"]]
        heavy, light = event["m_over_pt_heavy"], event["m_over_pt_light"]
        numbers = [0 if np.isnan(one) else round(1000 * one) for one in (heavy, light)]
        assert event["prompt"].startswith(f"{numbers[0]} {numbers[1]} ")
    for event in read_part(tmp_path / "split", "train"):
        moved = int(event["prompt"].split()[0])
        assert np.isnan(event["m_over_pt_heavy"]) or abs(moved - 1000 * event["m_over_pt_heavy"]) <= 3
    assert write_split(dataset, tmp_path / "plain", config=SplitConfig())["features"] == FEATURES


def test_a_split_without_copies_says_what_splits_said_before_there_were_any():
    assert "copies" not in SplitConfig().model_dump()
    assert SplitConfig.checked(**SplitConfig().model_dump()).copies == 1
    assert SplitConfig.checked(**SplitConfig(copies=3).model_dump(mode="json")).copies == 3


def test_trees_see_each_training_event_once(tmp_path):
    dataset = make_dataset(tmp_path / "made")
    for copies in (1, 4):
        split = tmp_path / f"split-{copies}"
        write_split(dataset, split, config=SplitConfig(copies=copies))
        fit_baseline(split, tmp_path / f"trees-{copies}")
    one, four = (read_json(tmp_path / f"trees-{copies}/figures.json") for copies in (1, 4))
    assert (one["validation"], one["test"]) == (four["validation"], four["test"])
    assert one["prompt-test"] != four["prompt-test"], "the numbers of the prompts were moved"


def test_four_momenta_have_no_copies():
    with pytest.raises(BadInput, match="copies: whole numbers are moved"):
        SplitConfig.checked(template="diary", copies=2)


def test_two_splits_of_one_source_share_no_row_between_different_parts(tmp_path):
    dataset = make_dataset(tmp_path / "mini")
    for name, config in {
        "a": SplitConfig(),
        "b": SplitConfig(ratio="natural", seed=2),
        "c": SplitConfig(limit=60),
    }.items():
        write_split(dataset, tmp_path / name, config=config)
    rows = {
        (split, name): {event["row"] for event in read_part(tmp_path / split, name)}
        for split in "abc"
        for name in SUBSETS
    }
    for (_, part), members in rows.items():
        for (_, other), strangers in rows.items():
            assert part == other or not members & strangers


def test_a_prompt_that_is_too_long_leaves_nothing_behind(tmp_path):
    dataset = make_dataset(tmp_path / "mini")
    with pytest.raises(BadInput, match=r"row \d+: its prompt has \d+ tokens, 10 are allowed"):
        write_split(dataset, tmp_path / "split", config=SplitConfig(), encode=encode, max_tokens=10)
    assert [path.name for path in tmp_path.iterdir()] == ["mini"]


def test_a_dataset_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(NotThere, match=r"dataset 'gone' does not exist in .*`lhcq cluster` or `lhcq import`"):
        write_split(tmp_path / "gone", tmp_path / "split", config=SplitConfig())


def test_an_unlabelled_or_too_small_dataset_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"boxed: none of its 400 events has a label.*--labels KEY"):
        write_split(
            make_dataset(tmp_path / "boxed", unlabelled=400), tmp_path / "split", config=SplitConfig()
        )
    with pytest.raises(BadInput, match="small: too few events: of 3 signal and 12 background events"):
        write_split(make_dataset(tmp_path / "small", n_events=15), tmp_path / "split", config=SplitConfig())
    assert not (tmp_path / "split").exists()


def test_events_without_a_label_are_left_out_and_counted(tmp_path):
    dataset = make_dataset(tmp_path / "mini", unlabelled=100)
    manifest = write_split(dataset, tmp_path / "split", config=SplitConfig(ratio="natural"))
    assert manifest["unlabelled"] == 100
    rows = [event["row"] for name in SUBSETS for event in read_part(tmp_path / "split", name)]
    assert sorted(rows) == list(range(100, 400))


def test_a_template_that_wants_what_the_dataset_lacks_is_refused_by_name(tmp_path):
    dataset = make_dataset(tmp_path / "mini")
    events = pq.read_table(dataset / "events.parquet").drop_columns(["n_particles"])
    pq.write_table(events, dataset / "events.parquet")
    (dataset / "manifest.json").unlink()
    write_manifest(dataset, source_sha256="ab" * 32, labels={"unknown": 0}, rows=400)
    with pytest.raises(BadInput, match=r"mini: template diary needs n_particles.*--template compact"):
        write_split(dataset, tmp_path / "split", config=SplitConfig(template="diary"))
    manifest = write_split(dataset, tmp_path / "split", config=SplitConfig())
    assert manifest["template"]["columns"] == ["mjj", "m_heavy", "m_light", "n_heavy", "n_light"]
    assert "n_particles" not in pq.read_schema(tmp_path / "split" / "train.parquet").names


def test_a_dataset_that_changed_after_its_commit_is_refused(tmp_path):
    dataset = make_dataset(tmp_path / "mini")
    (dataset / "events.parquet").write_bytes(b"PAR1 something else")
    with pytest.raises(BadInput, match=r"events\.parquet: differs from its manifest"):
        write_split(dataset, tmp_path / "split", config=SplitConfig())


def test_a_standing_split_is_given_again_and_never_replaced_by_another(tmp_path):
    dataset = make_dataset(tmp_path / "mini")
    first = write_split(dataset, tmp_path / "split", config=SplitConfig())
    assert write_split(dataset, tmp_path / "split", config=SplitConfig()) == first
    with pytest.raises(NameTaken, match="split: the split exists already, with another config"):
        write_split(dataset, tmp_path / "split", config=SplitConfig(seed=2))
    with pytest.raises(NameTaken, match="with another token audit"):
        write_split(dataset, tmp_path / "split", config=SplitConfig(), encode=encode, model_name="smollm2")


def test_the_stage_needs_neither_fastjet_nor_torch():
    code = (
        "import sys; import lhcq.prompts.writing; "
        "print([name for name in ('fastjet', 'torch', 'awkward', 'celery') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
