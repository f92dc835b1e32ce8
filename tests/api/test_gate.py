"""A client knocks at the gate: most of these never get to Django, and leave nothing on the disk."""

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import translation
from pytest_django import Settings

from config import gate
from config.asgi import application
from config.gate import Gate, Message, Receive, Scope, Send
from tests.api.rows import a_job, a_recording
from transcription.api import authentication
from transcription.models import ApiToken, Job
from transcription.workers import process

pytestmark = pytest.mark.django_db(transaction=True)

FORM = {"content-type": "multipart/form-data; boundary=x"}
FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(3000) + b"\r\n--x--\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told


@dataclass
class Behind:
    """Stands where Django does, and takes the whole body."""

    taken: list[bytes] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.taken.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def knock(
    endpoint: gate.Application,
    path: str,
    body: list[bytes] | None = None,
    *,
    method: str = "POST",
    stalls: bool = False,
    server: str = "127.0.0.1",
    client: tuple[str, int] | None = None,
    **headers: str,
) -> Answer:
    """Send a request as a server would, emptying `body`; one that stalls never sends the rest of it."""
    parts = [b""] if body is None else body
    sent: list[Message] = []

    async def receive() -> Message:
        if parts:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": stalls or bool(parts)}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    named = {"host": "testserver", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "method": method, "path": path, "query_string": b"", "server": (server, 8801), "scheme": "http",
        "client": client, "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }  # fmt: skip
    async with asyncio.timeout(20):
        await endpoint(scope, receive, send)
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))


def ask(*arguments: Any, **named: Any) -> Answer:
    return asyncio.run(knock(*arguments, **named))


@pytest.fixture
def key(owner: User) -> str:
    return ApiToken.make(owner)


# ------------------------------------------------------------------ by which name


@pytest.mark.parametrize("host", ["testserver", "localhost:8801", "127.0.0.1", "[::1]:8801", "192.168.1.5:8801"])
def test_a_name_of_this_machine_is_served(host: str) -> None:
    assert ask(Gate(Behind()), "/", method="GET", host=host, server="192.168.1.5").status == 200


@pytest.mark.parametrize("host", ["evil.example", "192.168.1.6", "", "a b", "testserver.evil.example"])
def test_another_name_is_not(host: str) -> None:
    answer = ask(Gate(Behind()), "/api/v1/jobs/", method="GET", host=host, server="192.168.1.5")

    assert answer.status == 400
    assert "ALLOWED_HOSTS" in answer.json["detail"]


def test_the_address_of_a_version_6_socket_is_known_in_both_forms() -> None:
    assert ask(Gate(Behind()), "/", method="GET", host="10.0.0.1", server="::ffff:10.0.0.1").status == 200
    assert ask(Gate(Behind()), "/", method="GET", host="[fd00::1]:8801", server="fd00::1").status == 200


# ------------------------------------------------------------------ how much


def test_only_upload_endpoints_take_a_large_body() -> None:
    answer = ask(Gate(Behind()), "/login/", content_length=str(2 * 1024**2))

    assert answer.status == 413
    assert "1\xa0MB" in answer.body.decode()


def test_a_file_over_the_limit_is_refused_by_its_length(key: str, settings: Settings) -> None:
    settings.MAX_UPLOAD_BYTES = 100 * 1024

    answer = ask(Gate(Behind()), "/transcribe", x_api_key=key, content_length=str(2 * 1024**2))

    assert answer.status == 413
    assert "over 100\xa0KB" in answer.json["error"]


def test_a_body_that_does_not_say_its_length_is_counted(key: str, settings: Settings) -> None:
    settings.MAX_UPLOAD_BYTES = 100_000
    behind = Behind()

    answer = ask(Gate(behind), "/api/v1/jobs/", [bytes(60_000)] * 10, x_api_key=key)

    assert answer.status == 413
    assert answer.json["detail"]
    assert sum(map(len, behind.taken)) <= 100_000 + gate.FORM_AROUND_A_FILE


# ------------------------------------------------------------------ by whom


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/api/v1/jobs/", {}, 401),
        ("/api/v1/jobs/", {"x_api_key": "wrong"}, 401),
        ("/transcribe", {}, 401),
        ("/transcribe/", {"authorization": "Bearer wrong"}, 403),
        ("/", {}, 303),
        ("/", {"cookie": "sessionid=wrong"}, 303),
    ],
)
def test_nothing_is_written_for_a_stranger(path: str, headers: dict[str, str], status: int, settings: Settings) -> None:
    answer = ask(application, path, [FILE], content_length=str(len(FILE)), content_type=FORM["content-type"], **headers)

    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert not settings.UPLOADS_DIR.exists()
    if status == 303:
        assert answer.headers["location"] == "/login/?next=/"
    else:
        assert answer.json.keys() == ({"detail"} if path.startswith("/api") else {"error"})


def test_a_session_may_upload_on_the_page_and_the_api_but_not_at_the_documents_endpoint(owner: User) -> None:
    client = Client()
    client.force_login(owner)
    cookie = f"sessionid={client.cookies['sessionid'].value}"

    assert ask(Gate(Behind()), "/", cookie=cookie).status == 200
    assert ask(Gate(Behind()), "/api/v1/jobs/", cookie=cookie).status == 200
    assert ask(Gate(Behind()), "/transcribe", cookie=cookie).status == 401


def test_the_session_of_a_user_who_was_switched_off_opens_nothing(owner: User) -> None:
    client = Client()
    client.force_login(owner)
    User.objects.update(is_active=False)

    assert ask(Gate(Behind()), "/", cookie=f"sessionid={client.cookies['sessionid'].value}").status == 303


# ------------------------------------------------------------------ where to, how many, how fast


def test_without_space_for_it_an_upload_is_refused(key: str, settings: Settings) -> None:
    settings.FREE_SPACE_RESERVE_BYTES = 2**60

    answer = ask(Gate(Behind()), "/api/v1/jobs/", x_api_key=key, content_length="10")

    assert answer.status == 507
    assert "space" in answer.json["detail"]


def test_a_disk_that_fills_under_way_is_said(key: str) -> None:
    async def full(scope: Scope, receive: Receive, send: Send) -> None:
        raise OSError(28, "No space left on device")

    answer = ask(Gate(full), "/transcribe", x_api_key=key)

    assert answer.status == 507
    assert "space" in answer.json["error"]


def test_one_upload_too_many_is_asked_to_come_again(key: str, settings: Settings) -> None:
    settings.MAX_UPLOADS_AT_ONCE = 1
    endpoint = Gate(Behind())

    async def both() -> tuple[Answer, Answer]:
        first = asyncio.create_task(knock(endpoint, "/transcribe", [b"x"], stalls=True, x_api_key=key))
        while not endpoint.uploads_under_way:
            await asyncio.sleep(0.01)
        second = await knock(endpoint, "/transcribe", x_api_key=key)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        return second, await knock(endpoint, "/transcribe", x_api_key=key)

    refused, accepted = asyncio.run(both())

    assert refused.status == 503
    assert refused.headers["retry-after"]
    assert accepted.status == 200
    assert endpoint.uploads_under_way == 0


def test_a_request_that_only_waits_for_its_answer_takes_no_place(key: str, settings: Settings) -> None:
    places: list[int] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        places.append(endpoint.uploads_under_way)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    endpoint = Gate(behind)
    ask(endpoint, "/transcribe", x_api_key=key)

    assert places == [0]


def test_a_body_that_stops_coming_is_ended(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "READ_DEADLINE", 0.05)
    monkeypatch.setattr(gate, "DRAINING_SECONDS", 0.05)

    answer = ask(Gate(Behind()), "/transcribe", [b"x"], stalls=True, x_api_key=key)

    assert answer.status == 408
    assert answer.json["error"]


def test_an_early_answer_takes_a_bounded_rest_of_the_body() -> None:
    sending = [bytes(1024**2)] * 100

    asyncio.run(knock(Gate(Behind()), "/transcribe", sending))

    assert 100 - len(sending) == gate.DRAINED_AT_MOST // 1024**2


def test_who_asked_before_sending_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "DRAINING_SECONDS", 3600)

    assert ask(Gate(Behind()), "/transcribe", [], stalls=True, expect="100-continue").status == 401


@pytest.mark.parametrize(
    ("headers", "language"),
    [({}, "en"), ({"accept_language": "ru,en;q=0.5"}, "ru"), ({"cookie": "django_language=ru"}, "ru")],
)
def test_the_sentence_is_in_the_readers_language(
    headers: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "_", lambda sentence: translation.get_language())

    assert ask(Gate(Behind()), "/transcribe", **headers).json["error"] == language


def test_an_address_that_is_no_text_is_a_bad_request() -> None:
    async def knock_badly() -> list[Message]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"\xff", "headers": []}
        await Gate(Behind())(scope, receive, send)
        return sent

    assert asyncio.run(knock_badly())[0]["status"] == 400


# ------------------------------------------------------------------ through the gate and Django


def test_an_upload_in_chunks_gets_through(key: str, settings: Settings) -> None:
    chunks = [FILE[:1000], FILE[1000:]]

    answer = ask(application, "/api/v1/jobs/", chunks, x_api_key=key, content_type=FORM["content-type"])

    assert answer.status == 202
    assert Job.objects.get().recording.bytes == 3000
    assert list(settings.UPLOADS_DIR.iterdir()) == []


def test_a_recording_is_streamed_in_blocks(key: str, owner: User) -> None:
    content = bytes(range(256)) * 4000
    job = a_job(owner, recording=a_recording(owner, content))

    answer = ask(application, f"/api/v1/jobs/{job.pk}/audio/", method="GET", x_api_key=key, range="bytes=5-600000")

    assert answer.status == 206
    assert answer.body == content[5:600001]


def test_a_client_that_hangs_up_leaves_its_job_running(key: str) -> None:
    async def hang_up() -> None:
        waiting = asyncio.create_task(
            knock(application, "/transcribe", [FILE], x_api_key=key, content_type=FORM["content-type"])
        )
        while not await Job.objects.aexists():
            await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(hang_up())

    assert Job.objects.get().status == Job.Status.QUEUED


# ------------------------------------------------------------------ the server's start and stop


def test_between_start_and_stop_the_queue_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[threading.Event] = []
    monkeypatch.setattr(process, "keep_sweeping", swept.append)
    messages: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    asyncio.run(Gate(Behind())({"type": "lifespan"}, receive, send))

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert swept[0].is_set()
