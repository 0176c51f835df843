"""Pause, resume and cancel, for jobs of every kind: nobody works for one that is held, and nothing is lost."""

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lhcq.cli.main import cli
from lhcq.errors import BadInput
from lhcq.records.job_control import is_paused, set_wish
from lhcq.records.jobs import end_job, outcome_of
from lhcq.report.live_page import render_jobs
from lhcq.submission import Job
from lhcq.workspace import Workspace
from tasks.engine.publish import publish_job
from tasks.jobs.attempts import latest_attempt
from tasks.jobs.holdings import list_holdings, refuse_removal
from tasks.jobs.kinds import chunk_path, chunk_unit, merge_unit
from tasks.jobs.planner import pending_units
from tasks.jobs.store import create_job
from tasks.observe.job_rows import JobRows
from tasks.stages.fanout import perform_chunk, perform_merge
from tests.specs import job_of


@pytest.fixture(autouse=True)
def named(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LHCQ_WORKSPACE", str(place.root))
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)


def lhcq(*words: str) -> str:
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def touch(_: Any, __: Any, ___: int, path: Path, ____: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def merged(*_: Any) -> str:
    return "merged"


def state_of(name: str) -> str:
    rows = {row["name"]: row["state"] for row in json.loads(lhcq("status", "--json"))["jobs"]}
    return str(rows[name])


@pytest.mark.parametrize("kind", ["generate", "cluster", "prepare", "predict"])
def test_nothing_of_a_paused_job_is_left_to_do_until_it_is_resumed(place: Workspace, kind: str) -> None:
    job = create_job(place, job_of(kind))
    before = pending_units(place, job)
    assert before
    assert "will pause. `lhcq resume made` goes on" in lhcq("pause", "made")
    assert pending_units(place, job) == []
    assert state_of("made") == "paused"
    result = CliRunner().invoke(cli, ["retry", "made"])
    assert f"{kind} made is paused. `lhcq resume made` goes on" in str(result.exception)
    set_wish(place, job, "run")
    assert pending_units(place, job) == before
    assert not is_paused(place, job)


def test_messages_of_a_paused_job_are_put_aside_unworked(broker: Any, here: Workspace, new_job: Any) -> None:
    job = new_job(parts=2)
    publish_job(here, job)
    assert perform_chunk("cluster", "made", 0, touch) == "done"
    set_wish(here, job, "pause")
    assert perform_chunk("cluster", "made", 1, touch) == "paused"
    assert not chunk_path(here, job, 1).exists()
    set_wish(here, job, "run")
    assert perform_chunk("cluster", "made", 1, touch) == "done"
    set_wish(here, job, "pause")
    assert perform_merge("cluster", "made", merged) == "paused"
    assert outcome_of(here, job) is None
    set_wish(here, job, "run")
    assert pending_units(here, job) == [merge_unit(job)]
    assert perform_merge("cluster", "made", merged) == "done"


@pytest.mark.parametrize("wish", ["pause", "cancel"])
def test_who_is_at_work_stops_at_the_next_block_and_no_attempt_is_counted(
    broker: Any, here: Workspace, new_job: Any, wish: str
) -> None:
    job = new_job(parts=2)

    def work(_: Any, __: Any, ___: int, path: Path, held: Any) -> None:
        held.check()
        lhcq(wish, "made")
        held.check()
        path.touch()

    assert perform_chunk("cluster", "made", 0, work) == "leased"
    assert not chunk_path(here, job, 0).exists()
    assert latest_attempt(job, chunk_unit(job, 0)) is None


def test_a_cancelled_job_is_over_and_its_name_is_free_for_another_request(
    place: Workspace,
) -> None:
    job = create_job(place, job_of())
    assert lhcq("cancel", "made") == "cluster made is cancelled.\n"
    assert outcome_of(place, job).state == "cancelled"  # type: ignore[union-attr]
    assert state_of("made") == "cancelled"
    again = create_job(place, job_of(radius=0.4))
    assert outcome_of(place, again) is None
    assert pending_units(place, again)  # the wish went with the job that it was for


def test_of_several_jobs_of_a_name_the_open_one_is_meant(place: Workspace) -> None:
    done = create_job(place, job_of("cluster"))
    end_job(place, done, "done", "made")
    open_one = create_job(place, job_of("train", parts=0))
    answer = json.loads(lhcq("pause", "made", "--json"))
    assert answer == {"job": "train made", "run": "made", "wish": "pause"}
    assert is_paused(place, open_one)
    create_job(place, job_of("prepare", parts=0))
    result = CliRunner().invoke(cli, ["cancel", "made"])
    assert isinstance(result.exception, BadInput)
    assert "Choose by --kind prepare|train" in str(result.exception)
    lhcq("cancel", "made", "--kind", "prepare")
    lhcq("cancel", "made")
    result = CliRunner().invoke(cli, ["resume", "made", "--kind", "prepare"])
    assert "prepare made is cancelled: there is nothing to resume" in str(result.exception)


def test_the_same_request_joins_a_paused_job_and_leaves_it_paused(place: Workspace) -> None:
    job = create_job(place, job_of())
    set_wish(place, job, "pause")
    assert create_job(place, job_of()) == job
    assert is_paused(place, job)


@pytest.mark.parametrize("kind", ["cluster", "train"])
def test_whoever_tells_of_a_job_has_the_same_word_for_its_state(place: Workspace, kind: str) -> None:
    job = create_job(place, job_of(kind, parts=0 if kind == "train" else 3))
    rows = JobRows(place)

    def told() -> dict[str, str]:
        (holding,) = (one for one in list_holdings(place) if one.job == job)
        metrics = re.findall(rf'lhcq_jobs{{kind="{kind}",state="(\w+)"}} 1\.0', lhcq("metrics", "--once"))
        page = render_jobs("here", rows.read(), kind="", page=1, flower=None)
        (fact,) = (word for word, count in re.findall(r"<dt>(\w+)</dt><dd>(\d+)</dd>", page) if count == "1")
        return {
            "status": state_of("made"),
            "ls": holding.state(place),
            "metrics": ", ".join(metrics),
            "live page": fact.lower(),
            "program": Job(job, place, None, ExitStack()).status().state,
        }

    for wish, word in (("run", "open"), ("pause", "paused"), ("run", "open")):
        set_wish(place, job, wish)
        assert set(told().values()) == {word}, told()
    with pytest.raises(BadInput, match="has not ended"):
        refuse_removal(place, next(one for one in list_holdings(place) if one.job == job))
    set_wish(place, job, "pause")
    with pytest.raises(BadInput, match="has not ended"):
        refuse_removal(place, next(one for one in list_holdings(place) if one.job == job))
    end_job(place, job, "cancelled", "")
    assert set(told().values()) == {"cancelled"}
