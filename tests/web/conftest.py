"""People and their rows, for the tests of the pages."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client

from transcription.models import Job, Recording, Section, Segment
from transcription.whisper.options import TranscriptionOptions

MakeJob = Callable[..., Job]


@pytest.fixture
def page(client: Client, alice: User) -> Client:
    """A browser in which Alice is signed in."""
    client.force_login(alice)
    return client


@pytest.fixture
def make_job(alice: User) -> MakeJob:
    def make(status: str = "done", *, owner: User = alice, said: tuple[str, ...] = (), **fields: object) -> Job:
        recording = Recording.objects.create(
            owner=owner, original_name="talk_one.mp3", bytes=3_000_000, sha256="0" * 64, duration=5527.0
        )
        values = {"name": "talk_one.mp3", "model": "nano", "options": TranscriptionOptions().to_json(), **fields}
        job = Job.objects.create(owner=owner, recording=recording, status=status, **values)
        section = Section.objects.create(job=job, index=0, start=0, end=60, spans=[[0, 60]], seconds=60)
        for index, text in enumerate(said):
            add_segment(section, index, text)
        return job

    return make


def add_segment(section: Section, index: int, text: str, words: list[dict[str, object]] | None = None) -> Segment:
    return Segment.objects.create(
        job_id=section.job_id, section=section, index=index, start=index * 2.0, end=index * 2.0 + 2, text=text,
        seek=0, tokens=[], temperature=0, avg_logprob=-0.2, compression_ratio=1, no_speech_prob=0, words=words,
    )  # fmt: skip
