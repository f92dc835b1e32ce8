"""Rows as they are after a job has run."""

from typing import Any

from django.contrib.auth.models import User

from transcription.models import Job, Recording, Section, Segment
from transcription.whisper.options import TranscriptionOptions

WORDS = [{"word": " Good", "start": 0.0, "end": 0.4, "probability": 0.9}]


def a_recording(owner: User, content: bytes = b"RIFF", **facts: Any) -> Recording:
    known = {"original_name": "lecture.mp3", "sha256": "ab" * 32, "container": "mp3", "codec": "mp3", "duration": 2.5}
    recording = Recording.objects.create(owner=owner, bytes=len(content), **{**known, **facts})
    recording.path.parent.mkdir(parents=True, exist_ok=True)
    recording.path.write_bytes(content)
    return recording


def a_job(owner: User, **values: Any) -> Job:
    recording = values.pop("recording", None) or a_recording(owner)
    known = {"name": recording.original_name, "model": "nano", "options": TranscriptionOptions().to_json()}
    return Job.objects.create(owner=owner, recording=recording, **{**known, **values})


def a_segment(job: Job, index: int = 0, text: str = " Good day.", **values: Any) -> Segment:
    section, _made = Section.objects.get_or_create(job=job, index=0, start=0, end=2.5, spans=[[0, 2.5]], seconds=2.5)
    known = {
        "start": index + 0.0, "end": index + 1.0, "seek": 0, "tokens": [1, 2], "temperature": 0.0,
        "avg_logprob": -0.2, "compression_ratio": 1.1, "no_speech_prob": 0.01, "words": None,
    }  # fmt: skip
    return Segment.objects.create(job=job, section=section, index=index, text=text, **{**known, **values})


def a_done_job(owner: User, **values: Any) -> Job:
    job = a_job(owner, **{"status": "done", "progress": 1, "text": "Good day.", "language": "en", **values})
    a_segment(job)
    return job
