"""A trace: what its spans tell, which request it belongs to, and that nothing depends on it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lhcq.cli import retry
from lhcq.errors import BadInput
from lhcq.records.jobs import Job, find_job, load_job
from tasks.engine.publish import publish_job, publish_unit
from tasks.jobs.kinds import chunk_unit
from tasks.jobs.store import create_job, renew_terms, set_trace
from tasks.observe import tracing
from tasks.stages.fanout import perform_chunk
from tests.collector import Collector, Span, collecting
from tests.specs import job_of, terms_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "s3cret-W0rd"  # noqa: S105


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    tracing._provider.cache_clear()
    yield
    if provider := tracing._provider():
        provider.shutdown()
    tracing._provider.cache_clear()


@pytest.fixture
def collector(_no_variables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Gets the spans of this process."""
    with collecting() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        yield collector


def sent(collector: Collector) -> list[Span]:
    tracing.flush()
    return collector.spans


def broken(*_: Any) -> None:
    raise OSError(f"redis://user:{SECRET}@host does not answer")


def touch(place: Any, job: Job, index: int, path: Path, held: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_each_attempt_is_a_span_under_the_publishing_and_an_error_tells_no_password(
    broker, here, new_job, collector
) -> None:
    set_trace(here, new_job(), TRACE)
    for make, status in ((broken, "again"), (broken, "again"), (touch, "done")):
        assert perform_chunk("cluster", "made", 1, make) == status
    spans = sent(collector)
    assert [span.told["lhcq.attempt"] for span in spans] == [1, 2, 3]
    assert [span.told["lhcq.status"] for span in spans] == ["again", "again", "done"]
    assert {(span.name, span.trace, span.parent) for span in spans} == {
        ("lhcq.cluster_part", *TRACE.split("-")[1:3])
    }
    for span in spans:
        facts = [span.told[f"lhcq.{name}"] for name in ("job", "unit", "part", "queue")]
        assert facts == ["cluster made", "lhcq.cluster_part:made:1", 1, "cpu"]
    failed, _, done = spans
    assert (done.error, done.exceptions) == (None, [])
    assert failed.error == "OSError: redis://user:***@host does not answer"
    (exception,) = failed.exceptions
    assert exception["exception.type"] == "OSError"
    assert "in broken" in exception["exception.stacktrace"]
    assert not any(SECRET.encode() in body for body in collector.bodies)


def test_a_trace_is_the_latest_requests_and_ends_with_one_that_is_not_traced(
    broker, here, new_job, collector, monkeypatch
) -> None:
    job = new_job()
    for request in ("first", "second"):
        with tracing.span(request):
            publish_job(here, load_job(here, "cluster", "made"))
    publish_unit(chunk_unit(job, 0), again=True)  # as the reconciler does
    assert perform_chunk("cluster", "made", 0, touch) == "done"
    spans = {span.name: span for span in sent(collector)}
    assert spans["first"].trace != spans["second"].trace
    (publishing,) = collector.under(spans["second"])
    assert (publishing.name, publishing.told["lhcq.job"]) == ("publish", "cluster made")
    assert collector.under(publishing) == [spans["lhcq.cluster_part"]]

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    tracing._provider().shutdown()
    tracing._provider.cache_clear()
    publish_job(here, load_job(here, "cluster", "made"))
    assert load_job(here, "cluster", "made").trace is None
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    tracing._provider.cache_clear()
    before = len(collector.spans)
    assert perform_chunk("cluster", "made", 1, touch) == "done"
    with tracing.span("another"):
        pass
    assert [span.name for span in sent(collector)[before:]] == ["another"]


def test_a_traced_job_is_still_the_same_job(place) -> None:
    request = job_of(n_events=7, parts=1)
    job = create_job(place, request)
    set_trace(place, job, TRACE)
    joined = create_job(place, request.model_copy(update={"created": 2.0}))
    assert joined == job.model_copy(update={"trace": TRACE})
    renewed = renew_terms(
        place, request.model_copy(update={"terms": terms_of("cluster", source="elsewhere")})
    )
    assert (renewed.trace, renewed.spec) == (TRACE, job.spec)


def test_a_record_with_a_trace_that_is_none_is_refused(place, new_job) -> None:
    new_job()
    record = place.job("cluster", "made") / "job.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "trace": f"{TRACE}\n{SECRET}"}))
    with pytest.raises(BadInput, match="trace"):
        find_job(place, "cluster", "made")


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://host:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://host:4318/v1/metrics"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
    ],
)
def test_the_standard_variables_decide(variables: dict[str, str], wanted: bool, monkeypatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.traces_wanted() == wanted


def test_a_verb_that_is_refused_is_the_root_of_a_trace_that_says_why(here, collector) -> None:
    assert isinstance(CliRunner().invoke(retry.command, ["nothing"]).exception, Exception)
    (root,) = sent(collector)
    assert (root.name, root.parent) == ("lhcq retry", "")
    assert "no job is called 'nothing'" in root.error


def test_a_collector_that_does_not_answer_holds_nobody(collector, monkeypatch, caplog) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    collector.answers.clear()
    with tracing.span("held"):
        pass
    tracing.flush()
    assert collector.spans == []
    assert "did not answer" in caplog.text
    collector.answers.set()


@pytest.mark.parametrize(
    ("missing", "variables", "told"),
    [
        ("opentelemetry.exporter.otlp.proto.http.trace_exporter", {}, "[trace]"),
        (None, {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "soon"}, "soon"),
    ],
)
def test_traces_that_cannot_be_made_are_told_once_and_left_out(
    missing: str | None, variables: dict[str, str], told: str, collector, monkeypatch, caplog
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    for _ in range(2):
        with tracing.span("nothing"):
            tracing.note_span(part=1)
    assert sent(collector) == []
    (line,) = caplog.messages
    assert told in line


@pytest.mark.parametrize("wanted", [False, True])
def test_without_the_variables_nothing_that_traces_is_loaded(wanted: bool, tmp_path: Path, collector) -> None:
    """redis-py loads OpenTelemetry's metrics by itself, where they are installed."""
    program = (
        "import sys\nsys.argv = ['lhcq', 'cluster', 'missing.h5', '--name', 'x']\n"
        "import tasks.app\ntasks.app.app.loader.import_default_modules()\n"
        "from lhcq.cli.main import main\ntry:\n main()\nexcept SystemExit as end:\n print(end.code, *sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment | (collector.environment if wanted else {}),
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    code, *modules = done.stdout.split()
    assert (code, len(done.stderr.splitlines())) == ("1", 1)
    loaded = {"opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"} & set(modules)
    assert bool(loaded) == wanted
    assert len(collector.spans) == wanted
