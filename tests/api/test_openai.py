"""A program that was made for OpenAI's service is given our address; the public client is the test."""

import asyncio
import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, OpenAI
from pytest_django import Settings

from config.asgi import application
from config.gate import Gate
from tests.api.rows import WORDS, a_job, a_segment
from tests.api.test_gate import Behind, ask
from tests.server import NANO, QUICKLY, Server
from transcription import errors, jobs
from transcription.api.compat import openai as openai_endpoints
from transcription.api.errors import refuse
from transcription.models import BY_TIME, ApiToken, Job, Recording, Section, Segment
from transcription.text import edits

BEARS = NANO / "nano" / "bears.wav"
SAID = "Twelve bears live in the forest."
ENDPOINT = "/v1/audio/transcriptions"
SOUND = b"RIFF" + bytes(1000)


def sound(content: bytes = SOUND) -> SimpleUploadedFile:
    return SimpleUploadedFile("Моя лекция.mp3", content)


def wrong(answer: Any) -> dict[str, Any]:
    """What an error answer tells; it has the one shape."""
    told: dict[str, Any] = answer.json()
    assert set(told) == {"error"}
    assert {"message", "type", "param", "code"} <= set(told["error"])
    assert told["error"]["message"]
    return cast(dict[str, Any], told["error"])


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How jobs end as soon as they are queued: the columns that a worker would write."""
    columns: dict[str, Any] = {
        "status": "done", "text": "Good day. Bye.", "language": "en", "finished_at": timezone.now(),
    }  # fmt: skip
    submit = jobs.submit

    def submit_and_end(*arguments: Any, **named: Any) -> Job:
        job = submit(*arguments, **named)
        if job.status == "queued":
            a_segment(job, words=WORDS)
            a_segment(job, 1, text=" Bye.")
            Section.objects.update(status="done")
            Job.objects.filter(pk=job.pk).update(**columns)
            Recording.objects.update(duration=2.5)
        return job

    monkeypatch.setattr(jobs, "submit", submit_and_end)
    return columns


# ------------------------------------------------------------------ the public client and a real server


@pytest.fixture
def client(nano_server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{nano_server.url}/v1", api_key=nano_server.token, max_retries=0) as client:
        yield client


def a_client(server: Server) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0)


def test_the_text_is_the_answer(client: OpenAI, nano_server: Server) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(model="whisper-1", file=BEARS)

    told = answer.parse()
    assert told.text == SAID
    assert told.usage is not None
    assert told.usage.type == "duration"
    assert told.usage.seconds == pytest.approx(1.86, abs=0.05)
    assert nano_server.job(answer.headers["x-job-id"])["status"] == "done"
    assert answer.headers["x-request-id"]


def test_the_asynchronous_client_gets_the_same(nano_server: Server) -> None:
    async def transcribe() -> tuple[str, str]:
        async with a_client(nano_server) as client:
            told = await client.audio.transcriptions.create(model="nano", file=BEARS, language="en")
            stream = await client.audio.transcriptions.create(model="nano", file=BEARS, language="en", stream=True)
            events = [event async for event in stream]
        return told.text, cast(Any, events[-1]).text

    assert asyncio.run(transcribe()) == (SAID, SAID)


def test_text_and_subtitles_are_plain_bodies(client: OpenAI) -> None:
    text, srt, vtt = (
        client.audio.transcriptions.with_raw_response.create(model="nano", file=BEARS, response_format=cast(Any, kind))
        for kind in ("text", "srt", "vtt")
    )

    assert text.parse() == f"{SAID}\n"
    assert re.fullmatch(rf"1\n00:00:00,000 --> 00:00:01,\d{{3}}\n{SAID}\n\n", str(srt.parse()))
    assert str(vtt.parse()).startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert {answer.headers["content-type"] for answer in (text, srt, vtt)} == {"text/plain; charset=utf-8"}


def test_verbose_json_has_all_that_typed_clients_read(client: OpenAI) -> None:
    told = client.audio.transcriptions.create(
        model="nano", file=BEARS, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )

    assert (told.language, told.text) == ("english", SAID)
    assert told.duration == pytest.approx(1.86, abs=0.05)
    assert told.segments is not None
    assert told.words is not None
    (segment,) = told.segments
    assert segment.text == f" {SAID}"  # with the space that Whisper puts before it
    assert (segment.id, segment.seek, segment.start) == (0, 0, 0)
    assert segment.tokens
    assert segment.avg_logprob < 0
    assert 0 <= segment.no_speech_prob <= 1
    assert segment.compression_ratio > 0
    assert segment.temperature == 0
    assert " ".join(word.word for word in told.words) == SAID
    assert all(word.start <= word.end for word in told.words)
    assert "words" not in segment.to_dict()


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's maker says so of this address
def test_speech_is_translated(client: OpenAI) -> None:
    told = client.audio.translations.create(
        model="nano", file=NANO / "nano" / "mice.wav", response_format="verbose_json"
    )

    assert told.language == "english"
    assert cast(Any, told).task == "translate"
    assert told.text
    assert "words" not in told.to_dict()


def test_the_text_is_told_as_it_comes(client: OpenAI, nano_server: Server, long_recording: Path) -> None:
    *deltas, done = client.audio.transcriptions.create(
        model="nano", file=long_recording, stream=True, extra_body=QUICKLY
    )

    assert {delta.type for delta in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 5
    assert done.type == "transcript.text.done"
    assert done.text == "".join(cast(Any, delta).delta for delta in deltas)
    newest = cast(str, nano_server.rows("SELECT id FROM transcription_job ORDER BY created_at DESC")[0][0])
    assert done.text == nano_server.job(str(uuid.UUID(newest)))["text"]


def test_what_is_asked_reaches_the_job(client: OpenAI, nano_server: Server) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(
        model="nano",
        file=BEARS,
        language="English",
        prompt="Animals of the wood.",
        temperature=0.2,
        include=["logprobs"],
        chunking_strategy="auto",
        extra_body={"keywords": ["bears", "wolves"], "beam_size": 2, "user": "nobody knows this field"},
    )

    options = nano_server.job(answer.headers["x-job-id"])["options"]
    assert (options["language"], options["initial_prompt"]) == ("en", "Animals of the wood.")
    assert (options["temperature"], options["beam_size"], options["hotwords"]) == ([0.2], 2, "bears, wolves")


def test_one_language_of_a_list_is_the_language(client: OpenAI, nano_server: Server) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(
        model="nano", file=BEARS, extra_body={"languages": ["en"]}
    )
    assert nano_server.job(answer.headers["x-job-id"])["options"]["language"] == "en"


@pytest.mark.parametrize(
    ("languages", "expected"), [(["ru", "en"], "en"), (["ru", "uk"], None), (["en", "en-GB"], "en")]
)
def test_of_several_languages_the_one_that_is_spoken_is_found(
    client: OpenAI, nano_server: Server, languages: list[str], expected: str | None
) -> None:
    answer = client.audio.transcriptions.with_raw_response.create(
        model="nano", file=BEARS, extra_body={"languages": languages}
    )

    job = nano_server.job(answer.headers["x-job-id"])
    assert job["language"] in ([expected] if expected else languages)
    if expected and len(set(languages)) == 2 and "ru" in languages:
        assert answer.parse().text == "Twelve bears live in the forest."
        assert (job["options"]["language"], job["options"]["languages"]) == (None, languages)


def test_silence_is_an_empty_text(client: OpenAI, tmp_path: Path) -> None:
    silence = tmp_path / "silence.wav"
    program = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "anullsrc=r=16000:cl=mono", "-t", "2", str(silence)]
    subprocess.run(program, check=True)

    told = client.audio.transcriptions.create(model="nano", file=silence, response_format="verbose_json")
    *deltas, done = client.audio.transcriptions.create(model="nano", file=silence, stream=True)

    assert (told.text, told.segments) == ("", [])
    assert (deltas, cast(Any, done).text) == ([], "")


def test_no_recording_is_the_clients_fault_and_a_stream_says_so_too(client: OpenAI) -> None:
    file = ("notes.mp3", b"no sound at all")

    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(model="nano", file=file)
    with pytest.raises(openai.APIError, match="neither audio nor video"):
        list(client.audio.transcriptions.create(model="nano", file=file, stream=True))

    assert refused.value.param == "file"
    assert refused.value.code == "not_media"
    assert "neither audio nor video" in str(refused.value)


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.audio.transcriptions.create(model="gpt-9-hearing", file=BEARS)

    assert refused.value.code == "model_not_found"
    assert refused.value.param == "model"
    assert "nano" in str(refused.value)


def test_a_wrong_key_is_an_authentication_error(nano_server: Server) -> None:
    with OpenAI(base_url=f"{nano_server.url}/v1", api_key="sk-wrong", max_retries=0) as client:
        for knock in (lambda: client.audio.transcriptions.create(model="nano", file=BEARS), client.models.list):
            with pytest.raises(openai.AuthenticationError) as refused:
                knock()
            assert refused.value.code == "invalid_api_key"


def test_the_models_are_listed_and_found(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}

    assert {"nano", "whisper-1", "gpt-4o-transcribe"} <= set(listed)
    assert listed["nano"].object == "model"
    assert listed["nano"].created > 0
    assert listed["nano"].owned_by
    assert client.models.retrieve("nano") == listed["nano"]
    assert client.models.retrieve("large-v3").id == "large-v3"  # would be fetched first
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("no/such")
    assert refused.value.code == "model_not_found"


def test_a_client_that_drops_its_connection_finds_its_job_again(
    client: OpenAI, nano_server: Server, lecture: Path
) -> None:
    asked: dict[str, Any] = {"model": "nano", "file": lecture, "prompt": "dropped", "extra_body": QUICKLY}
    before = nano_server.rows("SELECT count(*) FROM transcription_job")

    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1.0).audio.transcriptions.create(**asked)
    with client.audio.transcriptions.with_streaming_response.create(**asked, stream=True) as stream:
        joined = stream.headers["x-job-id"]
        next(stream.iter_lines())  # and drops this one too
    again = client.audio.transcriptions.with_raw_response.create(**asked)

    assert again.headers["x-job-id"] == joined
    job = nano_server.job(joined)
    assert job["status"] == "done"
    assert again.parse().text == job["text"]
    assert nano_server.rows("SELECT count(*) FROM transcription_job") == [(before[0][0] + 1,)]


def test_a_job_goes_on_when_nobody_waits_any_more(client: OpenAI, nano_server: Server, lecture: Path) -> None:
    known = {row[0] for row in nano_server.rows("SELECT id FROM transcription_job")}

    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1.0).audio.transcriptions.create(
            model="nano", file=lecture, prompt="nobody waits", extra_body=QUICKLY
        )

    (new,) = {row[0] for row in nano_server.rows("SELECT id FROM transcription_job")} - known
    assert nano_server.wait(str(uuid.UUID(new)))["status"] == "done"


def test_twenty_at_once_are_answered_and_the_same_share_a_job(nano_server: Server) -> None:
    async def twenty() -> list[tuple[int, str, str]]:
        async with a_client(nano_server) as client:

            async def one(number: int) -> tuple[int, str, str]:
                answer = await client.audio.transcriptions.with_raw_response.create(
                    model="nano", file=BEARS, language="en", extra_body={"seed": 100 + number}
                )
                return number, answer.headers["x-job-id"], answer.parse().text

            return await asyncio.gather(*(one(number // 2) for number in range(20)))

    answers = asyncio.run(twenty())

    assert {text for _number, _job, text in answers} == {SAID}
    assert len({job for _number, job, _text in answers}) == 10
    assert len({(number, job) for number, job, _text in answers}) == 10


# ------------------------------------------------------------------ what is asked


@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities", "timestamp_granularities[0]"])
def test_granularities_come_with_brackets_and_without(api: Client, ends: dict[str, Any], name: str) -> None:
    answers = {
        asked: api.post(ENDPOINT, {"file": sound(), "response_format": "verbose_json", name: list(asked)}).json()
        for asked in [("word",), ("segment",), ("word", "segment")]
    }

    assert [("words" in told, "segments" in told) for told in answers.values()] == [
        (True, False),
        (False, True),
        (True, True),
    ]
    assert answers["word",]["words"] == [{"word": "Good", "start": 0.0, "end": 0.4}]
    assert Job.objects.filter(options__word_timestamps=True).count() == 1  # that both with words share
    assert Job.objects.count() == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp_granularities[0]": "word", "timestamp_granularities[1]": "segment"},
        {"timestamp_granularities[1]": "word", "timestamp_granularities[]": "segment"},
        {"timestamp_granularities": "word,segment"},
        {"timestamp_granularities[]": "word, segment"},
        {"timestamp_granularities": '["word", "segment"]'},
        {"timestamp_granularities[]": ["word", "", "segment", "word"]},
    ],
)
def test_granularities_are_a_list_however_it_is_written(
    api: Client, ends: dict[str, Any], fields: dict[str, Any]
) -> None:
    told = api.post(ENDPOINT, {"file": sound(), "response_format": "verbose_json", **fields}).json()

    assert ("words" in told, "segments" in told) == (True, True)


def test_other_lists_are_written_in_the_same_ways(api: Client, ends: dict[str, Any]) -> None:
    for fields in (
        {"languages[0]": "rus", "languages[1]": "en", "keywords[0]": "Anna", "keywords[1]": "Boris"},
        {"languages": "rus,English", "keywords": '["Anna", "Boris"]'},
    ):
        assert api.post(ENDPOINT, {"file": sound(), **fields}).status_code == 200
        options = Job.objects.latest("created_at").transcription_options
        assert (options.languages, options.hotwords) == (("ru", "en"), "Anna, Boris")


def test_a_word_has_no_space_before_it_and_a_segment_keeps_its_own(api: Client, ends: dict[str, Any]) -> None:
    asked = {"file": sound(), "response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
    told = api.post(ENDPOINT, asked).json()

    assert [word["word"] for word in told["words"]] == ["Good"]
    assert [segment["text"] for segment in told["segments"]] == [" Good day.", " Bye."]


def test_verbose_json_has_every_key(api: Client, ends: dict[str, Any]) -> None:
    told = api.post(ENDPOINT, {"file": sound(), "response_format": "verbose_json"}).json()

    assert told.pop("segments")[1] == {
        "id": 1, "seek": 0, "start": 1.0, "end": 2.0, "text": " Bye.", "tokens": [1, 2], "temperature": 0.0,
        "avg_logprob": -0.2, "compression_ratio": 1.1, "no_speech_prob": 0.01,
    }  # fmt: skip
    assert told == {
        "task": "transcribe", "language": "english", "duration": 2.5, "text": "Good day. Bye.",
        "usage": {"type": "duration", "seconds": 2.5},
    }  # fmt: skip


def test_of_several_languages_each_segment_tells_its_own(api: Client, ends: dict[str, Any]) -> None:
    asked = {"response_format": "verbose_json", "multilingual": "true"}
    told = api.post(ENDPOINT, {"file": sound(), **asked}).json()

    assert [segment["language"] for segment in told["segments"]] == ["en", "en"]


@pytest.mark.parametrize(
    "model", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe", "", "nano"]
)
def test_openais_names_are_the_default_model(api: Client, ends: dict[str, Any], model: str) -> None:
    assert api.post(ENDPOINT, {"file": sound(), "model": model}).json()["text"] == "Good day. Bye."
    assert Job.objects.get().model == "nano"


@pytest.mark.parametrize(
    ("name", "value", "param"),
    [
        ("language", "Klingon", "language"),
        ("temperature", "2", "temperature"),
        ("response_format", "xml", "response_format"),
        ("response_format", "diarized_json", "response_format"),
        ("model", "gpt-4o-transcribe-diarize", "model"),
        ("known_speaker_names[]", "Anna", "known_speaker_names"),
        ("stream", "perhaps", "stream"),
        ("timestamp_granularities[]", "syllable", "timestamp_granularities"),
        ("timestamp_granularities[]", "word", "timestamp_granularities"),  # in plain json
        ("timestamp_granularities[0]", "syllable", "timestamp_granularities"),
        ("timestamp_granularities", "word,syllable", "timestamp_granularities"),
        ("timestamp_granularities", "[word", "timestamp_granularities"),
        ("timestamp_granularities", '{"a": 1}', "timestamp_granularities"),
        ("languages[]", ["en", "Klingon"], "languages"),
        ("best_of", "0", "best_of"),
    ],
)
def test_a_bad_field_is_400_and_named(api: Client, name: str, value: Any, param: str) -> None:
    answer = api.post(ENDPOINT, {"file": sound(), name: value})

    assert answer.status_code == 400
    assert wrong(answer)["param"] == param
    assert wrong(answer)["type"] == "invalid_request_error"
    assert not Job.objects.exists()


def test_without_a_file_the_answer_is_400(api: Client) -> None:
    for body in ({"model": "nano"}, {"model": "nano", "file": "a text"}):
        answer = api.post(ENDPOINT, body)
        assert answer.status_code == 400
        assert wrong(answer)["param"] == "file"


def test_a_form_that_is_broken_is_400(api: Client) -> None:
    answer = api.generic("POST", ENDPOINT, b"no form", content_type="multipart/form-data; boundary=")
    assert answer.status_code == 400
    assert wrong(answer)["message"]


def test_a_translation_ignores_what_is_no_field_of_it(api: Client, ends: dict[str, Any]) -> None:
    asked = {
        "file": sound(),
        "task": "transcribe",
        "timestamp_granularities[]": "word",
        "response_format": "verbose_json",
    }
    told = api.post("/v1/audio/translations", asked).json()

    assert (told["task"], told["language"]) == ("translate", "english")
    assert "words" not in told


# ------------------------------------------------------------------ how it says no


def test_without_a_key_the_answer_is_401(owner: User) -> None:
    client = Client()
    client.force_login(owner)  # a session opens nothing here

    for answer in (client.post(ENDPOINT, {"file": sound()}), client.get("/v1/models")):
        assert answer.status_code == 401
        assert wrong(answer)["code"] == "invalid_api_key"
        assert answer["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", ENDPOINT, 405),
        ("options", ENDPOINT, 405),
        ("post", "/v1/models", 405),
        ("get", "/v1/models/nonsense", 404),
        ("post", f"{ENDPOINT}/", 404),
        ("get", "/v1/models/", 404),
        ("get", "/v1", 404),
        ("post", "/v1/chat/completions", 404),
    ],
)
def test_every_other_address_answers_in_the_same_shape(api: Client, method: str, path: str, status: int) -> None:
    answer = getattr(api, method)(path)

    assert answer.status_code == status
    assert wrong(answer)["type"] == "invalid_request_error"
    assert answer.has_header("Allow") is (status == 405)


@pytest.mark.parametrize(("code", "status"), [("not_media", 400), ("runner_died", 500)])
def test_a_failed_job_answers_with_its_sentence(api: Client, ends: dict[str, Any], code: str, status: int) -> None:
    values = {"name": "a.mp3", "attempts": 3}
    ends.update(status="failed", error_code=code, error_values=values)

    answer = api.post(ENDPOINT, {"file": sound()})

    assert answer.status_code == status
    assert wrong(answer)["message"] == errors.BY_CODE[code].sentence % values
    assert wrong(answer)["code"] == code
    assert answer["X-Job-Id"]
    assert answer.get("X-Should-Retry") == ("false" if status == 500 else None)  # a 400 is not sent again anyway


def test_a_cancelled_job_is_not_asked_for_again(api: Client, ends: dict[str, Any]) -> None:
    ends.update(status="cancelled")

    answer = api.post(ENDPOINT, {"file": sound()})

    assert answer.status_code == 409
    assert answer["X-Should-Retry"] == "false"
    assert wrong(answer)["code"] == "job_cancelled"


def test_a_job_that_was_deleted_meanwhile_says_so(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deleted(_job_id: uuid.UUID) -> Job:
        raise Job.DoesNotExist

    monkeypatch.setattr(jobs, "wait", deleted)
    answer = api.post(ENDPOINT, {"file": sound()})

    assert answer.status_code == 404
    assert wrong(answer)["code"] == "job_deleted"


@pytest.mark.parametrize(("failure", "status"), [(errors.DiskFull, 507), (RuntimeError, 500)])
def test_our_own_failure_says_no_more_than_it_should(
    owner: User, monkeypatch: pytest.MonkeyPatch, failure: type[Exception], status: int
) -> None:
    def broken(*_arguments: object, **_named: object) -> Job:
        raise failure

    monkeypatch.setattr(jobs, "submit", broken)
    client = Client(headers={"X-API-Key": ApiToken.make(owner)}, raise_request_exception=False)

    answer = client.post(ENDPOINT, {"file": sound()})

    assert answer.status_code == status
    assert wrong(answer)["type"] == "server_error"
    assert answer["X-Request-Id"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("address", [ENDPOINT, "/v1/audio/translations"])
def test_the_gate_answers_in_the_same_shape(owner: User, settings: Settings, address: str) -> None:
    key = ApiToken.make(owner)
    settings.MAX_UPLOAD_BYTES = 100 * 1024
    behind = Behind()

    stranger = ask(Gate(behind), address, [bytes(9000)])
    large = ask(Gate(behind), address, [], stalls=True, expect="100-continue", x_api_key=key, content_length=str(2**30))
    settings.FREE_SPACE_RESERVE_BYTES = 2**60
    full = ask(Gate(behind), address, x_api_key=key)
    elsewhere = ask(Gate(behind), "/v1/models", method="GET", host="evil.example")

    assert [answer.status for answer in (stranger, large, full, elsewhere)] == [401, 413, 507, 400]
    assert [answer.json["error"]["code"] for answer in (stranger, large, full)] == [
        "invalid_api_key",
        "file_too_large",
        "disk_full",
    ]
    assert "over 100\xa0KB" in large.json["error"]["message"]
    assert behind.taken == []


@pytest.mark.django_db(transaction=True)
def test_a_session_opens_nothing_at_the_gate(owner: User) -> None:
    client = Client()
    client.force_login(owner)
    cookie = f"sessionid={client.cookies['sessionid'].value}"

    assert ask(application, ENDPOINT, [SOUND], cookie=cookie).status == 401


def test_too_many_requests_have_a_shape_too() -> None:
    told = json.loads(refuse(ENDPOINT, 429, "Later.").content)["error"]
    assert (told["type"], told["code"], told["param"]) == ("rate_limit_error", "rate_limit_exceeded", None)


# ------------------------------------------------------------------ requests that come again


def test_the_same_request_gets_the_same_job(api: Client, ends: dict[str, Any]) -> None:
    first = api.post(ENDPOINT, {"file": sound(), "language": "en"})
    again = api.post(ENDPOINT, {"file": sound(), "language": "en", "response_format": "srt"}, headers=RETRY)

    assert first["X-Job-Id"] == again["X-Job-Id"]
    assert again.content.startswith(b"1\n00:00:00,000")
    assert len(list(Job.objects.get().recording.path.parent.iterdir())) == 1  # no second copy of the sound


RETRY = {"X-Stainless-Retry-Count": "1"}


@pytest.mark.parametrize("other", [{"language": "ru"}, {"file": sound(b"RIFFother")}, {"model": "tiny"}, {"seed": "4"}])
def test_another_request_gets_another(api: Client, ends: dict[str, Any], other: dict[str, Any]) -> None:
    first = api.post(ENDPOINT, {"file": sound(), "language": "en"})
    second = api.post(ENDPOINT, {"file": sound(), "language": "en", **other})

    assert first["X-Job-Id"] != second["X-Job-Id"]


def test_another_token_or_user_gets_another(api: Client, owner: User, stranger: User, ends: dict[str, Any]) -> None:
    answers = [api.post(ENDPOINT, {"file": sound()})]
    answers += [
        Client(headers={"X-API-Key": ApiToken.make(user)}).post(ENDPOINT, {"file": sound()})
        for user in (owner, stranger)
    ]

    assert len({answer["X-Job-Id"] for answer in answers}) == 3


@pytest.mark.parametrize(
    ("minutes", "headers", "same"), [(9, {}, True), (11, {}, False), (1400, {"Idempotency-Key": "a"}, True),
                                     (1500, {"Idempotency-Key": "a"}, False)]
)  # fmt: skip
def test_a_done_job_answers_for_a_while(
    api: Client, ends: dict[str, Any], minutes: int, headers: dict[str, str], same: bool
) -> None:
    ends["finished_at"] = timezone.now() - timedelta(minutes=minutes)

    first, second = (api.post(ENDPOINT, {"file": sound()}, headers=headers)["X-Job-Id"] for _ in range(2))

    assert (first == second) is same


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_did_not_end_well_is_begun_anew(api: Client, ends: dict[str, Any], status: str) -> None:
    ends.update(status=status, error_code="runner_died" if status == "failed" else "", error_values={"attempts": 3})
    first, second = (api.post(ENDPOINT, {"file": sound()})["X-Job-Id"] for _ in range(2))
    assert first != second


def test_a_key_of_ones_own_decides(api: Client, ends: dict[str, Any]) -> None:
    a, again, b, none = (
        api.post(ENDPOINT, {"file": sound()}, headers={"Idempotency-Key": key} if key else {})["X-Job-Id"]
        for key in ("a", "a", "b", "")
    )

    assert a == again
    assert len({a, b, none}) == 3


def test_a_key_for_something_else_is_refused(api: Client, ends: dict[str, Any]) -> None:
    api.post(ENDPOINT, {"file": sound()}, headers={"Idempotency-Key": "a"})

    other = api.post(ENDPOINT, {"file": sound(b"RIFFother")}, headers={"Idempotency-Key": "a"})
    long = api.post(ENDPOINT, {"file": sound()}, headers={"Idempotency-Key": "a" * 256})

    assert (other.status_code, wrong(other)["code"]) == (422, "idempotency_key_reused")
    assert (long.status_code, wrong(long)["type"]) == (400, "invalid_request_error")
    assert Job.objects.count() == 1


# Ten rounds of eight threads that submit the same at the same instant, over a real database file.
RACE = """
import threading
from concurrent.futures import ThreadPoolExecutor
from django.contrib.auth.models import User
from django.db import connection
from transcription import jobs
from transcription.api.upload_handler import HashedUpload
from transcription.whisper.options import TranscriptionOptions

owner, start = User.objects.get(), threading.Barrier(8)

def submit(request_key):
    upload = HashedUpload("race.wav", None, None, {})
    upload.sha256 = "0" * 64
    start.wait()
    try:
        return jobs.submit(owner, upload, request_key=request_key, model="nano", options=TranscriptionOptions()).pk
    finally:
        upload.close()
        connection.close()

with ThreadPoolExecutor(8) as threads:
    for number in range(10):
        request_key = jobs.RequestKey(f"race {number}", f"key {number}" if number % 2 else "")
        print(len(set(threads.map(submit, [request_key] * 8))))
"""


@pytest.mark.heavy
def test_many_at_the_same_instant_make_one_job(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", NANO)
    server.prepare()
    server.manage("createsuperuser", "--noinput", "--username", "admin", "--email", "admin@example.org")

    told = server.manage("shell", "-v", "0", "-c", RACE)

    assert told.stdout.split() == ["1"] * 10, told.stderr
    assert server.rows("SELECT count(*) FROM transcription_job") == [(10,)]
    assert server.rows("SELECT count(*) FROM transcription_recording") == [(10,)]
    assert len(list((server.data / "recordings").iterdir())) == 10


# ------------------------------------------------------------------ the stream


@given(st.lists(st.text(" \nab")))
def test_increments_are_the_text_without_the_space_around_it(pieces: list[str]) -> None:
    text = openai_endpoints.Increments()
    told = [text.of(piece) for piece in pieces]
    assert "".join(told) == text.whole == "".join(pieces).strip()


def test_a_later_section_waits_for_those_before_it(owner: User) -> None:
    job = a_job(owner, status="transcribing")
    a_segment(job, text=" One.")
    first = Section.objects.get()
    second = Section.objects.create(job=job, index=1, start=2.5, end=5, spans=[[2.5, 5]], seconds=2.5)
    Segment.objects.filter(pk=a_segment(job, 1, text=" Three.").pk).update(section=second, index=0)

    sent = openai_endpoints.SentSegments()
    one = openai_endpoints._after(sent, job.pk)
    a_segment(job, 1, text=" Two.")
    Section.objects.filter(pk=first.pk).update(status="done")
    rest = openai_endpoints._after(sent, job.pk)

    assert one == [(0, " One.")]
    assert rest == [(0, " Two."), (0, " Three.")]
    assert openai_endpoints._after(sent, job.pk) == []


def test_a_stream_of_two_channels_is_in_the_order_of_time(owner: User) -> None:
    job = a_job(owner, status="transcribing")
    known = {"job": job, "start": 0, "end": 9, "spans": [[0, 9]], "seconds": 9}
    Section.objects.create(index=0, channel=1, **known)
    second = Section.objects.create(index=1, channel=2, status="done", **known)
    first = Section.objects.get(index=0)
    sent, text = openai_endpoints.SentSegments(), openai_endpoints.Increments()

    def say(section: Section, index: int, start: float, words: str) -> None:
        Segment.objects.create(
            job=job, section=section, index=index, start=start, end=start + 1, text=words, seek=0, tokens=[],
            temperature=0, avg_logprob=0, compression_ratio=1, no_speech_prob=0,
        )  # fmt: skip

    def increments() -> list[str]:
        return [text.of(sent.follow(channel, words)) for channel, words in openai_endpoints._after(sent, job.pk)]

    say(second, 0, 3.0, " Hello, Anna.")
    assert increments() == []
    say(first, 0, 1.0, " Hello.")
    assert increments() == ["Hello."]
    say(first, 1, 4.5, " I am here.")
    assert increments() == ["\nHello, Anna.", "\nI am here."]
    Section.objects.update(status="done")
    assert increments() == []
    assert text.whole == edits.joined(edits.read(Segment.objects.filter(job=job).order_by(*BY_TIME))).strip()


def test_a_stream_is_sent_on_at_once(api: Client, ends: dict[str, Any]) -> None:
    answer = api.post(ENDPOINT, {"file": sound(), "stream": "true"})

    assert answer["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer["X-Accel-Buffering"] == "no"
    assert answer["X-Job-Id"] == str(Job.objects.get().pk)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ending", ["done", "cancelled", "deleted"])
def test_a_stream_says_that_it_lives_and_how_it_ended(
    owner: User, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(openai_endpoints, "SILENCE_SECONDS", 0.1)
    job = a_job(owner, status="transcribing")

    async def read() -> list[str]:
        lines = []
        async for line in openai_endpoints._stream(job.pk, "en"):
            if lines[-1:] != [line]:
                lines.append(line)
            if line == openai_endpoints.PING and ending == "deleted":
                await Job.objects.all().adelete()
            elif line == openai_endpoints.PING:
                await Job.objects.aupdate(status=ending)
        return lines

    ping, last = asyncio.run(read())

    told = json.loads(last.removeprefix("data: "))
    assert ping == ": ping\n\n"
    assert last.endswith("\n\n")
    assert told == {"type": "transcript.text.done", "text": ""} if ending == "done" else "job_" + ending in last
