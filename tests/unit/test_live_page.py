"""The live page: who may look, what is shown of a workspace that is well or not, and what never leaves it.

Longer than other files are: who looks at the page, by which address and with what in the workspace, is asked of one
server, which all of it shares.
"""

import base64
import html
import http.client
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lhcq.errors import BadInput
from lhcq.records.failures import Failure, Holder, note_stop, record_failure
from lhcq.records.job_control import set_wish
from lhcq.records.jobs import Job, end_job
from lhcq.records.journal import StepLine, write_line
from lhcq.report.live_page import PAGE_ROWS
from lhcq.workspace import RunPaths, Workspace
from tasks.live import server, views
from tasks.live.server import LivePage, live_page
from tasks.observe.job_rows import JobRows
from tasks.workers.login import login_to_look

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
NewJob = Callable[..., Job]


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: str

    @property
    def words(self) -> str:
        """What can be read."""
        text = re.sub(r"(?s)<(script|style|pre).*?</\1>|<[^>]*>", " ", self.body)
        return " ".join(html.unescape(text).split())


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


class Served:
    """A page that is served, asked as whoever wishes."""

    def __init__(self, page: LivePage) -> None:
        self.page = page
        self.port = int(page.url.rpartition(":")[2])

    def ask(
        self, path: str = "/", *, login: str | None = "", host: str | None = None, method: str = "GET"
    ) -> Answer:
        """With the right login unless another is given, or None."""
        headers = {"Host": host or f"127.0.0.1:{self.port}"}
        if login is not None:
            headers["Authorization"] = (
                f"Basic {base64.b64encode((login or self.page.login).encode()).decode()}"
            )
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.putrequest(method, path, skip_host=True)  # as it is: a browser would put `..` in order
            for name, value in headers.items():
                line.putheader(name, value)
            line.endheaders()
            answer = line.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            line.close()


@pytest.fixture
def served(place: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    for name in ("_FRESH_SECONDS", "_SHARE", "_PICTURE_SECONDS"):
        monkeypatch.setattr(views, name, 0.0)
    monkeypatch.delenv("LHCQ_BROKER_URL", raising=False)
    place.create()
    with live_page(place, None) as page:
        yield Served(page)


def contents(workspace: Workspace) -> dict[Path, tuple[int, bytes]]:
    files = (path for path in workspace.root.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_nothing_is_told_without_the_login_which_is_flower_s(
    served: Served, place: Workspace, new_job: NewJob
) -> None:
    new_job(name="secret")
    login = place.flower_login
    assert served.page.login == login.read_text().strip()
    assert stat.S_IMODE(login.stat().st_mode) == 0o600
    for path in (
        "/",
        "/live.js",
        "/live.css",
        "/nothing",
        "/jobs/cluster/secret",
        "/jobs/cluster/secret/log",
    ):
        for wrong in (None, "lhcq:wrong", "lhcq:", served.page.login.upper()):
            answer = served.ask(path, login=wrong)
            assert answer.status == 401, path
            assert "Basic" in answer.headers["WWW-Authenticate"]
            assert "secret" not in answer.body
    assert "secret" in served.ask().words


def test_another_host_s_name_is_refused_whatever_the_login(served: Served) -> None:
    for host in (
        "evil.example",
        f"evil.example:{served.port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    ):
        assert served.ask(host=host).status == 403
        assert served.ask(host=host, login=None).status == 403
    for host in ("localhost:8080", "127.0.0.1", "[::1]:5550"):  # the other end of a tunnel has another port
        assert served.ask(host=host).status == 200


def test_nobody_can_change_anything_and_looking_leaves_no_trace(
    served: Served, place: Workspace, new_job: NewJob
) -> None:
    job = new_job()
    before = contents(place)
    for path in ("/", f"/jobs/cluster/{job.name}", f"/jobs/cluster/{job.name}/log", "/live.js"):
        assert served.ask(path).status == 200
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert served.ask(path, method=method).status == 405
    assert contents(place) == before


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/cluster/../../../../etc/passwd",
        "/jobs/cluster/..%2f..%2f..%2fetc%2fpasswd",
        "/jobs/cluster/%2e%2e/report",
        "/jobs/train/..%2foutside/report",
        "/jobs/train/a%00b",
        "/jobs/etc/passwd",
        "/jobs/cluster/",
        "/jobs/",
        "/flower-login",
        "/jobs/train/first/job.json",
        "/jobs/train/first/report/..",
        "//etc/passwd",
    ],
)
def test_no_path_leads_elsewhere_and_no_directory_is_listed(
    served: Served, place: Workspace, new_job: NewJob, path: str
) -> None:
    new_job("train", "first", parts=0)
    answer = served.ask(path)
    assert answer.status == 404
    assert served.page.login not in answer.body
    assert "root:" not in answer.body


def test_a_report_is_served_without_a_right_and_one_that_is_a_link_out_is_not(
    served: Served, place: Workspace, new_job: NewJob, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.html"
    outside.write_text("of somebody else")
    job = new_job("train", "first", parts=0)
    page = RunPaths(place.run(job.name)).page
    page.write_text(f"<p>the report</p>{HOSTILE}")
    answer = served.ask("/jobs/train/first/report")
    assert "the report" in answer.body
    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox;" in policy
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    page.unlink()
    page.symlink_to(outside)
    time.sleep(1.1)  # a path is believed to lie inside for a second
    answer = served.ask("/jobs/train/first/report")
    assert answer.status == 500
    assert "of somebody else" not in answer.body
    assert "leads out of the workspace" in answer.body


def test_names_messages_and_log_lines_cannot_become_markup(
    served: Served, place: Workspace, new_job: NewJob
) -> None:
    job = new_job(name="open")
    unit = "lhcq.cluster_part:open:1"
    by = Holder(host="node7", pid=1, since=1.0, log=None)
    record_failure(
        place, job, Failure(unit=unit, message=HOSTILE, permanent=False, attempts=5, by=by, traceback=HOSTILE)
    )
    end_job(place, new_job(name="ended"), "failed", HOSTILE)
    place.logs.mkdir()
    log = f"[2026-11-29T12:00:00.123Z INFO node7/worker {unit} attempt 1] begun {HOSTILE}\n"
    (place.logs / "cpu.log").write_text(log)
    for path in ("/", "/jobs/cluster/open", "/jobs/cluster/ended"):
        answer = served.ask(path)
        assert HOSTILE not in answer.body, path
        assert HOSTILE in html.unescape(answer.body), path
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        tags = Tags(answer.body).found
        assert [given for name, given in tags if name == "script"] == [{"src": "/live.js", "defer": None}]
        assert not [
            given for _, given in tags if any(one.startswith("on") or one == "style" for one in given)
        ]
    answer = served.ask("/jobs/cluster/open/log")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert HOSTILE in answer.body


def test_what_stands_between_backticks_is_shown_as_code(
    served: Served, place: Workspace, new_job: NewJob
) -> None:
    job = new_job(name="open")
    by = Holder(host="node7", pid=1, since=1.0, log=None)
    message = "no column `m_jj`: run `lhcq prepare --without-mass`."
    failed = Failure(
        unit="lhcq.cluster_part:open:1", message=message, permanent=False, attempts=5, by=by, traceback=""
    )
    record_failure(place, job, failed)
    note_stop(place, job, "`lhcq resume open` goes on.")
    end_job(place, new_job(name="ended"), "failed", message)
    for path, said in {
        "/": "<code>lhcq prepare --without-mass</code>",
        "/jobs/cluster/ended": "<code>lhcq prepare --without-mass</code>",
        "/jobs/cluster/open": "<code>lhcq resume open</code>",
    }.items():
        answer = served.ask(path)
        assert said in answer.body, path
        assert "`" not in answer.words, path


def test_a_damaged_record_is_shown_as_damaged_and_hides_no_other(
    served: Served, place: Workspace, new_job: NewJob
) -> None:
    new_job(name="whole")
    (place.job("cluster", new_job(name="broken").name) / "job.json").write_text('{"kind": "clus')
    (place.job("cluster", new_job(name="odd").name) / "outcome.json").write_text("[]")
    words = served.ask().words
    assert "whole cluster" in words
    assert words.count("damaged") >= 2
    for name in ("broken", "odd"):
        answer = served.ask(f"/jobs/cluster/{name}")
        assert answer.status == 200
        assert "damaged" in answer.words
        assert str(place.job("cluster", name)) in answer.words
        assert ("its record cannot be read" in answer.words) == (
            name == "broken"
        )  # nobody knows what was logged


def test_a_paused_job_is_not_counted_as_under_way(served: Served, place: Workspace, new_job: NewJob) -> None:
    set_wish(place, new_job(name="waits"), "pause")
    answer = served.ask()
    assert "0 under way" in answer.words
    assert "Open 0 Done 0 Paused 1" in answer.words
    assert "Under way or paused waits" in answer.words


def test_a_run_with_a_damaged_journal_shows_what_is_wrong_beside_all_else(
    served: Served, place: Workspace, new_job: NewJob
) -> None:
    job = new_job("train", "first", parts=0)
    journal = RunPaths(place.run(job.name)).journal
    write_line(place.run(job.name), StepLine(step=1, loss=0.7))
    with journal.open("a") as stream:
        stream.write("not a line\n")
    write_line(place.run(job.name), StepLine(step=2, loss=0.625))
    words = served.ask("/jobs/train/first").words
    assert f"{journal}: line 2 cannot be read" in words
    assert "2 of 10 steps; loss 0.625" in words


def test_a_job_is_followed_from_its_chunks_to_its_end(
    served: Served, place: Workspace, new_job: NewJob
) -> None:
    job = new_job(name="lhco", parts=4)
    assert "0 of 4 parts" in served.ask().words
    chunks = place.job("cluster", "lhco") / "parts" / job.identity
    chunks.mkdir(parents=True)
    for index in range(3):
        (chunks / f"{index:06d}.arrows").write_bytes(b"")
    for path in ("/", "/jobs/cluster/lhco"):
        answer = served.ask(path)
        assert "3 of 4 parts" in answer.words
        assert '<progress value="3" max="4"' in answer.body
    assert "Nothing is under way or paused" not in served.ask().words
    end_job(place, job, "done", "30 events in the dataset")
    words = served.ask().words
    assert "Nothing is under way or paused" in words
    assert "done 30 events in the dataset" in words


def test_a_run_shows_its_loss_and_checkpoints_as_they_come(
    served: Served, place: Workspace, new_job: NewJob
) -> None:
    new_job("train", "first", parts=0, total_steps=10, checkpoint_steps=[5, 10])
    assert "step 5 validation not trained yet" in served.ask("/jobs/train/first").words
    for step in range(1, 6):
        write_line(place.run("first"), StepLine(step=step, loss=0.7 - 0.05 * step))
    answer = served.ask("/jobs/train/first")
    assert "5 of 10 steps; loss 0.450" in answer.words
    pictures = re.findall(r'(?:src|srcset)="(data:image/svg[^"]*)"', answer.body)
    assert len(set(pictures)) == 2, "the loss, for a light and a dark page"
    assert "open 5 of 10 steps; loss 0.450" in served.ask().words


def test_many_ended_jobs_are_paged_newest_first_and_can_be_narrowed(
    served: Served, place: Workspace, new_job: NewJob
) -> None:
    for number in range(PAGE_ROWS + 7):
        end_job(place, new_job(name=f"job-{number:03d}"), "done", "")
    end_job(place, new_job("prepare", "half", parts=0), "done", "")

    def listed(path: str) -> list[str]:
        return re.findall(r'class="name" href="/jobs/[^/]+/([^"]+)"', served.ask(path).body)

    first, second = listed("/"), listed("/?page=2")
    assert first[:2] == ["half", f"job-{PAGE_ROWS + 6:03d}"]
    assert (len(first), len(second)) == (PAGE_ROWS, 8)
    assert not set(first) & set(second)
    assert listed("/?kind=prepare") == ["half"]
    for odd in ("0", "-1", "x", "99999", "9" * 400, "1%00", "%C2%B2"):
        assert listed(f"/?page={odd}") in (first, second), odd
    assert listed(f"/?kind={HOSTILE.replace(' ', '%20')}") == []


def test_records_of_an_ended_job_are_read_once_and_again_when_they_change(
    place: Workspace, new_job: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, other = new_job(name="ended"), new_job(name="other")
    end_job(place, ended, "failed", "the disk was full")
    rows = JobRows(place)
    first = rows.read()
    read: list[str] = []
    from tasks.observe import job_rows

    def counted(workspace: Workspace, job: Job) -> Any:
        read.append(job.name)
        return job_rows._row(workspace, job)

    monkeypatch.setattr(job_rows, "row_of", counted)
    assert rows.read() == first
    assert read == ["other"]
    (place.job("cluster", "ended") / "outcome.json").unlink()  # `lhcq retry` opens it again
    end_job(place, other, "done", "")
    assert {row["name"]: row["state"] for row in rows.read()} == {"ended": "open", "other": "done"}


def test_a_port_that_is_taken_is_refused_in_one_line(served: Served, place: Workspace) -> None:
    with pytest.raises(BadInput, match=f"port {served.port} is taken"), live_page(place, served.port):
        pass


def test_the_server_ends_with_its_command(place: Workspace) -> None:
    with live_page(place, None) as page:
        served = Served(page)
        assert served.ask().status == 200
    assert not page.thread.is_alive()
    with pytest.raises(OSError, match="refused"):
        served.ask()
    assert not place.root.exists(), "a question makes no workspace"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's workspace")
def test_who_looks_at_another_user_s_workspace_has_a_login_of_his_own_and_leaves_theirs(
    place: Workspace,
) -> None:
    place.create()
    _, kept = login_to_look(place)
    assert kept == place.flower_login
    before = kept.read_text()
    for path in (place.root, kept):
        os.chown(path, 65534, 65534)
    login, nowhere = login_to_look(place)
    assert nowhere is None
    assert login not in before
    assert kept.read_text() == before


def test_who_leaves_while_it_begins_is_not_kept_waiting(
    place: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    class Slow(server.HTTPServer):
        def add_socket(self, socket: Any) -> None:
            begun.set()
            time.sleep(0.3)
            super().add_socket(socket)

    monkeypatch.setattr(server, "HTTPServer", Slow)
    with live_page(place, None) as page:
        begun.wait()
    assert not page.thread.is_alive()
