"""A user's webhook over the API, the address that a job names, and the log of what was sent."""

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from tests.receiver import Receiver
from tests.server import NANO, QUICKLY, Server, wait_until
from transcription import webhooks
from transcription.models import ApiToken, Delivery, Job
from transcription.outbound.addresses import Allowed

URL = "http://127.0.0.1:9/hook"
WEBHOOK = "/api/v1/webhook/"


@pytest.fixture(autouse=True)
def _loopback_is_allowed(settings: Settings) -> None:
    settings.WEBHOOK_ALLOWED_HOSTS = (Allowed.read("127.0.0.1"),)


def put(api: Client, url: Any) -> Any:
    return api.put(WEBHOOK, json.dumps({"url": url}), content_type="application/json")


def delivery(owner: User, **values: Any) -> Delivery:
    return Delivery.objects.create(owner=owner, **{"url": URL, "type": "job.done", **values})


def test_everybody_has_a_secret_and_it_stays(api: Client, owner: User, stranger: User) -> None:
    found = api.get(WEBHOOK).json()
    assert found == {"url": None, "secret": webhooks.of(owner).secret}
    assert put(api, URL).json() == {**found, "url": URL}
    assert api.get(WEBHOOK).json() == {**found, "url": URL}
    assert api.delete(WEBHOOK).status_code == 204
    assert api.get(WEBHOOK).json() == found
    assert webhooks.of(stranger).secret != found["secret"]


def test_a_secret_is_32_bytes_and_can_be_renewed(api: Client) -> None:
    before = api.get(WEBHOOK).json()["secret"]
    after = api.post(f"{WEBHOOK}secret/").json()["secret"]
    assert before != after
    assert [len(secret) for secret in (before, after)] == [50, 50]
    assert api.get(WEBHOOK).json()["secret"] == after


def test_a_key_that_may_only_read_sees_no_secret(owner: User) -> None:
    key = ApiToken.make(owner)
    ApiToken.objects.update(scope=ApiToken.Scope.READ)
    reader = Client(headers={"Authorization": f"Token {key}"})
    assert reader.get(WEBHOOK).json() == {"url": None, "secret": None}
    assert reader.post(f"{WEBHOOK}secret/").status_code == 403


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://10.0.0.1/", "leads to 10.0.0.1, which is not on the public internet"),
        ("http://[::1]/", "not on the public internet"),
        ("http://me:secret@127.0.0.1/", "a user name or a password"),
        ("ftp://127.0.0.1/", "is a web address"),
        ("", "Give a web address"),
        (None, "Give a web address"),
        (["http://127.0.0.1/"], "Give a web address"),
    ],
)
def test_an_address_that_is_not_sent_to_is_refused_when_it_is_saved(api: Client, url: Any, said: str) -> None:
    answer = put(api, url)
    assert answer.status_code == 400
    assert said in answer.json()["url"][0]
    assert api.get(WEBHOOK).json()["url"] is None


def test_a_test_is_a_delivery(api: Client, owner: User) -> None:
    refused = api.post(f"{WEBHOOK}test/")
    assert (refused.status_code, refused.json()) == (
        409,
        {"detail": "There is no address to send a test to. Set one first."},
    )
    put(api, URL)
    answer = api.post(f"{WEBHOOK}test/")
    assert answer.status_code == 202
    assert answer.json() == api.get(f"/api/v1/deliveries/{answer.json()['id']}/").json()
    assert (answer.json()["type"], answer.json()["status"], answer.json()["url"]) == ("webhook.test", "waiting", URL)


def test_the_log_is_the_callers_own_and_comes_in_pages(api: Client, owner: User, stranger: User) -> None:
    own = [str(delivery(owner).pk) for _ in range(3)]
    delivery(stranger)
    page = api.get("/api/v1/deliveries/", {"page_size": 2}).json()
    rest = api.get(page["next"]).json()
    assert [found["id"] for found in page["results"] + rest["results"]] == own[::-1]
    assert rest["next"] is None


def test_a_delivery_tells_its_tries(api: Client, owner: User) -> None:
    moment = "2026-11-21T10:00:00.5Z"
    tries = [
        {"at": moment, "seconds": 0.2, "status_code": 500, "code": "status", "values": {"status": 500}},
        {"at": moment, "seconds": 0.1, "status_code": 204, "code": "", "values": {}},
    ]
    found = delivery(owner, tries=tries, status="delivered")
    told = api.get(f"/api/v1/deliveries/{found.pk}/").json()
    assert told["next_attempt_at"] is None
    assert [(tried["status_code"], tried["seconds"]) for tried in told["tries"]] == [(500, 0.2), (204, 0.1)]
    said = "The answer was 500. Any from 200 to 299 counts as delivered."
    assert [tried["error"] for tried in told["tries"]] == [{"code": "status", "message": said}, None]
    assert told["tries"][0]["at"].startswith("2026-11-21T10:00:00")


def test_a_delivery_is_replayed_by_its_owner_alone(api: Client, owner: User, stranger: User) -> None:
    own, others = delivery(owner, status="failed", attempts=5), delivery(stranger, status="failed")
    answer = api.post(f"/api/v1/deliveries/{own.pk}/replay/")
    assert (answer.status_code, answer.json()["status"], answer.json()["id"]) == (202, "waiting", str(own.pk))
    assert Delivery.objects.get(pk=own.pk).attempts == 0
    answer = api.post(f"/api/v1/deliveries/{others.pk}/replay/")
    assert (answer.status_code, answer.json()) == (404, {"detail": "There is no such delivery."})
    assert Delivery.objects.get(pk=others.pk).status == "failed"


@pytest.mark.parametrize(
    ("endpoint", "taken"), [("/api/v1/jobs/", 202), ("/transcribe", 200), ("/v1/audio/transcriptions", 200)]
)
def test_each_endpoint_takes_a_jobs_own_address(
    client: Client, owner: User, ends: dict[str, Any], endpoint: str, taken: int
) -> None:
    headers = {"Authorization": f"Bearer {ApiToken.make(owner)}"}
    form = {"file": SimpleUploadedFile("a.mp3", b"sound"), "model": "nano", "callback_url": URL}
    assert client.post(endpoint, form, headers=headers).status_code == taken
    assert Job.objects.get().callback_url == URL


@pytest.mark.parametrize("endpoint", ["/api/v1/jobs/", "/transcribe", "/v1/audio/transcriptions"])
def test_each_endpoint_refuses_a_private_one_by_name(api: Client, endpoint: str) -> None:
    form = {"file": SimpleUploadedFile("a.mp3", b"sound"), "model": "nano", "callback_url": "http://192.168.1.1/admin"}
    answer = api.post(endpoint, form)
    assert answer.status_code in (400, 422)
    assert "callback_url leads to 192.168.1.1, which is not on the public internet" in answer.content.decode()
    assert not Job.objects.exists()


# ---------------------------------------------------------------- a real server


SENTENCE = NANO / "nano" / "bears.wav"


def test_a_job_on_a_real_server_is_told_of_when_it_is_done(nano_server: Server) -> None:
    receiver = Receiver()
    receiver.answers = [500]
    with receiver.serving() as url, nano_server.client() as client:
        job = nano_server.transcribe(SENTENCE, callback_url=url, **QUICKLY)
        wait_until(lambda: len(receiver.got) == 2)
        secret = client.get(WEBHOOK).json()["secret"]
        first, second = receiver.got
        assert first.id == second.id
        log = wait_until(lambda: delivered(client.get("/api/v1/deliveries/").json()["results"], first.id))
        assert first.is_signed_with(secret)
        told = second.told["data"]
        assert (told["id"], told["status"], told["text"]) == (job["id"], "done", job["text"])
        assert client.get(told["links"]["transcript"]["txt"]).text.strip() == job["text"].strip()
        assert [tried["status_code"] for tried in log[0]["tries"]] == [500, 204]


def delivered(log: list[dict[str, Any]], message: str) -> list[dict[str, Any]]:
    return [found for found in log if found["id"] == message and found["status"] == "delivered"]


def test_a_receiver_that_hangs_holds_up_neither_jobs_nor_others(nano_server: Server) -> None:
    slow, quick = Receiver(), Receiver()
    slow.goes_on.clear()
    with slow.serving() as slow_url, quick.serving() as quick_url:
        for _ in range(3):
            nano_server.submit(SENTENCE, callback_url=slow_url, **QUICKLY)
        wait_until(lambda: slow.got)
        jobs = [nano_server.transcribe(SENTENCE, callback_url=quick_url, **QUICKLY)["id"] for _ in range(2)]
        wait_until(lambda: len(quick.got) == 2, 4)
        assert {message.told["data"]["id"] for message in quick.got} == set(jobs)
        assert len(slow.got) == 1  # one at a time to an address


def test_a_test_goes_out_at_once(nano_server: Server) -> None:
    receiver = Receiver()
    with receiver.serving() as url, nano_server.client() as client:
        assert client.put(WEBHOOK, json={"url": url}).status_code == 200
        assert client.post(f"{WEBHOOK}test/").status_code == 202
        wait_until(lambda: receiver.got, 5)
        assert client.delete(WEBHOOK).status_code == 204
    assert receiver.got[0].told["type"] == "webhook.test"
