"""One damaged record hides no other, is named with a remedy, and the remedy does nothing again that is finished."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.errors import BadInput, Damaged, NameTaken, NewerFormat
from lhcq.manifests import write_manifest
from lhcq.records.failures import failures_of
from lhcq.records.jobs import Job, end_job, find_job, load_job, outcome_of, read_jobs
from lhcq.storage import FORMAT, write_json
from lhcq.workspace import Workspace
from tasks.doctor import record_findings
from tasks.jobs.kinds import chunk_path, missing_chunks, result_of
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job, done_already, mend_outcome
from tasks.observe.metrics import LhcqCollector
from tests.specs import job_of

GARBAGE = ["", "{", "[]", "\0" * 40, '{"state": 7}']


@pytest.fixture(autouse=True)
def named(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)


def statuses() -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["status", "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert CliRunner().invoke(cli, ["status"], catch_exceptions=False).exit_code == 0
    return {row["name"]: row for row in json.loads(result.output)["jobs"]}


def finished(place: Workspace, name: str = "made") -> Job:
    """A clustering whose dataset stands and whose chunks are gone."""
    job = create_job(place, job_of("cluster", name))
    result = result_of(place, job)
    result.mkdir(parents=True)
    write_manifest(result, **{key: value for key, value in job.spec.recorded().items() if key == "config"})
    end_job(place, job, "done", "merged")
    return job


def with_chunk(place: Workspace, job: Job, index: int = 0) -> Path:
    path = chunk_path(place, job, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("record", ["job.json", "outcome.json", "wish.json"])
def test_every_other_job_is_shown_beside_a_damaged_one(place: Workspace, record: str, garbage: str) -> None:
    for name in ("one", "two", "three"):
        create_job(place, job_of("cluster", name))
    (place.job("cluster", "two") / record).write_text(garbage)
    rows = statuses()
    assert {name: row["state"] for name, row in rows.items()} == {
        "one": "open",
        "two": "damaged",
        "three": "open",
    }
    assert record in rows["two"]["message"]
    found = [one for one in record_findings(place) if one.state == "error"]
    assert len(found) == 1
    assert record in found[0].found
    assert found[0].remedy


def test_metrics_count_the_damaged_and_tell_of_all_others(place: Workspace) -> None:
    for name in ("one", "two", "three"):
        create_job(place, job_of("cluster", name))
    (place.job("cluster", "one") / "job.json").write_text("")
    (place.job("cluster", "two") / "outcome.json").write_text("")
    metrics = {metric.name: metric for metric in LhcqCollector(place).collect()}
    counts = {tuple(one.labels.values()): one.value for one in metrics["lhcq_jobs"].samples}
    assert counts == {("cluster", "damaged"): 2, ("cluster", "open"): 1}
    assert {one.labels["job"] for one in metrics["lhcq_job_parts"].samples} == {"three"}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_the_end_of_a_finished_job_is_recorded_anew_and_nothing_is_done_again(
    place: Workspace, garbage: str
) -> None:
    job = finished(place)
    (place.job("cluster", "made") / "outcome.json").write_text(garbage)
    with pytest.raises(Damaged, match=r"outcome\.json"):
        outcome_of(place, job)
    assert done_already(place, job_of("cluster"))  # the same command again
    assert statuses()["made"]["state"] == "done"
    (place.job("cluster", "made") / "outcome.json").write_text(garbage)
    result = CliRunner().invoke(cli, ["resume", "made"])
    assert "cluster made is done: there is nothing to resume" in str(result.exception)
    assert statuses()["made"]["state"] == "done"


def test_a_job_that_had_not_finished_goes_on_with_its_chunks(place: Workspace) -> None:
    job = create_job(place, job_of("cluster"))
    chunk = with_chunk(place, job)
    (place.job("cluster", "made") / "outcome.json").write_text("")
    assert mend_outcome(place, job) is None
    assert chunk.exists()
    assert missing_chunks(place, job) == [1, 2]


def test_a_cancelled_job_stays_cancelled(place: Workspace) -> None:
    job = create_job(place, job_of("train", parts=0))
    assert CliRunner().invoke(cli, ["cancel", "made"], catch_exceptions=False).exit_code == 0
    (place.job("train", "made") / "outcome.json").write_text("")
    assert mend_outcome(place, job).state == "cancelled"  # type: ignore[union-attr]


def test_the_command_that_asked_for_a_job_restores_its_record_with_what_it_has(place: Workspace) -> None:
    job = create_job(place, job_of("cluster"))
    chunk = with_chunk(place, job)
    record = place.job("cluster", "made") / "job.json"
    record.write_text("")
    with pytest.raises(BadInput, match="what stands was made for another request"):
        create_job(place, job_of("cluster", radius=0.4))
    assert record.read_text() == ""
    restored = create_job(place, job_of("cluster"))
    assert restored.identity == job.identity
    assert load_job(place, "cluster", "made").spec == job.spec
    assert chunk.exists()
    assert missing_chunks(place, restored) == [1, 2]


def test_a_finished_job_whose_record_is_restored_is_done(place: Workspace) -> None:
    finished(place)
    (place.job("cluster", "made") / "job.json").write_text("{")
    with pytest.raises(BadInput):
        create_job(place, job_of("cluster", radius=0.4))
    with pytest.raises(NameTaken, match="exists already"):  # nothing is made again
        create_job(place, job_of("cluster"))
    assert done_already(place, job_of("cluster"))


def test_what_was_given_up_is_tried_again_where_the_record_of_that_is_damaged(place: Workspace) -> None:
    job = create_job(place, job_of("cluster"))
    failed = place.job("cluster", "made") / "failed"
    failed.mkdir()
    (failed / "lhcq.cluster_part.made.1.json").write_text("")
    assert failures_of(place, job) == []
    assert len(pending_units(place, job)) == 3
    assert any("failed" in one.found for one in record_findings(place))


def test_doctor_finds_damage_in_results(place: Workspace) -> None:
    finished(place, "whole")
    finished(place, "one")
    finished(place, "two")
    (place.dataset("one") / "manifest.json").write_text("")
    write_json(place.dataset("two") / "manifest.json", {"files": {"events": {"sha256": "0", "bytes": 9}}})
    found = [one for one in record_findings(place) if one.state == "error"]
    assert [("datasets/one" in one.found, "datasets/two" in one.found) for one in found] == [
        (True, False),
        (False, True),
    ]
    assert "`lhcq rm one --kind dataset --force`" in found[0].remedy
    (place.dataset("one") / "manifest.json").unlink()
    (place.dataset("two") / "events").write_text("9 letters")
    assert [one.state for one in record_findings(place)] == ["ok"]


def test_a_workspace_of_a_newer_lhcq_is_refused_by_name(place: Workspace) -> None:
    place.create()
    write_json(place.root / ".format", {"format": FORMAT + 1, "lhcq": "9.9"})
    for words in (("status",), ("rm", "x"), ("cancel", "x"), ("ls",)):
        result = CliRunner().invoke(cli, words)
        assert isinstance(result.exception, NewerFormat)
        assert f"was written by lhcq 9.9 (format {FORMAT + 1}; this one knows up to {FORMAT})" in str(
            result.exception
        )


def test_a_workspace_from_before_formats_is_read_and_says_its_own_from_then_on(place: Workspace) -> None:
    place.root.mkdir()
    create_job(place, job_of("cluster"))
    record = place.job("cluster", "made") / "job.json"
    fields = json.loads(record.read_text())
    assert fields.pop("lhcq_format") == FORMAT
    record.write_text(json.dumps(fields))
    assert statuses()["made"]["state"] == "open"
    place.create()
    assert json.loads((place.root / ".format").read_text())["format"] == FORMAT


def test_a_record_of_a_newer_lhcq_is_named_and_is_not_mended_away(place: Workspace) -> None:
    create_job(place, job_of("cluster", "one"))
    create_job(place, job_of("cluster", "two"))
    record = place.job("cluster", "one") / "job.json"
    newer = json.dumps({**json.loads(record.read_text()), "lhcq_format": FORMAT + 1, "colour": "red"})
    record.write_text(newer)
    rows = statuses()
    assert (rows["one"]["state"], rows["two"]["state"]) == ("damaged", "open")
    assert "was written by a newer lhcq" in rows["one"]["message"]
    with pytest.raises(NewerFormat):
        create_job(place, job_of("cluster", "one"))
    assert record.read_text() == newer
    (finding,) = record_findings(place)
    assert finding.remedy.startswith("Use the lhcq that wrote it")
    assert find_job(place, "cluster", "two")
    assert [one.newer for one in read_jobs(place)[1]] == [True]
