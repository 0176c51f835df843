"""Where the broker is and whom to trust: from the environment, from files, and never without verification."""

import ssl
from pathlib import Path

import pytest

from lhcq.address import BrokerAddress
from lhcq.environment import Settings
from lhcq.errors import BadInput
from lhcq.workspace import Workspace
from tasks.settings import celery_settings
from tasks.workers.local import worker_environment

ADDRESS = "rediss://lhcq:s3cret@broker.example.org:6379/0"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *("LHCQ_BROKER_URL", "LHCQ_BROKER_URL_FILE"),
        *("LHCQ_BROKER_CA", "LHCQ_BROKER_CERT", "LHCQ_BROKER_KEY"),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def address_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "broker-url"
    path.write_text(f"{ADDRESS}\n")
    monkeypatch.setenv("LHCQ_BROKER_URL_FILE", str(path))
    return path


def test_the_address_is_read_from_a_file(address_file: Path) -> None:
    assert Settings.from_environment().broker_url == ADDRESS


def test_an_address_in_the_environment_wins_over_the_file(address_file: Path, monkeypatch) -> None:
    monkeypatch.setenv("LHCQ_BROKER_URL", "redis://elsewhere/0")
    assert Settings.from_environment().broker_url == "redis://elsewhere:6379/0"


def test_settings_do_not_show_the_password(address_file: Path) -> None:
    assert "s3cret" not in repr(Settings.from_environment())


def test_what_stands_in_a_file_does_not_get_into_a_worker_s_environment(address_file: Path, tmp_path) -> None:
    place = Workspace(tmp_path)
    assert "LHCQ_BROKER_URL" not in worker_environment(place, ADDRESS, "cpu")
    other = worker_environment(place, "redis+socket:///tmp/embedded.sock", "cpu")
    assert other["LHCQ_BROKER_URL"] == "redis+socket:///tmp/embedded.sock"


@pytest.mark.parametrize(
    "content", ["", "\n", "redis://one/0\nredis://two/0\n", "redis://one/0 redis://two/0"]
)
def test_a_file_that_does_not_hold_one_address_is_refused(address_file: Path, content: str) -> None:
    address_file.write_text(content)
    with pytest.raises(BadInput, match="has to hold one line"):
        Settings.from_environment()


def test_a_file_that_cannot_be_read_is_named_and_its_content_is_not_shown(address_file: Path) -> None:
    address_file.write_bytes(b"\xffs3cret")
    with pytest.raises(BadInput, match=r"broker-url cannot be read \(not text\)") as caught:
        Settings.from_environment()
    assert "s3cret" not in str(caught.value)
    address_file.unlink()
    with pytest.raises(BadInput, match=r"broker-url cannot be read \(No such file"):
        Settings.from_environment()


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "db=1&ssl_ca_certs=/x"])
def test_verification_cannot_be_switched_off_by_the_address(monkeypatch, option: str) -> None:
    monkeypatch.setenv("LHCQ_BROKER_URL", f"{ADDRESS}?{option}")
    with pytest.raises(BadInput, match="always verified") as caught:
        Settings.from_environment()
    assert "s3cret" not in str(caught.value)


def test_an_authority_has_to_be_there(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LHCQ_BROKER_CA", str(tmp_path / "ca.crt"))
    with pytest.raises(BadInput, match="LHCQ_BROKER_CA: there is no file"):
        Settings.from_environment()


def test_a_key_without_its_certificate_is_refused(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "me.key").touch()
    monkeypatch.setenv("LHCQ_BROKER_KEY", str(tmp_path / "me.key"))
    with pytest.raises(BadInput, match="name its file by LHCQ_BROKER_CERT"):
        Settings.from_environment()


def test_a_home_directory_that_no_shell_put_in_is_meant_all_the_same(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LHCQ_WORKSPACE", "~/lhcq")
    monkeypatch.setenv("LHCQ_DATA_ROOTS", "~/data:/elsewhere")
    monkeypatch.setenv("LHCQ_BROKER_URL_FILE", "~/broker-url")
    (tmp_path / "broker-url").write_text(ADDRESS)
    settings = Settings.from_environment()
    assert settings.workspace == tmp_path / "lhcq"
    assert settings.data_roots == (tmp_path / "data", Path("/elsewhere"))
    assert settings.broker_url is not None
    monkeypatch.setenv("LHCQ_WORKSPACE", "~nobody-of-that-name/lhcq")
    with pytest.raises(BadInput, match="no such home directory"):
        Settings.from_environment()


@pytest.mark.parametrize("authority", [None, Path("/etc/lhcq/ca.crt")])
def test_broker_and_backend_verify_certificate_and_name(authority: Path | None) -> None:
    settings = celery_settings(BrokerAddress.of(ADDRESS), Settings(broker_ca=authority))
    for options in (settings["broker_use_ssl"], settings["redis_backend_use_ssl"]):
        assert options["ssl_cert_reqs"] is ssl.CERT_REQUIRED
        assert options["ssl_check_hostname"] is True
        assert options.get("ssl_ca_certs") == (str(authority) if authority else None)


def test_an_address_without_tls_has_no_tls_options() -> None:
    settings = celery_settings(
        BrokerAddress.of("redis://localhost/0"), Settings(broker_ca=Path("/etc/lhcq/ca.crt"))
    )
    assert settings["broker_use_ssl"] is None
