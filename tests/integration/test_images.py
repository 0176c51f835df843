"""The images of `deploy/Containerfile`, built and started by buildah isolated by chroot, which asks for no daemon.

LHCQ_TEST_IMAGE names the base image, with a `python` of 3.11 or newer and its `venv`, in the place of the
Containerfile's; LHCQ_TEST_IMAGE_OPTIONS holds more options of `buildah build`, such as the volume of a certificate.
CONTRIBUTING.md has how one is made by debootstrap.
"""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployed import ROOT, image_commands

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

TARGETS = ("cpu", "flower", "gpu")


def buildah(*words: str | Path) -> str:
    """What a command of buildah prints; it must end well."""
    done = subprocess.run(
        ["buildah", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """A target, whose image was built."""
    base = os.environ.get("LHCQ_TEST_IMAGE")
    if base is None or shutil.which("buildah") is None:
        pytest.skip("no buildah (Debian: apt-get install buildah), or LHCQ_TEST_IMAGE names no base image")
    name: str = request.param
    buildah(
        *("build", "--layers", "--network", "host", "--format", "docker", "--build-arg", f"PYTHON={base}"),
        *shlex.split(os.environ.get("LHCQ_TEST_IMAGE_OPTIONS", "")),
        *("--file", "deploy/Containerfile", "--ignorefile", "deploy/Containerfile.dockerignore"),
        *("--target", name, "--tag", f"lhcq-test:{name}", "."),
    )
    return name


@pytest.fixture
def container(target: str) -> Iterator[str]:
    """A container of that image."""
    name = buildah("from", f"lhcq-test:{target}").strip()
    yield name
    buildah("rm", name)


def test_an_image_runs_the_program_as_an_account_without_rights(container: str, target: str) -> None:
    words = image_commands(target)["ENTRYPOINT"]
    assert buildah("run", container, "--", "id", "--user").strip() == "10001"
    if target == "flower":
        assert buildah("run", container, "--", *words, "--help").startswith("Usage: flower")
    else:
        assert buildah("run", container, "--", *words, "--version").startswith("lhcq, version ")


def test_an_image_clusters_with_a_broker_of_its_own(container: str, event_file: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for path in (workspace, tmp_path):
        path.chmod(0o777)
    volumes = ("--volume", f"{event_file.parent}:/events:ro", "--volume", f"{workspace}:/workspace")
    event_file.parent.chmod(0o755)
    command = ("lhcq", "cluster", f"/events/{event_file.name}", "--name", "made", "--json")
    answer = json.loads(buildah("run", *volumes, container, "--", *command))
    assert answer["rows"] == 2100
    assert (workspace / "datasets/made/events.parquet").is_file()


def test_the_image_for_gpus_holds_what_trains_and_no_other_does(container: str, target: str) -> None:
    source = (
        "import importlib.util as u; print([n for n in ('torch', 'peft', 'bitsandbytes') if u.find_spec(n)])"
    )
    printed = buildah("run", container, "--", "python", "-P", "-c", source).strip()
    assert printed == ("['torch', 'peft', 'bitsandbytes']" if target == "gpu" else "[]")
