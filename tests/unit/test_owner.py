"""Whose a job is, how it takes turns with others, and what `lhcq status` tells of that."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from lhcq.cli import status
from lhcq.errors import BadInput
from lhcq.records.jobs import end_job, load_job, this_user
from tasks.jobs.store import create_job
from tests.specs import job_of


def asked(*words: str) -> Any:
    return CliRunner().invoke(status.command, words, catch_exceptions=False)


def names(*words: str) -> list[str]:
    return [job["name"] for job in json.loads(asked(*words, "--json").output)["jobs"]]


@pytest.fixture
def jobs(here, monkeypatch) -> None:
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    create_job(here, job_of(name="mine"))
    create_job(here, job_of(name="anns").model_copy(update={"owner": "ann"}))
    end_job(here, create_job(here, job_of(name="ended")), "done", "made")


def test_a_job_belongs_to_who_asked_for_it_first(here) -> None:
    assert create_job(here, job_of()).owner == this_user()
    assert create_job(here, job_of().model_copy(update={"owner": "ann"})).owner == this_user()
    assert load_job(here, "cluster", "made").owner == this_user()


def test_the_latest_request_says_how_a_job_takes_turns(here) -> None:
    create_job(here, job_of().asking(priority="low", max_parallel=3))
    joined = create_job(here, job_of().asking(priority="high"))
    assert (joined.priority, joined.max_parallel) == ("high", None)
    assert load_job(here, "cluster", "made") == joined


@pytest.mark.parametrize("wrong", [{"priority": "urgent"}, {"max_parallel": 0}])
def test_turns_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        job_of().asking(**wrong)


def test_status_lists_what_is_asked_for(jobs) -> None:
    assert set(names()) == {"mine", "anns", "ended"}
    assert set(names("--open")) == {"mine", "anns"}
    assert set(names("--mine")) == {"mine", "ended"}
    assert names("--mine", "--open") == ["mine"]
    assert names("--user", "ann") == ["anns"]
    assert "no such jobs" in asked("--user", "nobody").output
    assert " ann " in asked("--open").output
    refused = asked("--mine", "--user", "ann")
    assert refused.exit_code == 2
    assert "leave one out" in refused.output
