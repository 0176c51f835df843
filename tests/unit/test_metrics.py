"""What Prometheus is told is what stands in the workspace, and the dashboard shows nothing that is not told."""

import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flower.events
import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from lhcq.cli import metrics
from lhcq.model.gpus import Gpu
from lhcq.records.jobs import end_job
from lhcq.records.journal import Journal
from lhcq.storage import append_line
from tasks.jobs.kinds import chunk_unit
from tasks.jobs.leases import lease
from tasks.jobs.train import segment_unit
from tasks.observe.metrics import LhcqCollector
from tasks.stages.fanout import perform_chunk

DEPLOY = Path(__file__).parents[2] / "deploy"
SPEC = {"n_events": 100, "storage_rows": 10, "events_per_chunk": 20}


def touch(place: Any, job: Any, index: int, path: Path, held: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def told(here) -> Callable[..., float | None]:
    """One sample of a scrape, by its name and labels; None where there is none."""
    here.create()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LhcqCollector(here))
    return registry.get_sample_value


@pytest.fixture
def with_broker(broker, broker_url: str, monkeypatch) -> Any:
    monkeypatch.setenv("LHCQ_BROKER_URL", broker_url)
    return broker


def test_parts_are_told_by_state_and_events_by_parts(with_broker, here, new_job, told) -> None:
    job = new_job(parts=5, **SPEC)
    for index in (0, 3):
        perform_chunk("cluster", "made", index, touch)
    with lease(with_broker, chunk_unit(job, 4).key):

        def parts(state: str) -> float | None:
            return told("lhcq_job_parts", {"kind": "cluster", "job": "made", "state": state})

        assert [parts(state) for state in ("done", "at_work", "waiting", "given_up")] == [2, 1, 2, 0]
        assert told("lhcq_leases", {"task": "lhcq.cluster_part"}) == 1
        age = told("lhcq_lease_age_seconds", {"task": "lhcq.cluster_part"})
        assert age is not None
        assert 0 <= age < 60
    job_labels = {"kind": "cluster", "job": "made"}
    assert told("lhcq_job_events_done_total", job_labels) == 40
    assert told("lhcq_job_events", job_labels) == 100
    assert told("lhcq_jobs", {"kind": "cluster", "state": "open"}) == 1
    end_job(here, job, "done", "merged")
    assert told("lhcq_job_events_done_total", job_labels) == 100  # whose parts are gone by then
    assert told("lhcq_jobs", {"kind": "cluster", "state": "done"}) == 1


def test_a_run_is_told_by_its_newest_lines(with_broker, here, new_job, told) -> None:
    new_job("train", "run", parts=0, total_steps=80)
    journal = here.run("run") / "events.jsonl"
    for step in (1, 2):
        line = {
            "event": "step",
            "time": time.time(),
            "step": step,
            "loss": 0.7 / step,
            "samples_per_second": 9.5,
        }
        append_line(journal, line)
    append_line(journal, {"event": "checkpoint", "time": time.time(), "step": 2})
    figures = {"step": 2, "auc": 0.91, "accuracy": 0.84, "n": 100, "seconds": 4.0}
    append_line(journal, {"event": "validation", "time": time.time(), **figures})
    append_line(journal, {"event": "alarm", "time": time.time(), "kind": "collapse"})
    expected = {
        "lhcq_run_step": 2.0,
        "lhcq_run_steps": 80.0,
        "lhcq_run_loss": 0.35,
        "lhcq_run_samples_per_second": 9.5,
        "lhcq_run_validation_step": 2.0,
        "lhcq_run_validation_auc": 0.91,
        "lhcq_run_validation_accuracy": 0.84,
        "lhcq_run_validation_events_per_second": 25.0,
        "lhcq_run_checkpoints_total": 1.0,
    }
    assert {name: told(name, {"run": "run"}) for name in expected} == expected
    assert told("lhcq_run_alarms_total", {"run": "run", "alarm": "collapse"}) == 1
    append_line(journal, {**line, "time": time.time() - 3600})
    assert told("lhcq_run_samples_per_second", {"run": "run"}) == 0


def test_a_validation_without_an_auc_tells_none(with_broker, here, new_job, told) -> None:
    new_job("train", "run", parts=0, total_steps=80)
    figures = {"step": 2, "auc": None, "accuracy": 0.84, "n": 100, "seconds": 4.0}
    append_line(here.run("run") / "events.jsonl", {"event": "validation", **figures})
    assert told("lhcq_run_validation_auc", {"run": "run"}) is None
    assert told("lhcq_run_validation_accuracy", {"run": "run"}) == 0.84


def test_the_broker_may_be_away(here, new_job, told, monkeypatch) -> None:
    new_job(parts=5, **SPEC)
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    assert told("lhcq_broker_up") == 0
    assert told("lhcq_leases", {"task": "lhcq.cluster_part"}) is None
    assert told("lhcq_job_events", {"kind": "cluster", "job": "made"}) == 100
    assert told("lhcq_workspace_free_bytes") > 0


def test_what_waits_in_the_queues_is_counted(with_broker, here, told) -> None:
    assert told("lhcq_broker_up") == 1
    assert told("lhcq_queue_messages", {"queue": "gpu"}) == 0
    from tasks.engine.publish import publish_unit

    publish_unit(segment_unit("run"))
    assert told("lhcq_queue_messages", {"queue": "gpu"}) == 1


def test_gpu_memory_is_told_of_this_host(with_broker, here, told, monkeypatch) -> None:
    cards = [
        Gpu(index=1, identifier="GPU-1", name="Toy", used=2 << 30, free=6 << 30, total=8 << 30, bfloat16=True)
    ]
    monkeypatch.setattr("tasks.observe.metrics.gpus_of_host", lambda: cards)
    labels = {"host": socket.gethostname(), "gpu": "1", "name": "Toy"}
    assert told("lhcq_gpu_memory_used_bytes", labels) == 2 << 30
    assert told("lhcq_gpu_memory_total_bytes", labels) == 8 << 30


def test_a_journal_is_read_as_it_grows_and_anew_when_it_is_another(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    journal = Journal(tmp_path)
    journal.read()
    path.write_text('{"event": "step", "step": 1}\nbroken\n{"event": "step", "st')
    journal.read()
    assert (journal.counts["step"], journal.step.step) == (1, 1)
    with path.open("a") as stream:
        stream.write('ep": 2}\n')
    journal.read()
    assert (journal.counts["step"], journal.step.step) == (2, 2)
    path.write_text('{"event": "step", "step": 7}\n')
    journal.read()
    assert (journal.counts["step"], journal.step.step) == (1, 7)


def exported(text: str) -> set[str]:
    """The names of metrics in a scrape, those without samples too, as PromQL has them."""
    return {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(text)
    }


def test_the_dashboard_and_its_variables_ask_for_nothing_that_is_not_exported(here, monkeypatch) -> None:
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    here.create()
    with_samples = CliRunner().invoke(metrics.command, ["--once"], catch_exceptions=False).output
    of_broker = {"lhcq_broker_memory_bytes", "lhcq_queue_messages", "lhcq_leases", "lhcq_lease_age_seconds"}
    known = exported(with_samples) | of_broker
    source = Path(flower.events.__file__).read_text("utf-8")
    of_flower = set(re.findall(r"'(flower_\w+)'", source))
    board = json.loads((DEPLOY / "grafana/lhcq.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked += [variable["query"] for variable in board["templating"]["list"]]
    named = {name for query in asked for name in re.findall(r"\b(?:lhcq|flower)_\w+", query)}
    assert named - known - of_flower - {"flower_task_runtime_seconds_bucket"} == set()
    assert known - named == set()  # and shows all that lhcq exports


def test_the_metrics_of_the_broker_are_named_as_the_dashboard_test_has_them(
    with_broker, here, new_job
) -> None:
    with lease(with_broker, chunk_unit(new_job(), 0).key):
        text = CliRunner().invoke(metrics.command, ["--once"], catch_exceptions=False).output
    assert {"lhcq_broker_memory_bytes", "lhcq_queue_messages", "lhcq_leases"} <= exported(text)
    assert "lhcq_lease_age_seconds{" in text


def test_the_dashboard_is_one_that_grafana_can_load() -> None:
    board = json.loads((DEPLOY / "grafana/lhcq.json").read_text("utf-8"))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    covered: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert covered.isdisjoint(cells), panel["title"]
        assert place["x"] + place["w"] <= 24
        covered |= cells
        for target in panel.get("targets", []):
            assert target["expr"].count("(") == target["expr"].count(")")
            assert target["datasource"]["uid"] == "${source}"


def test_prometheus_itself_reads_the_queries_and_the_configuration(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    board = json.loads((DEPLOY / "grafana/lhcq.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    rules = [
        {"record": f"query:{number}", "expr": re.sub(r"\$\w+", "1m", query)}
        for number, query in enumerate(asked)
    ]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    for words in (("rules", tmp_path / "rules.json"), ("config", DEPLOY / "prometheus.yml")):
        done = subprocess.run([promtool, "check", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_the_addresses_that_the_verbs_have() -> None:
    from tasks.workers.flower import DEFAULT_PORT

    text = (DEPLOY / "prometheus.yml").read_text("utf-8")
    assert re.findall(r'targets: \["(.*)"\]', text) == [metrics.DEFAULT_ADDRESS, f"127.0.0.1:{DEFAULT_PORT}"]
    assert "honor_labels: true" in text


@pytest.mark.parametrize("listen", ["9808", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000"])
def test_an_address_that_is_none_is_refused(here, listen: str) -> None:
    result = CliRunner().invoke(metrics.command, ["--listen", listen])
    assert result.exit_code == 2
    assert "is not HOST:PORT" in result.output


def test_the_exporter_answers_and_two_scrapes_at_once_do_not_mix(with_broker, here, new_job) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from prometheus_client import start_http_server

    new_job(parts=5, **SPEC)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LhcqCollector(here))
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = f"http://127.0.0.1:{server.server_port}/metrics"

        def scrape(_: int) -> str:
            with opener.open(url, timeout=30) as answer:
                return str(answer.read().decode())

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(scrape, range(4)))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert all('lhcq_job_events{job="made",kind="cluster"} 100.0' in answer for answer in answers)
