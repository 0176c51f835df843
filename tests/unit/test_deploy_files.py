"""The files of `deploy/` hold to what their formats ask, and to each other."""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployed import (
    DEPLOY,
    ROOT,
    UNITS,
    compose,
    image_commands,
    make_secrets,
    unit_command,
    unit_settings,
)

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("secrets") / "new"
    make_secrets(directory, "broker.example.org", "192.0.2.7", "2001:db8::7")
    return directory


def certificate(secrets: Path, *wanted: str) -> str:
    command = ["openssl", "x509", "-in", secrets / "broker.crt", "-noout", *wanted]
    return subprocess.check_output(command, text=True)


def test_the_secrets_are_their_owner_s_alone(secrets: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()}
    assert modes == {
        "broker-url": 0o600,
        "broker.key": 0o600,
        "flower.conf": 0o600,
        "users.acl": 0o600,
        "broker.crt": 0o644,
        "ca.crt": 0o644,
    }
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700


def test_the_password_stands_in_the_address_and_as_a_hash_for_the_broker(secrets: Path) -> None:
    found = re.fullmatch(
        r"rediss://lhcq:(\w{48})@broker\.example\.org:6379/0\n", (secrets / "broker-url").read_text()
    )
    assert found
    users = (secrets / "users.acl").read_text()
    assert f"#{hashlib.sha256(found[1].encode()).hexdigest()} " in users
    assert users.startswith("user default off resetpass -@all\n")


def test_the_certificate_names_every_host_and_is_signed_by_the_authority(secrets: Path) -> None:
    names = certificate(secrets, "-ext", "subjectAltName")
    for name in ("DNS:broker.example.org", "IP Address:192.0.2.7", "IP Address:2001:DB8:0:0:0:0:0:7"):
        assert name in names
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", secrets / "ca.crt", secrets / "broker.crt"]
    subprocess.run(verify, check=True, capture_output=True)


def test_secrets_that_are_there_are_not_overwritten(secrets: Path) -> None:
    before = (secrets / "broker-url").read_bytes()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        make_secrets(secrets, "other.example.org")
    assert b"is there already" in caught.value.stderr
    assert (secrets / "broker-url").read_bytes() == before


def test_secrets_are_made_without_a_word_unless_something_is_wrong(tmp_path: Path) -> None:
    made = subprocess.run(
        [DEPLOY / "make-secrets", tmp_path / "new", "node1"], capture_output=True, check=True
    )
    assert (made.stdout, made.stderr) == (b"", b"")
    no_name = subprocess.run(
        [DEPLOY / "make-secrets", tmp_path / "other", "no,,name"], capture_output=True, check=False
    )
    assert no_name.returncode != 0
    assert b"invalid" in no_name.stderr
    assert not (tmp_path / "other/broker-url").exists()


def test_shell_holds_to_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", DEPLOY / "make-secrets"], check=True)


def test_units_hold_to_systemd(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    for path in UNITS.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(UNITS)
            target.parent.mkdir(exist_ok=True)
            program = re.compile(r"(?m)^ExecStart=\S+")  # which is not installed here
            target.write_text(program.sub(f"ExecStart={sys.executable}", path.read_text()))
    names = ["lhcq-broker", "lhcq-flower", *(f"lhcq-worker@{kind}" for kind in ("cpu", "gpu", "validate"))]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(f"{tmp_path}/{name}.service" for name in names)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_compose_files_hold_to_the_specification() -> None:
    docker = ["docker", "compose"]
    plugin = shutil.which("docker") and not subprocess.call([*docker, "version"], stderr=subprocess.DEVNULL)
    schema = os.environ.get("LHCQ_COMPOSE_SCHEMA")
    files = [DEPLOY / "compose.yaml", DEPLOY / "compose.hosts.yaml"]
    if plugin:
        named = [word for file in files for word in ("--file", str(file))]
        environment = {**os.environ, "LHCQ_USER": "1000:1000"}
        subprocess.run([*docker, *named, "config", "--quiet"], env=environment, check=True)
    elif schema:
        jsonschema = pytest.importorskip("jsonschema")
        for file in files:
            jsonschema.validate(compose(file.name), json.loads(Path(schema).read_text()))
    else:
        pytest.skip("neither `docker compose`, nor LHCQ_COMPOSE_SCHEMA for the specification's JSON schema")


def test_every_secret_that_a_service_mounts_is_one_that_make_secrets_makes(secrets: Path) -> None:
    made = {path.name for path in secrets.iterdir()}
    described = compose("compose.yaml")
    assert set(described["secrets"]) == made
    for service in described["services"].values():
        assert set(service["secrets"]) <= made
        for value in service.get("environment", {}).values():
            assert not value.startswith("/run/secrets/") or Path(value).name in service["secrets"]
    for name in ("lhcq-broker", "lhcq-flower", "lhcq-worker@"):
        loaded = [line.partition(":")[2] for line in unit_settings(f"{name}.service")["LoadCredential"]]
        assert {Path(path).name for path in loaded} <= made


def test_no_service_gets_a_secret_by_its_environment_or_its_command() -> None:
    for service in compose("compose.yaml")["services"].values():
        words = [*service.get("environment", {}).values(), *service.get("command", [])]
        assert not [word for word in words if "://" in word]


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_images_and_units_run_the_same_worker(kind: str) -> None:
    image = image_commands(kind)
    unit = unit_command(
        "lhcq-worker@.service",
        places={"/opt/lhcq/bin/": ""},
        specifiers={"%i": kind, "%d": "/c", "%C": "/c"},
    )
    assert image["ENTRYPOINT"] + image["CMD"] == unit.words == ["lhcq", "worker", kind]


def test_the_broker_s_unit_and_its_service_differ_in_places_alone() -> None:
    service = compose("compose.yaml")["services"]["broker"]["command"]
    unit = unit_command(
        "lhcq-broker.service",
        places={"/usr/bin/": "", "%S/lhcq-broker": "/data"},
        specifiers={"%d": "/run/secrets", "%S": "%S"},
    )
    assert unit.words == service


def test_every_image_of_a_service_is_built_by_a_target_that_is_there() -> None:
    for service in compose("compose.yaml")["services"].values():
        if build := service.get("build"):
            assert build["dockerfile"] == "deploy/Containerfile"
            assert service["image"] == f"lhcq:{build['target']}"
            assert image_commands(build["target"])["HEALTHCHECK"]


def test_images_copy_what_is_there() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    copied = [
        word
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    kept = [
        line[1:]
        for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
        if line[0] == "!"
    ]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / name).exists() for name in copied)


def test_the_apptainer_image_is_made_as_the_gpu_image_is() -> None:
    definition = (DEPLOY / "apptainer.def").read_text()
    containerfile = (DEPLOY / "Containerfile").read_text()
    base = re.search(r"^From: (\S+)$", definition, re.M)
    assert base
    assert f"docker.io/library/{base[1]}" in containerfile
    copied = re.search(r"%files\n(.*?)\n\n", definition, re.S)
    assert copied
    for line in copied[1].splitlines():
        name, target = line.split()
        assert (ROOT / name).exists()
        assert target == f"/src/{name}"
        assert name in containerfile
    steps = re.search(r"%post\n(.*?)\n\n", definition, re.S)
    assert steps
    assert subprocess.run(["sh", "-n"], input=steps[1], text=True, check=False).returncode == 0
