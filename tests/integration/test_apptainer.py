"""The one-file image of `deploy/apptainer.def`, built and run by Apptainer.

LHCQ_TEST_APPTAINER names a directory with the root of a system (CONTRIBUTING.md has how one is made by debootstrap),
whose `python` has `venv`: it takes the place of the image that the definition begins with. Root of a container that
lacks capabilities builds the image and cannot run it: be another account there.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deployed import ROOT

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]


def apptainer(*words: str | Path) -> str:
    """What a command of Apptainer prints; it must end well."""
    done = subprocess.run(
        ["apptainer", "--silent", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image, by the definition as it stands but for what it begins with."""
    base = os.environ.get("LHCQ_TEST_APPTAINER")
    if base is None or shutil.which("apptainer") is None:
        pytest.skip("no apptainer (Debian's package of that name), or LHCQ_TEST_APPTAINER names no system")
    place = tmp_path_factory.mktemp("apptainer")
    text, places = re.subn(
        r"^Bootstrap: .*\nFrom: .*$",
        f"Bootstrap: localimage\nFrom: {base}",
        (ROOT / "deploy/apptainer.def").read_text("utf-8"),
        count=1,
        flags=re.M,
    )
    assert places == 1
    definition, made = place / "local.def", place / "lhcq.sif"
    definition.write_text(text)
    # As an account that is not root it would do so by itself; as root it wants rights that a container has not.
    apptainer(
        "build", "--fakeroot", "--build-arg", "version=0.2.0.dev7+gabcdef012", made, definition
    )  # %test among it
    return made


def test_the_image_runs_the_program_of_that_version(image: Path) -> None:
    assert apptainer("run", image, "--version").strip() == "lhcq, version 0.2.0.dev7+gabcdef012"


def test_the_image_clusters_with_a_broker_of_its_own(image: Path, event_file: Path, tmp_path: Path) -> None:
    volumes = ("--bind", f"{event_file.parent}:/events:ro", "--bind", tmp_path)
    where = ("--env", f"LHCQ_WORKSPACE={tmp_path / 'workspace'}")
    command = ("cluster", f"/events/{event_file.name}", "--name", "made", "--json")
    answer = json.loads(apptainer("run", *volumes, *where, image, *command))
    assert answer["rows"] == 2100
    assert (tmp_path / "workspace/datasets/made/events.parquet").is_file()


def test_the_image_holds_what_trains(image: Path) -> None:
    source = "import torch, peft, bitsandbytes; print(torch.ones(2).sum().item())"
    assert apptainer("exec", image, "/opt/lhcq/bin/python", "-P", "-c", source).strip() == "2.0"
