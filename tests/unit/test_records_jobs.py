"""A job's record: what an earlier lhcq wrote is read as it was meant, and what makes no sense is said in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from lhcq.errors import BadInput, NameTaken, NewerFormat
from lhcq.manifests import write_manifest
from lhcq.records.jobs import Job, end_job, find_job, list_jobs, replace_job
from lhcq.records.specs import SPECS, TrainSpec
from lhcq.storage import to_json, to_record
from lhcq.workspace import Workspace
from tasks.jobs.kinds import KINDS
from tasks.jobs.store import create_job, done_already, renew_terms, require_same_bytes, set_trace
from tests.specs import job_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EARLIER: dict[str, str] = {
    "generate": """
{"created": 1795912124.3633482, "identity": "a4031c0f2c4a84f1", "kind": "generate", "name": "out-78168068",
"parts": 2, "spec": {"config": {"background": 3, "detector": true, "seed": 7, "signal": 2}, "out":
"/tmp/physics/out.h5"}, "terms": {}, "trace": null}
""",
    "cluster": """
{"created": 1795912125.0484228, "identity": "e6cbe2573dbe5f96", "kind": "cluster", "name": "made", "parts": 4,
"spec": {"config": {"algorithm": "antikt", "features": "full", "max_jets": 2, "pt_min": 20.0, "radius": 0.8},
"events_per_chunk": 10, "labels_sha256": null, "n_events": 40, "source_sha256":
"ef22c0d03a79ff6635c381d700c8578a9032a89671763d6026b066b5c43af83e", "storage_rows": 10}, "terms": {"bytes":
45572, "labels": null, "mtime_ns": 1795912098392889228, "source": "/tmp/physics/events.h5", "tolerate": 0.1},
"trace": null}
""",
    "prepare": """
{"created": 1795912125.2446008, "identity": "ca96a6a10a448cf8", "kind": "prepare", "name": "other", "parts": 0,
"spec": {"config": {"limit": null, "ratio": "1:1", "seed": 1, "template": "compact"}, "dataset": "events",
"dataset_sha256": "9e61cca7a8ec4173a75f73122d535538a89a21fc5096a4f0fb02c1970ee0edd1", "max_tokens": 300,
"model": "/tmp/physics/workspace/models/tiny", "model_dir": "models/tiny"}, "terms": {}, "trace": null}
""",
    "train": """
{"created": 1795912125.5110478, "identity": "5ffe3ea56ff51ddc", "kind": "train", "name": "run", "parts": 0,
"spec": {"base": {"config": "f5dbcc82a42a06ac593e4d88287f0482fbf877cc245e9d5f2a577d1d0136494d", "tokenizer":
"e603664d29a118759709011987058b1739af7cd19aa842cd16686ea4e0b128ce", "weights":
"307c9f58d329296bf70db7e20ca0fc2d72dbc6ed38e08116b4c30b31de6581e8"}, "checkpoint_steps": [1, 2], "config":
{"accumulation": 1, "alpha": 16.0, "batch_size": 8, "checkpoint_every": null, "checkpoints": 4,
"class_weighted": true, "compute": "auto", "dropout": 0.05, "epochs": 1.0, "evaluation_batch": 32, "keep": null,
"learning_rate": 0.001, "max_grad_norm": 1.0, "max_memory": null, "max_steps": 2, "max_tokens": 512,
"on_collapse": "pause", "on_divergence": "rollback", "on_nan": "rollback", "on_overfitting": "tell",
"on_unknown": "tell", "patience": null, "rank": 4, "sampling": "natural", "schedule": "cosine", "seed": 1,
"select": "auc", "target": "all-linear", "warmup_fraction": 0.05, "weight_decay": 0.0}, "config_sha256":
"30aebcd9462d5d765be8f043e4e2e1f52d5a0869f8be889deee163a0ed6178a1", "model":
"/tmp/physics/workspace/models/tiny", "model_dir": "models/tiny", "n_train": 26, "preset": "default", "split":
"split", "split_sha256": {"calibration.parquet":
"13f2c642f6bb606a94988e344503bc74086de62a42c9a90c32d5e06d0a9c8061", "test.parquet":
"d8e1bbbdd56afbc5dc8c1405f3bd142f657854d17a4fc2f43d6d84284877da66", "train.parquet":
"1c1539b2eee3dac9e54a676fa05dd02183ff06833c79ca39b7b292ce84f9e070", "validation.parquet":
"9ecaebdce71a455efd60b9beda14586ddcd6726ad5b5a69bf30058f79a360f8e"}, "total_steps": 2}, "terms": {}, "trace":
null}
""",
    "predict": """
{"created": 1795912125.7207575, "identity": "a7c2b59cc1e9bc5f", "kind": "predict", "name": "run-events",
"parts": 4, "spec": {"base": {"config": "f5dbcc82a42a06ac593e4d88287f0482fbf877cc245e9d5f2a577d1d0136494d",
"tokenizer": "e603664d29a118759709011987058b1739af7cd19aa842cd16686ea4e0b128ce", "weights":
"307c9f58d329296bf70db7e20ca0fc2d72dbc6ed38e08116b4c30b31de6581e8"}, "checkpoint_sha256":
"ae1eae1d76e5b7c865c4122ce366a08025842566d2d96c75cc13e6353a73db0d", "config": {"accumulation": 1, "alpha": 16.0,
"batch_size": 8, "checkpoint_every": null, "checkpoints": 4, "class_weighted": true, "compute": "auto",
"dropout": 0.05, "epochs": 1.0, "evaluation_batch": 32, "keep": null, "learning_rate": 0.001, "max_grad_norm":
1.0, "max_memory": null, "max_steps": 2, "max_tokens": 512, "on_collapse": "pause", "on_divergence": "rollback",
"on_nan": "rollback", "on_overfitting": "tell", "on_unknown": "tell", "patience": null, "rank": 4, "sampling":
"natural", "schedule": "cosine", "seed": 1, "select": "auc", "target": "all-linear", "warmup_fraction": 0.05,
"weight_decay": 0.0}, "dataset": "events", "dataset_sha256":
"9e61cca7a8ec4173a75f73122d535538a89a21fc5096a4f0fb02c1970ee0edd1", "events_per_chunk": 20, "labels_sha256":
null, "largest_p_value": 0.05, "model": "/tmp/physics/workspace/models/tiny", "model_dir": "models/tiny",
"n_events": 44, "n_reference": 4, "n_source": 44, "reference_sha256":
"13f2c642f6bb606a94988e344503bc74086de62a42c9a90c32d5e06d0a9c8061", "run": "run", "split": "split", "step": 2,
"template": {"columns": ["mjj", "m_heavy", "m_light", "n_particles", "n_heavy", "n_light"], "name": "compact",
"sha256": "465310e2b16c606400874e42b92156409c42396f4148ae987915821dc79bbc6f", "version": 3}, "trained_on":
true}, "terms": {"labels": null}, "trace": null}
""",
    "search": """
{"created": 1795956529.8682275, "identity": "e0499f148651fafa", "kind": "search", "name": "m1000", "parts":
170, "spec": {"config": {"fit_high": 7500.0, "fit_low": 2700.0, "folds": 5, "high": 5100.0, "low": 2900.0,
"model": "trees", "pseudo_experiments": 1000, "seed": 1, "seeds": 1, "selections": [0.01, 0.001], "shuffles":
10, "sideband": 200.0, "template": "compact-without-mass", "width": 400.0}, "dataset": "m1000",
"dataset_sha256": "dfa7f35a3222047cec524b797261eaa15654a23f848e14732375715737ded2e6", "duplicates_sha256":
null, "n_events": 73384, "per_chunk": 50, "template": {"columns": ["m_sd_over_pt_heavy", "m_sd_over_pt_light",
"n_heavy", "n_light", "tau21_heavy", "tau21_light"], "name": "compact-without-mass", "sha256":
"d95c5cd3711ff16fc2146ad569bcce632966b13377bbcd1f4d463297c885a069", "version": 1}}, "terms": {}, "trace":
null}
""",
    "scan": """
{"created": 1795980979.156767, "identity": "7cb8209123625b39", "kind": "scan", "name": "generated", "parts": 75,
"spec": {"config": {"fit_high": 7500.0, "fit_low": 2700.0, "folds": 5, "high": 5100.0, "low": 2900.0, "model":
"trees", "put_in": [0, 200, 400, 700, 1000], "seed": 1, "seeds": 3, "selections": [0.01, 0.001], "sideband": 200.0,
"template": "compact-without-mass", "width": 400.0}, "dataset": "generated", "dataset_sha256":
"a604fec07586c74b2e18305e6c1366ee9e59623edb23125fa04bb99910b29e72", "duplicates_sha256": null, "n_background": 72514,
"n_signal": 19574, "region": [3300.0, 3700.0], "template": {"columns": ["m_sd_over_pt_heavy", "m_sd_over_pt_light",
"n_heavy", "n_light", "tau21_heavy", "tau21_light"], "name": "compact-without-mass", "sha256":
"d95c5cd3711ff16fc2146ad569bcce632966b13377bbcd1f4d463297c885a069", "version": 1}, "tuning": null}, "terms": {},
"trace": null}
""",
}
"""What the last lhcq with untyped specs recorded of one request of each kind; of a search and a scan, their first."""
OTHER_TERMS: dict[str, dict[str, Any]] = {
    "cluster": {"source": "/moved/events.h5", "mtime_ns": 5, "tolerate": 0.5},
    "predict": {"labels": "/moved/key.txt"},
    "train": {"track": "mlflow"},
}


def write_record(place: Workspace, record: dict[str, Any], kind: str, name: str) -> Path:
    """A record as every lhcq writes one."""
    path = place.job(kind, name) / "job.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(record), encoding="utf-8")
    return path


OTHER_BYTES = {
    "cluster": "where distances tie it had other jets",
    "predict": "its chunks had no answers in words, and those of the reference no m_jj",
    **dict.fromkeys(("scan", "search"), "of equal scores it took the first ones of the file"),
}
"""Of which this lhcq makes other bytes than the earlier one, and why: chunks of two kinds must not meet."""
SAME_BYTES = sorted(EARLIER.keys() - OTHER_BYTES)


def leave(place: Workspace, kind: str, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """Leave the record of an earlier lhcq in a workspace: its path, and what it says."""
    record = {**json.loads(EARLIER[kind]), **changes}
    return write_record(place, record, kind, record["name"]), record


def found(place: Workspace, kind: str) -> Job:
    job = find_job(place, kind, json.loads(EARLIER[kind])["name"])
    assert job is not None
    return job


def test_there_is_a_record_of_each_kind() -> None:
    assert set(EARLIER) == set(SPECS) == set(KINDS)


@pytest.mark.parametrize("kind", SAME_BYTES)
def test_an_earlier_record_is_read_keeps_its_identity_and_is_written_back_byte_by_byte(
    place: Workspace, kind: str
) -> None:
    path, record = leave(place, kind)
    before = path.read_bytes()
    job = found(place, kind)
    assert (job.kind, job.name, job.parts, job.created) == (
        kind,
        *(record[f] for f in ("name", "parts", "created")),
    )
    assert job.spec.identity() == job.identity == record["identity"]
    assert job.spec.recorded() == record["spec"]
    assert job.terms.recorded() == record["terms"]
    require_same_bytes(job)
    replace_job(place, job)
    assert path.read_bytes() == to_record(record).encode() != before  # it says its format from now on
    set_trace(place, job, TRACE)
    set_trace(place, found(place, kind), None)
    assert path.read_bytes() == to_record(record).encode()


@pytest.mark.parametrize("kind", OTHER_TERMS)
def test_other_terms_change_nothing_else_of_an_earlier_record(place: Workspace, kind: str) -> None:
    path, record = leave(place, kind)
    job = found(place, kind)
    terms = job.terms.model_copy(update=OTHER_TERMS[kind])
    renewed = renew_terms(place, job.model_copy(update={"created": 9.0, "terms": terms}))
    assert renewed is not None
    assert renewed.identity == record["identity"]
    assert (
        path.read_bytes() == to_record({**record, "terms": {**record["terms"], **OTHER_TERMS[kind]}}).encode()
    )


@pytest.mark.parametrize("kind", OTHER_BYTES)
def test_what_an_earlier_lhcq_left_open_of_other_bytes_is_refused_in_one_line(
    place: Workspace, kind: str
) -> None:
    leave(place, kind)
    asked = found(place, kind)
    with pytest.raises(
        NameTaken, match=r"begun by another version of lhcq.* Choose another name, or end it by "
    ):
        create_job(place, asked.model_copy(update={"created": 9.0, "identity": ""}))
    with pytest.raises(BadInput, match=r"Ask for it again, under another name\."):
        require_same_bytes(asked)


def test_a_prediction_that_an_earlier_lhcq_finished_is_given_again(place: Workspace) -> None:
    _, record = leave(place, "predict")
    asked = found(place, "predict")
    end_job(place, asked, "done", "")
    final = place.prediction(asked.name)
    final.mkdir(parents=True)
    write_manifest(final, name=asked.name, **record["spec"])
    assert done_already(place, asked.model_copy(update={"identity": ""}))


@pytest.mark.parametrize("kind", SAME_BYTES)
def test_the_same_request_joins_the_job_that_an_earlier_lhcq_left_open(place: Workspace, kind: str) -> None:
    path, record = leave(place, kind)
    before = path.read_bytes()
    asked = found(place, kind)
    joined = create_job(place, asked.model_copy(update={"created": 9.0, "identity": ""}))
    assert (joined.created, joined.identity) == (record["created"], record["identity"])
    assert path.read_bytes() == before


def test_what_a_still_earlier_lhcq_did_not_record_stays_unsaid(place: Workspace) -> None:
    """Before runs knew their base model, before a configuration knew of 8 bits, before an identity was recorded."""
    _, record = leave(place, "train")
    spec = {field: value for field, value in record["spec"].items() if field != "base"}
    spec["config"] = {
        field: value for field, value in spec["config"].items() if field not in ("compute", "sampling")
    }
    path, record = leave(place, "train", spec=spec, identity="")
    job = found(place, "train")
    trained = job.spec_of(TrainSpec)
    assert (trained.base, trained.config.compute, trained.config.sampling) == (None, "auto", "natural")
    assert job.spec.recorded() == spec
    replace_job(place, job)
    assert path.read_bytes() == to_record(record).encode()
    with pytest.raises(BadInput, match="begun by another version of lhcq"):
        require_same_bytes(job)


def test_a_spec_of_today_is_what_it_is_when_it_was_read_back(place: Workspace) -> None:
    for kind in SPECS:
        asked = job_of(kind)
        recorded = create_job(place, asked)
        read = find_job(place, kind, "made")
        assert read == recorded
        assert recorded.spec == asked.spec
        assert recorded.spec.identity() == recorded.identity == asked.spec.identity()


def changed(record: dict[str, Any], *place: str, to: Any) -> dict[str, Any]:
    """A copy with the field at `place` set; `...` takes it away."""
    field, *rest = place
    if rest:
        return {**record, field: changed(record[field], *rest, to=to)}
    return {name: value for name, value in {**record, field: to}.items() if value is not ...}


@pytest.mark.parametrize(
    ("place_of", "to", "said"),
    [
        (("spec", "n_events"), ..., r"n_events is missing"),
        (("terms", "source"), ..., r"source is missing"),
        (("spec",), ..., r"should be a valid dictionary"),
        (("spec",), [1], r"should be a valid dictionary"),
        (("spec", "config", "radius"), "wide", r"config\.radius should be a valid number"),
        (("kind",), "boil", r"kind: 'boil' is none of generate, cluster, prepare, train, predict, search"),
        (("kind",), ..., r"kind: None is none of generate, cluster, prepare, train, predict, search"),
        (("kind",), ["cluster"], r"kind: \['cluster'\] is none of generate"),
        (("kind",), "prepare", r"is no value that there is"),
        (("parts",), 10**12, r"parts should be less than"),
    ],
    ids=str,
)
def test_a_record_that_makes_no_sense_is_refused_in_one_line_with_the_remedy(
    place: Workspace, place_of: tuple[str, ...], to: Any, said: str
) -> None:
    record = changed(json.loads(EARLIER["cluster"]), *place_of, to=to)
    path = write_record(place, record, "cluster", "made")
    with pytest.raises(BadInput, match=said) as caught:
        find_job(place, "cluster", "made")
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.endswith("Use the lhcq that wrote it, or clear it away by `lhcq rm`.")
    assert "\n" not in text
    good = create_job(place, job_of(name="good"))
    assert list_jobs(place) == [good]  # which it does not hide


@pytest.mark.parametrize(
    "place_of", [("spec", "colour"), ("spec", "config", "colour"), ("terms", "colour"), ("colour",)], ids=str
)
def test_a_record_that_asks_for_more_than_is_known_is_a_newer_lhcq_s_and_stays(
    place: Workspace, place_of: tuple[str, ...]
) -> None:
    record = changed(json.loads(EARLIER["cluster"]), *place_of, to="red")
    path = write_record(place, record, "cluster", "made")
    stood = path.read_bytes()
    with pytest.raises(NewerFormat) as caught:
        find_job(place, "cluster", "made")
    said = str(caught.value)
    assert said.startswith(f"{path}: was written by a newer lhcq, or changed by hand (")
    assert said.endswith("colour is no value that there is). Use that lhcq or a newer one.")
    with pytest.raises(NewerFormat):
        create_job(place, job_of("cluster"))
    assert path.read_bytes() == stood
