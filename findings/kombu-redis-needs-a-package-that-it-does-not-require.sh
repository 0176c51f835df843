#!/usr/bin/env bash
# kombu: its transport for Redis imports `packaging`, which neither kombu nor redis requires.
#
# In an environment of kombu and redis alone `import kombu.transport.redis` raises ModuleNotFoundError. Most
# environments have the package by chance; who installs a worker without such a chance sees the broker refused at its
# first use. Name `packaging` among the requirements of your own.
# Seen with kombu 5.7.0 and redis 8.1.0: ModuleNotFoundError: No module named 'packaging'.
# Source: this program.
# Fails if the behaviour changes.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet kombu==5.7.0 redis==8.1.0
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
from importlib.metadata import distributions, requires, version

print("kombu", version("kombu"), "redis", version("redis"))
installed = {one.metadata["Name"].lower() for one in distributions()}
assert "packaging" not in installed, installed
needed = [one for name in ("kombu", "redis") for one in requires(name) or [] if "extra ==" not in one]
print("they require:", *needed, sep="\n  ")
assert not any(one.startswith("packaging") for one in needed)
try:
    import kombu.transport.redis
except ModuleNotFoundError as error:
    print("import kombu.transport.redis:", error)
    assert error.name == "packaging"
else:
    raise SystemExit("it was imported")
PYTHON
