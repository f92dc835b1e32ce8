"""A client downloads a transcript."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.api.rows import WORDS, a_done_job, a_job, a_recording, a_segment


@pytest.mark.parametrize(
    ("format", "content_type"),
    [("txt", "text/plain"), ("srt", "application/x-subrip"), ("vtt", "text/vtt"), ("tsv", "text/tab-separated-values")],
)
def test_a_transcript_is_saved_as_a_file_in_each_format(
    api: Client, owner: User, format: str, content_type: str
) -> None:
    job = a_done_job(owner)

    answer = api.get(f"/api/v1/jobs/{job.pk}/transcript.{format}")

    assert answer.status_code == 200
    assert "Good day." in answer.content.decode()
    assert answer["Content-Type"].startswith(content_type)
    assert answer["Content-Disposition"] == f'attachment; filename="lecture.{format}"'


def test_json_is_the_body_of_transcribe(api: Client, owner: User) -> None:
    job = a_job(owner, status="done", text="Good day.", language="en")
    a_segment(job, words=WORDS)

    told = api.get(f"/api/v1/jobs/{job.pk}/transcript.json").json()

    assert told["text"] == "Good day."
    assert told["language"] == "en"
    assert told["segments"] == [
        {
            "id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": "Good day.", "tokens": [1, 2], "temperature": 0.0,
            "avg_logprob": -0.2, "compression_ratio": 1.1, "no_speech_prob": 0.01,
            "words": [{"word": "Good", "start": 0.0, "end": 0.4, "probability": 0.9}], "language": "en",
        }
    ]  # fmt: skip
    assert told["uploaded_file"] == f"{job.pk}_lecture.wav"
    assert told["result_file"] == f"{job.pk}_lecture.txt"
    assert told["beam_size"] == 5


def test_a_name_in_another_script_is_kept(api: Client, owner: User) -> None:
    job = a_done_job(owner, name="Лекция", recording=a_recording(owner, original_name="Лекция.mp3"))

    disposition = api.get(f"/api/v1/jobs/{job.pk}/transcript.txt")["Content-Disposition"]

    assert disposition.startswith("attachment; filename*=utf-8''%D0%9B")


def test_a_name_that_would_break_a_header_does_not(api: Client, owner: User) -> None:
    job = a_done_job(owner, name='x"\r\nSet-Cookie: a=b')

    answer = api.get(f"/api/v1/jobs/{job.pk}/transcript.txt")

    assert answer["Content-Disposition"] == 'attachment; filename="x\\"Set-Cookie: a=b.txt"'


def test_an_unfinished_transcript_is_given_only_when_asked_for(api: Client, owner: User) -> None:
    job = a_job(owner, status="transcribing")
    a_segment(job)
    address = f"/api/v1/jobs/{job.pk}/transcript.txt"

    refused = api.get(address)
    given = api.get(f"{address}?partial=true")

    assert refused.status_code == 409
    assert "partial" in refused.json()["detail"]
    assert given.content.decode().strip() == "Good day."


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_that_stopped_gives_what_it_has(api: Client, owner: User, status: str) -> None:
    job = a_job(owner, status=status)
    a_segment(job)

    assert "Good day." in api.get(f"/api/v1/jobs/{job.pk}/transcript.srt").content.decode()
    assert api.get(f"/api/v1/jobs/{job.pk}/transcript.json").json()["text"] == "Good day."


def test_an_unknown_format_is_a_sentence(api: Client, owner: User) -> None:
    answer = api.get(f"/api/v1/jobs/{a_done_job(owner).pk}/transcript.exe")

    assert answer.status_code == 404
    assert "srt" in answer.json()["detail"]
