"""What `manage.py serve` does before and beside serving."""

from io import StringIO
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User

from tests.server import NANO, Server
from transcription import doctor
from transcription.management.commands import serve
from transcription.models import ApiToken


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://localhost:8801"),
        ("0.0.0.0", "http://localhost:8801"),
        ("10.0.0.7", "http://10.0.0.7:8801"),
        ("::1", "http://[::1]:8801"),
    ],
)
def test_the_address_it_tells_can_be_opened(settings: LazySettings, host: str, address: str) -> None:
    settings.HOST, settings.PORT = host, 8801
    assert doctor.server_address() == address


def test_a_proxy_for_the_world_outside_is_not_asked_for_ourselves(
    nano_server: Server, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    settings.HOST, settings.PORT = "127.0.0.1", nano_server.port
    assert serve.is_server_ready()


def test_a_machine_without_a_file_of_keys_leaves_those_of_another_machine_alone(
    db: None, settings: LazySettings, tmp_path: Path
) -> None:
    chief = User.objects.create_superuser("chief")
    ApiToken.objects.create(user=chief, name="keys.txt", digest="0" * 64, is_from_file=True)
    settings.KEYS_FILE = tmp_path / "keys.txt"
    command = serve.Command(stdout=StringIO())
    command.read_keys()
    assert ApiToken.objects.get().digest == "0" * 64
    assert not settings.KEYS_FILE.exists()


@pytest.mark.parametrize("name", ["RECORDINGS_DIR", "UPLOADS_DIR"])
def test_a_share_that_is_not_mounted_stops_the_start(tmp_path: Path, name: str) -> None:
    share = tmp_path / "share" / "folder"
    ran = Server(tmp_path / "data", NANO, **{name: str(share)}).manage("serve")
    assert ran.returncode == 1
    assert f"{name} is {share}: No such file or directory. Mount the disk, or make the folder" in ran.stderr
    assert not share.parent.exists()
