"""Keys that stand in a file, one a line."""

import re
import stat
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from tests.server import Server
from transcription import doctor, keys
from transcription.models import ApiToken

pytestmark = pytest.mark.django_db


@pytest.fixture
def file(settings: Settings, tmp_path: Path) -> Path:
    settings.KEYS_FILE = tmp_path / "keys.txt"
    return tmp_path / "keys.txt"


@pytest.fixture
def chief() -> User:
    return User.objects.create_superuser("chief")


def asking(key: str) -> Client:
    return Client(headers={"X-API-Key": key})


def reload(key: str, address: str = "/keys/reload") -> Any:
    return asking(key).post(address)


def test_the_file_is_made_with_one_key_that_others_cannot_read(file: Path) -> None:
    assert keys.make_file()

    assert re.fullmatch(r"[0-9a-f]{64}\n", file.read_text())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not keys.make_file()


def test_its_keys_are_the_first_administrators_and_only_their_hashes_are_stored(file: Path, chief: User) -> None:
    User.objects.create_superuser("another")
    keys.make_file()

    assert keys.reload() == 1

    [key] = keys.in_file()
    token = ApiToken.objects.get()
    assert (token.user, token.scope, token.is_from_file) == (chief, "admin", True)
    assert key not in str(ApiToken.objects.values().get())
    assert asking(key).get("/api/v1/jobs/").status_code == 200


def test_every_line_that_is_not_empty_is_a_key(file: Path, chief: User) -> None:
    file.write_text("\ufeffkey1\r\n\n   key 2  \n# key3\nkey1\n")
    assert keys.reload() == 3
    for key in ("key1", "key 2", "# key3"):
        assert asking(key).get("/models").status_code == 200


def test_a_short_key_shows_nothing_of_itself(file: Path, chief: User) -> None:
    file.write_text("key1\n")
    keys.reload()
    assert "key1" not in str(ApiToken.objects.values().get())
    assert str(ApiToken.objects.get()) == "keys.txt"


@pytest.mark.parametrize("address", ["/keys/reload", "/keys/reload/"])
def test_the_documents_way_of_changing_keys(file: Path, chief: User, address: str) -> None:
    file.write_text("old\n")
    keys.reload()
    file.write_text("new\nnewer\n")
    assert asking("new").get("/models").status_code == 403

    answer = reload("old", address)

    assert (answer.status_code, answer.json()) == (200, {"reloaded": 2})
    assert asking("new").get("/models").status_code == 200
    assert asking("old").get("/models").status_code == 403


def test_a_key_that_only_stands_in_the_file_yet_may_have_it_read(file: Path, chief: User) -> None:
    file.write_text("new\n")
    assert reload("new").json() == {"reloaded": 1}


def test_who_else_may_have_it_read(file: Path, chief: User) -> None:
    clerk = User.objects.create_user("clerk")
    keys.make_file()

    assert reload(ApiToken.make(chief)).status_code == 200
    assert reload(ApiToken.make(chief, scope="write")).status_code == 403
    assert reload(ApiToken.make(clerk)).status_code == 403
    assert reload("st_wrong").status_code == 403
    nobody = Client().post("/keys/reload")
    assert nobody.status_code == 401
    assert nobody.json()["error"]
    assert asking(ApiToken.make(chief)).get("/keys/reload").status_code == 405


def test_a_session_does_not_have_it_read(file: Path, chief: User) -> None:
    client = Client()
    client.force_login(chief)
    assert client.post("/keys/reload").status_code == 401


def test_keys_made_elsewhere_stay_and_need_no_reading(file: Path, chief: User) -> None:
    key = ApiToken.make(chief, "laptop")
    file.write_text(f"one\n{key}\n")
    keys.reload()
    file.write_text("")
    assert keys.reload() == 0

    token = ApiToken.objects.get()
    assert token.name == "laptop"
    assert not token.is_from_file
    assert asking(key).get("/models").status_code == 200


def test_what_is_known_of_a_key_stays_when_the_file_is_read_again(file: Path, chief: User) -> None:
    file.write_text("one\n")
    keys.reload()
    ApiToken.objects.update(last_used_at=timezone.now())
    keys.reload()
    assert ApiToken.objects.get().last_used_at


def test_the_keys_go_to_the_next_administrator_with_the_first_one_gone(file: Path, chief: User) -> None:
    file.write_text("one\n")
    keys.reload()
    second = User.objects.create_superuser("second")
    User.objects.filter(pk=chief.pk).update(is_active=False)
    assert asking("one").get("/models").status_code == 403

    keys.reload()

    assert ApiToken.objects.get().user == second
    assert asking("one").get("/models").status_code == 200


def test_without_an_administrator_no_key_of_the_file_works(file: Path) -> None:
    file.write_text("one\n")
    assert keys.reload() == 0
    assert not ApiToken.objects.exists()


def test_a_file_that_cannot_be_read_changes_nothing(file: Path, chief: User) -> None:
    file.write_text("one\n")
    keys.reload()
    file.unlink()
    file.mkdir()

    answer = reload("one")

    assert answer.status_code == 500
    assert "keys.txt cannot be read" in answer.json()["error"]
    assert asking("one").get("/models").status_code == 200


def test_a_machine_without_the_file_removes_no_key_of_another_machines(file: Path, chief: User) -> None:
    file.write_text("one\n")
    keys.reload()
    file.unlink()

    answer = reload("one")

    assert answer.status_code == 409
    assert "There is no keys.txt on this machine" in answer.json()["error"]
    assert asking("one").get("/models").status_code == 200


def test_a_machine_without_a_file_has_no_keys_to_read(file: Path, chief: User) -> None:
    assert reload(ApiToken.make(chief)).json() == {"reloaded": 0}


# ------------------------------------------------------------------ a real start


def test_a_first_start_makes_the_file_and_its_key_opens_the_server(nano_server: Server) -> None:
    file = nano_server.data / "keys.txt"
    [key] = file.read_text().split()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert key not in nano_server.log.read_text()

    with nano_server.client() as client:
        client.headers = {"X-API-Key": key}
        assert client.get("/api/v1/jobs/").status_code == 200
        assert client.post("/keys/reload").json() == {"reloaded": 1}
        client.headers = {}
        assert client.post(f"/asr?token={key}").status_code in (400, 422)
        assert client.get(f"/asr?token={key}").status_code == 405
        assert client.post("/asr?token=a-wrong-one-in-the-address").status_code == 403
    logs = "".join(log.read_text() for log in (nano_server.data / "logs").glob("*.log")) + nano_server.log.read_text()
    assert key not in logs
    assert "a-wrong-one-in-the-address" not in logs


# ------------------------------------------------------------------ the command and the doctor


def test_the_command_makes_a_key_for_less_and_not_for_ever(chief: User) -> None:
    said = StringIO()
    call_command("create_token", "chief", "--name", "bot", "--scope", "read", "--expires-in-days", "30", stdout=said)

    token = ApiToken.objects.get(digest=ApiToken.digest_of(said.getvalue().strip()))
    assert (token.name, token.scope) == ("bot", "read")
    assert token.expires_at is not None
    assert 29 <= (token.expires_at - timezone.now()).days <= 30


@pytest.mark.parametrize("days", ["0", "-1", "many", "36501"])
def test_the_command_takes_no_other_number_of_days(chief: User, days: str) -> None:
    with pytest.raises(CommandError, match="days"):
        call_command("create_token", "chief", f"--expires-in-days={days}")


def found() -> list[tuple[str, str]]:
    return [(finding.state.value, finding.sentence) for _, finding in doctor.examine(("keys",))]


def test_the_doctor_looks_at_the_file(file: Path, chief: User) -> None:
    assert [state for state, _ in found()] == ["note"]

    keys.make_file()
    keys.reload()
    assert found() == [("well", f"Keys in {file}: 1")]

    file.write_text("key1\n")
    file.chmod(0o644)
    said = dict((text.partition(":")[0], state) for state, text in found())
    assert said == {
        f"Others on this machine may read the keys in {file}": "wrong",
        f"1 of the keys in {file} could be guessed": "wrong",
        f"{file} was changed since it was read": "note",
        f"Keys in {file}": "well",
    }
