"""What a real worker with a spawned child logs, on its own output and into the workspace."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tasks.broker.transport import new_message, put_messages
from tasks.jobs.units import Unit


def test_lines_of_a_spawned_child_tell_their_unit_in_the_workspace_and_where_the_worker_prints(
    broker, broker_url: str, here, new_job, until, lhcq, tmp_path: Path
) -> None:
    # A directory where a file should be fails as a bug does.
    new_job("prepare", "split", parts=0, dataset="odd")
    (here.dataset("odd") / "manifest.json").mkdir(parents=True)
    unit = Unit(task="lhcq.prepare", args=("split",))
    kept, printed = here.logs / "validate-here.log", tmp_path / "printed.log"
    environment = {
        "LHCQ_BROKER_URL": broker_url,
        "LHCQ_WORKSPACE": str(here.root),
        "LHCQ_LOG": str(kept),
        "LHCQ_LOG_FORMAT": "json",
    }
    with printed.open("ab") as output:
        worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "-A", "tasks.app", "worker", "--queues", "validate"),
                *("--pool", "prefork", "--pool-start-method", "spawn", "--concurrency", "1"),
                *("--loglevel", "INFO", "--without-mingle"),
            ],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        # To a queue whose workers compile nothing at their start.
        message = new_message(unit.task, unit.args, queue="validate", caption="{}", identity="one")
        put_messages(broker, [("validate", message)])
        until(lambda: kept.exists() and b"succeeded" in kept.read_bytes(), "the task to end")
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    records = [json.loads(line) for line in kept.read_text().splitlines()]
    assert records == [json.loads(line) for line in printed.read_text().splitlines() if line.startswith("{")]

    def about(text: str) -> list[Any]:
        return [
            (record["unit"], record["attempt"], record["process"].partition("Worker")[0])
            for record in records
            if text in record["message"]
        ]

    assert about("begun") == [(unit.key, 1, "SpawnPool")]
    assert about("Traceback") == [(unit.key, 1, "SpawnPool")]
    lhcq.workspace = here.root
    lines = lhcq.run("logs", "split").stdout.splitlines()
    assert any("begun" in line for line in lines)
    assert all(f" {unit.key} " in line for line in lines)
