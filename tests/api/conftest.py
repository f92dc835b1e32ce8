"""Who calls."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from tests.api.rows import WORDS, a_segment
from transcription import jobs
from transcription.models import ApiToken, Job


@pytest.fixture(autouse=True)
def _own_folders(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    settings.RECORDINGS_DIR = tmp_path / "recordings"
    settings.UPLOADS_DIR = tmp_path / "uploads"


@pytest.fixture
def owner(db: None) -> User:
    return User.objects.create_user("anna", password="a long password")


@pytest.fixture
def stranger(db: None) -> User:
    return User.objects.create_user("boris", password="a long password")


@pytest.fixture
def api(owner: User) -> Client:
    """The owner, with a key."""
    return Client(headers={"Authorization": f"Token {ApiToken.make(owner)}"})


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How jobs end as soon as they are queued: the columns that a worker would write."""
    columns: dict[str, Any] = {
        "status": "done", "text": "Good day.", "language": "en", "finished_at": timezone.now(),
    }  # fmt: skip
    submit = jobs.submit

    def submit_and_end(*arguments: Any, **named: Any) -> Job:
        job = submit(*arguments, **named)
        if job.status == "queued":  # and not one that this request made before
            a_segment(job, words=WORDS)
            Job.objects.filter(pk=job.pk).update(**columns)
        return job

    monkeypatch.setattr(jobs, "submit", submit_and_end)
    return columns
