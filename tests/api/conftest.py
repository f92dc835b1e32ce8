"""Who calls."""

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from transcription.models import ApiToken


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
