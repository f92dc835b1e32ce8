"""A client gives a recording."""

import hashlib
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from transcription import errors, jobs
from transcription.api.file_names import clean_name
from transcription.models import Job, Recording
from transcription.whisper.options import TEMPERATURES, TranscriptionOptions

JOBS = "/api/v1/jobs/"
SOUND = b"RIFF" + bytes(200_000)


def sound(name: str = "lecture.mp3", content: bytes = SOUND) -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content)


def asked(api: Client, **form: Any) -> TranscriptionOptions:
    """The options of the job that this form makes."""
    answer = api.post(JOBS, {"file": sound(), **form})
    assert answer.status_code == 202, answer.content
    return Job.objects.get(pk=answer.json()["id"]).transcription_options


def refused(api: Client, **form: Any) -> dict[str, list[str]]:
    """What is wrong with this form."""
    answer = api.post(JOBS, {"file": sound(), **form})
    assert answer.status_code == 400
    assert not Job.objects.exists()
    problems: dict[str, list[str]] = answer.json()
    return problems


def test_a_recording_that_was_accepted_is_on_disk_and_queued(api: Client, owner: User) -> None:
    answer = api.post(JOBS, {"file": sound()})

    job = Job.objects.get()
    assert answer.status_code == 202
    assert answer["Location"] == f"/api/v1/jobs/{job.pk}/"
    assert answer["X-Job-Id"] == answer.json()["id"] == str(job.pk)
    assert (job.status, job.owner, job.model) == ("queued", owner, "nano")
    assert job.recording.path.read_bytes() == SOUND
    assert job.recording.sha256 == hashlib.sha256(SOUND).hexdigest()
    assert (job.recording.original_name, job.recording.bytes) == ("lecture.mp3", len(SOUND))


def test_nothing_is_left_where_uploads_arrive(api: Client, settings: Settings) -> None:
    api.post(JOBS, {"file": sound()})
    api.post(JOBS, {"file": sound(), "nonsense": "1"})

    assert list(settings.UPLOADS_DIR.iterdir()) == []
    assert settings.UPLOADS_DIR.stat().st_mode & 0o777 == 0o700


def test_the_file_may_be_called_audio_file(api: Client) -> None:
    assert api.post(JOBS, {"audio_file": sound()}).status_code == 202


def test_an_empty_file_is_taken_for_the_job_to_say_so(api: Client) -> None:
    answer = api.post(JOBS, {"file": sound(content=b"")})

    assert answer.status_code == 202
    assert Recording.objects.get().sha256 == hashlib.sha256(b"").hexdigest()


def test_without_a_file_nothing_is_queued(api: Client) -> None:
    answer = api.post(JOBS, {"model": "nano"})

    assert answer.status_code == 400
    assert "file" in answer.json()


def test_two_recordings_at_once_are_refused(api: Client) -> None:
    answer = api.post(JOBS, {"file": sound(), "audio_file": sound("other.mp3")})

    assert answer.status_code == 400
    assert "more than once" in answer.json()["file"][0]


def test_what_nobody_asked_for_is_the_default(api: Client) -> None:
    assert asked(api, language="", temperature="", prompt="", model="") == TranscriptionOptions()


def test_an_installation_has_its_own_defaults(api: Client, settings: Settings) -> None:
    settings.DEFAULTS = {"language": "ru", "word_timestamps": True, "beam_size": 3}

    assert asked(api) == TranscriptionOptions(language="ru", word_timestamps=True, beam_size=3)
    assert asked(api, language="auto").language is None


def test_everything_that_can_be_asked_arrives(api: Client) -> None:
    options = asked(
        api, language="ru", task="translate", word_timestamps="true", initial_prompt="Names", temperature="0.4",
        beam_size="2",
    )  # fmt: skip

    assert options == TranscriptionOptions(
        language="ru", task="translate", word_timestamps=True, initial_prompt="Names", temperature=(0.4,), beam_size=2
    )


@pytest.mark.parametrize("language", ["ru", "RU", "ru-RU", "ru_RU", "Russian", "russian"])
def test_a_language_has_many_names(api: Client, language: str) -> None:
    assert asked(api, language=language).language == "ru"


@pytest.mark.parametrize(
    ("sent", "tried"),
    [
        ("0", TEMPERATURES),
        ("0.0", TEMPERATURES),
        ("[0]", (0.0,)),
        ("0.2", (0.2,)),
        ("0,0.5", (0.0, 0.5)),
        ("[0, 1]", (0.0, 1.0)),
        (["0", "0.3"], (0.0, 0.3)),
    ],
)
def test_a_temperature_is_a_number_or_several(api: Client, sent: str | list[str], tried: tuple[float, ...]) -> None:
    assert asked(api, temperature=sent).temperature == tried


@pytest.mark.parametrize("sent", ["hot", "1.5", "-0.1", "nan", "[NaN]", "[]", "[true]", "[[0]]", "0,", "[0", '{"a":1}'])
def test_another_temperature_is_refused(api: Client, sent: str) -> None:
    assert "0 to 1" in refused(api, temperature=sent)["temperature"][0]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("beam_size", "0", "1 to 16"),
        ("beam_size", "17", "1 to 16"),
        ("beam_size", "many", "1 to 16"),
        ("task", "sing", "translate"),
        ("word_timestamps", "perhaps", "true or false"),
        ("vad_filter", "perhaps", "true or false"),
        ("sections", "0", "1 to 999"),
        ("sections", "1000", "1 to 999"),
        ("priority", "urgent", "high, normal, low"),
        ("language", "klingon", "klingon"),
        ("model", "whisper-99", "nano"),
        ("model", "../../etc", "nano"),
        ("callback_url", "http://localhost/", "not on the public internet"),
        ("format", "json", "no parameter"),
        ("nonsense", "1", "no parameter"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(api: Client, name: str, value: str, said: str) -> None:
    assert said in refused(api, **{name: value})[name][0]


def test_an_alias_and_its_name_may_not_disagree(api: Client) -> None:
    assert "more than once" in refused(api, prompt="a", initial_prompt="b")["initial_prompt"][0]


def test_a_parameter_in_the_address_counts_too(api: Client) -> None:
    answer = api.post(f"{JOBS}?language=ru", {"file": sound()})

    assert Job.objects.get(pk=answer.json()["id"]).transcription_options.language == "ru"


def test_a_full_disk_is_said(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_named: object) -> None:
        raise errors.DiskFull

    monkeypatch.setattr(jobs, "submit", full)

    answer = api.post(JOBS, {"file": sound()})

    assert answer.status_code == 507
    assert "space" in answer.json()["detail"]


def test_another_kind_of_body_is_not_taken(api: Client) -> None:
    answer = api.post(JOBS, "file=x", content_type="application/x-www-form-urlencoded")

    assert answer.status_code == 415
    assert answer.json()["detail"]


def test_a_broken_form_is_said_in_json(api: Client) -> None:
    answer = api.post(JOBS, b"not a form", content_type="multipart/form-data")

    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_a_session_gives_a_recording_only_with_its_csrf_token(owner: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)
    token = "a" * 32
    client.cookies["csrftoken"] = token

    assert client.post(JOBS, {"file": sound()}).status_code == 403
    assert client.post(JOBS, {"file": sound(), "csrfmiddlewaretoken": token}).status_code == 202
    assert client.post(JOBS, {"file": sound()}, headers={"X-CSRFToken": token}).status_code == 202


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("lecture.mp3", "lecture.mp3"),
        ("/etc/passwd", "passwd"),
        ("C:\\records\\a.wav", "a.wav"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}3pm.exe", "3pm.exe"),
        ("a\r\nb\0.mp3", "ab.mp3"),
        ("\udcff.mp3", ".mp3"),
        ("..", "recording"),
        ("", "recording"),
        ("и\N{COMBINING BREVE}.ogg", "й.ogg"),
        ("я" * 300 + ".mp3", "я" * 125 + ".mp3"),
        ("a." + "x" * 300, "a." + "x" * 253),
    ],
)
def test_a_name_is_kept_without_what_could_harm(given: str, kept: str) -> None:
    assert clean_name(given) == kept


def test_a_name_with_a_very_long_extension_is_no_problem(api: Client) -> None:
    assert api.post(JOBS, {"file": sound("a." + "x" * 300)}).status_code == 202
    assert len(Recording.objects.get().original_name) == 255


def test_a_quote_in_a_name_comes_back_out_of_its_escape(api: Client) -> None:
    # Browsers and curl send `"` as %22, and no other sign escaped.
    answer = api.post(JOBS, {"file": sound("100% %22yes%22%0D%0A.mp3")})

    assert answer.json()["name"] == '100% "yes".mp3'


def test_how_it_is_cut_and_its_priority_are_frozen_in_the_job(api: Client) -> None:
    recording = sound()
    wishes = {"vad_filter": "false", "sections": "1", "priority": "high"}
    answer = api.post("/api/v1/jobs/", {"file": recording, **wishes})
    assert answer.status_code == 202
    job = Job.objects.get(pk=answer.json()["id"])
    assert (job.options["vad_filter"], job.options["sections"], job.priority) == (False, 1, Job.Priority.HIGH)
