#!/usr/bin/env bash
# Celery: an application that has published once goes on with the broker, and the result backend, of that time,
# whatever `broker_url` and `result_backend` say by then.
#
# `app.conf.update(broker_url=..., result_backend=...)` changes what the settings, and so `inspect conf`, show; the
# pool of producers and the backend object were made at their first use and are kept. The next message goes to the
# first broker, without an error, and results are looked for in the first backend. Who points one process at two
# brokers one after the other has to drop `amqp`, the pool and the backend, or make a new application.
# Seen with celery 5.7.0 and kombu 5.7.0, on brokers of the transport `filesystem`: the settings name the second, both
# messages are in the first, and the backend is the first's.
# Source: this program; in celery/app/amqp.py `producer_pool`, in celery/app/base.py `backend`.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet celery==5.7.0 kombu==5.7.0
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path

from celery import Celery

print("celery", version("celery"), "kombu", version("kombu"))
app = Celery("one")
folders = {name: Path(name).absolute() for name in ("first", "second")}


@app.task
def work() -> None: ...


def point_at(name: str) -> None:
    folder = folders[name]
    for part in ("messages", "control", "results"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    app.conf.update(
        broker_url=f"filesystem://{name}",
        broker_transport_options={
            "data_folder_in": str(folder / "messages"),
            "data_folder_out": str(folder / "messages"),
            "control_folder": str(folder / "control"),
        },
        result_backend=f"file://{folder / 'results'}",
    )


found = []
for name in folders:
    point_at(name)
    work.apply_async()
    app.backend.set(b"key", b"value")
    found.append({one: len(list(folder.glob("messages/*"))) for one, folder in folders.items()})
    print(f"settings: {app.conf.broker_url}; messages: {found[-1]}; backend: {app.backend.url}")
assert app.conf.broker_url == "filesystem://second"
assert found == [{"first": 1, "second": 0}, {"first": 2, "second": 0}], found
assert not list((folders["second"] / "results").iterdir())
assert list((folders["first"] / "results").iterdir())
PYTHON
