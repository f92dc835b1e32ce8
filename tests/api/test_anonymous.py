"""A program that knows no keys asks at the endpoints that LEGACY_ANONYMOUS opens."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from config.gate import Gate
from tests.api.rows import a_done_job
from tests.api.test_gate import FILE, FORM, Behind, ask
from transcription.models import ApiToken, Job
from transcription.proxies import Proxies

pytestmark = pytest.mark.django_db

FAR = "203.0.113.7"


@pytest.fixture(autouse=True)
def _open(settings: Settings, tmp_path: Path) -> None:
    settings.LEGACY_ANONYMOUS = True
    settings.KEYS_FILE = tmp_path / "keys.txt"


def the_anonymous() -> User:
    return User.objects.get(username="anonymous")


def post(client: Client, address: str = "/transcribe", **named: Any) -> Any:
    return client.post(address, {"file": SimpleUploadedFile("talk.wav", b"RIFF")}, **named)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "192.168.1.20", "10.0.0.3", "172.20.0.1", "::1", "fd00::7", "::ffff:10.0.0.3"]
)
def test_a_neighbour_needs_no_key(ends: dict[str, Any], address: str) -> None:
    answer = post(Client(REMOTE_ADDR=address))

    assert answer.status_code == 200
    assert answer.json()["text"] == "Good day."
    assert Job.objects.get().owner == the_anonymous()


@pytest.mark.parametrize("address", [FAR, "172.32.0.1", "2001:db8::1", "::ffff:203.0.113.7", "100.64.0.1", "", "unix"])
def test_whoever_comes_from_elsewhere_does(address: str) -> None:
    assert Client(REMOTE_ADDR=address).get("/models").status_code == 401
    assert not User.objects.filter(username="anonymous").exists()


def test_by_default_nobody_comes_in_without_a_key(settings: Settings) -> None:
    settings.LEGACY_ANONYMOUS = False
    assert Client().get("/models").status_code == 401


@pytest.mark.parametrize(
    "address",
    ["/models", "/models/", "/job/{}", "/api/status/{}", "/api/queue", "/api/gpus/", "/api/model_status", "/api/logs"],
)
def test_the_compat_endpoints_are_open(address: str) -> None:
    client = Client()
    client.get("/models")
    job = a_done_job(the_anonymous())

    assert client.get(address.format(job.pk)).status_code == 200


@pytest.mark.parametrize("address", ["/asr", "/detect-language", "/transcribe", "/api/transcribe"])
def test_the_posting_endpoints_are_open(address: str) -> None:
    assert Client().post(address).status_code in (400, 422)  # the file is missing, not the key


@pytest.mark.parametrize("address", ["/api/v1/jobs/", "/v1/models", "/api/v1/tokens/", "/api/v1/models/"])
def test_the_other_endpoints_are_not(address: str) -> None:
    assert Client().get(address).status_code == 401


def test_the_file_of_keys_is_read_again_for_nobody_without_one() -> None:
    assert Client().post("/keys/reload").status_code == 401


def test_the_anonymous_see_their_own_alone(owner: User) -> None:
    theirs = a_done_job(owner)
    assert Client().get(f"/job/{theirs.pk}").status_code == 404

    ours = a_done_job(the_anonymous())
    assert Client().get(f"/job/{ours.pk}").status_code == 200


def test_nobody_signs_in_as_the_anonymous(rf: Any) -> None:
    Client().get("/models")
    for password in ("", "anonymous", "!"):
        assert authenticate(rf.post("/login/"), username="anonymous", password=password) is None


def test_a_person_of_that_name_keeps_their_recordings_for_themselves() -> None:
    User.objects.create_user("anonymous", password="a long password")
    assert Client().get("/models").status_code == 401


def test_an_administrator_may_close_the_endpoints_by_switching_the_user_off() -> None:
    Client().get("/models")
    User.objects.update(is_active=False)
    assert Client().get("/models").status_code == 401


def test_a_wrong_key_is_refused_all_the_same() -> None:
    assert Client(headers={"X-API-Key": "st_wrong"}).get("/models").status_code == 403
    assert Client().post("/asr?token=st_wrong").status_code == 403


def test_a_right_key_is_its_users(owner: User) -> None:
    key = ApiToken.make(owner)
    job = a_done_job(owner)
    assert Client(headers={"X-API-Key": key}).get(f"/job/{job.pk}").status_code == 200


# ------------------------------------------------------------------ through proxies


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_what_came_through_an_unknown_proxy_is_never_anonymous(header: str) -> None:
    value = "for=127.0.0.1" if header == "Forwarded" else "127.0.0.1"
    assert Client(headers={header: value}).get("/models").status_code == 401


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("192.168.1.20", 200),
        (f"192.168.1.20, {FAR}", 401),
        (f"{FAR}, 192.168.1.20", 401),  # there is another proxy before ours, or the client pretends that there is
        ("192.168.1.20:4711", 200),
        ("unknown", 401),
        (FAR, 401),
        (None, 401),
        ("", 401),
    ],
)
def test_a_known_proxy_tells_whose_address_counts(settings: Settings, told: str | None, status: int) -> None:
    settings.TRUSTED_PROXIES = Proxies.read(["127.0.0.1"])
    headers = {} if told is None else {"X-Forwarded-For": told}
    assert Client(headers=headers).get("/models").status_code == status


def test_of_two_proxies_the_outer_one_was_told_it(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = Proxies.read(["127.0.0.1", "10.0.0.0/30"])
    assert Client(headers={"X-Forwarded-For": f"{FAR}, 10.0.0.2"}).get("/models").status_code == 401
    assert Client(headers={"X-Forwarded-For": "192.168.1.20, 10.0.0.2"}).get("/models").status_code == 200
    assert Client(headers={"X-Forwarded-For": "10.0.0.2"}).get("/models").status_code == 401


def test_whoever_goes_past_the_proxy_cannot_say_who_they_are(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = Proxies.read(["127.0.0.1"])
    client = Client(REMOTE_ADDR=FAR, headers={"X-Forwarded-For": "192.168.1.20"})
    assert client.get("/models").status_code == 401


# ------------------------------------------------------------------ from a page


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://testserver"},  # of a name that was made to point here
    ],
)
def test_a_page_in_a_neighbours_browser_needs_a_key(headers: dict[str, str]) -> None:
    assert post(Client(headers=headers)).status_code == 401
    assert not Job.objects.exists()


def test_an_address_that_a_person_opens_is_answered() -> None:
    assert Client(headers={"Sec-Fetch-Site": "none"}).get("/models").status_code == 200


# ------------------------------------------------------------------ at the gate


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("client", "status"), [(("10.0.0.3", 5), 200), ((FAR, 5), 401), (None, 401)])
def test_the_gate_lets_a_neighbours_upload_through(client: tuple[str, int] | None, status: int) -> None:
    headers = {"content_type": FORM["content-type"]}
    assert ask(Gate(Behind()), "/transcribe", [FILE], client=client, **headers).status == status


@pytest.mark.django_db(transaction=True)
def test_the_gate_stops_the_upload_of_a_page_elsewhere() -> None:
    answer = ask(Gate(Behind()), "/transcribe", [FILE], client=("127.0.0.1", 5), origin="https://evil.example")
    assert answer.status == 401


# ------------------------------------------------------------------ a key in the address


def test_a_key_may_stand_in_the_address_of_the_endpoints_whose_clients_send_no_header(
    settings: Settings, owner: User, ends: dict[str, Any]
) -> None:
    settings.LEGACY_ANONYMOUS = False
    key = ApiToken.make(owner)
    answer = Client().post(f"/asr?output=txt&token={key}", {"audio_file": SimpleUploadedFile("a.wav", b"RIFF")})

    assert answer.status_code == 200
    assert Job.objects.get().owner == owner


@pytest.mark.parametrize("address", ["/models", "/transcribe", "/v1/models", "/api/v1/jobs/"])
def test_and_in_no_other(settings: Settings, owner: User, address: str) -> None:
    settings.LEGACY_ANONYMOUS = False
    assert Client().get(f"{address}?token={ApiToken.make(owner)}").status_code in (401, 405)


def test_a_reading_key_in_the_address_starts_nothing(settings: Settings, owner: User) -> None:
    settings.LEGACY_ANONYMOUS = False
    assert Client().post(f"/asr?token={ApiToken.make(owner, scope='read')}").status_code == 403
