"""A client looks at the models, and an administrator fetches and removes them."""

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from tests.api.rows import a_job
from tests.server import NANO
from transcription.models import Download, Job
from transcription.queue import wakeups
from transcription.weights import catalogue


@pytest.fixture(autouse=True)
def models(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with the model nano in it; nobody listens for wake-ups."""
    monkeypatch.setattr(wakeups, "ring", lambda *queues: None)
    settings.MODELS_DIR = tmp_path / "models"
    settings.MODELS_DIR.mkdir()
    (settings.MODELS_DIR / "faster-whisper-nano").symlink_to(NANO / "faster-whisper-nano")
    return tmp_path / "models"


@pytest.fixture
def admin(owner: User, api: Client) -> Client:
    owner.is_staff = True
    owner.save()
    return api


def state(api: Client, name: str) -> tuple[str, float]:
    found = {model["name"]: model for model in api.get("/api/v1/models/").json()["results"]}[name]
    return found["state"], found["progress"]


def test_everybody_sees_what_is_here_and_what_can_be_fetched(api: Client) -> None:
    listed = {model["name"]: model for model in api.get("/api/v1/models/").json()["results"]}

    assert list(listed) == ["tiny", "base", "small", "medium", "large-v2", "large-v3", "turbo", "nano"]
    assert listed["turbo"] == {
        "name": "turbo",
        "aliases": ["large-v3-turbo"],
        "engine": "faster-whisper",
        "state": "missing",
        "progress": 0,
        "size_bytes": 1_621_665_983,
        "default": False,
        "verified": None,
        "error": None,
    }
    assert (listed["nano"]["state"], listed["nano"]["default"], listed["nano"]["verified"]) == ("here", True, False)


def test_published_weights_are_known_to_be_verified_once_their_sum_was_taken(
    api: Client, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "faster-whisper-tiny").symlink_to(NANO / "faster-whisper-nano")
    monkeypatch.setattr(catalogue, "_published_sha256", lambda local: catalogue.weights_sha256(nano))
    nano = catalogue.find("nano", "faster-whisper")

    def verified() -> bool | None:
        found = api.get("/api/v1/models/").json()["results"]
        return {model["name"]: model for model in found}["tiny"]["verified"]  # type: ignore[no-any-return]

    assert verified() is None
    catalogue.weights_sha256(catalogue.find("tiny", "faster-whisper"))
    assert verified() is True


def test_an_administrator_has_a_model_fetched(admin: Client) -> None:
    answer = admin.post("/api/v1/models/large/download/")

    assert answer.status_code == 202
    assert answer.json()["name"] == "large-v3"
    assert state(admin, "large-v3") == ("downloading", 0)
    Download.objects.update(progress=0.25)
    assert state(admin, "large-v3") == ("downloading", 0.25)


def test_what_is_here_is_not_fetched(admin: Client) -> None:
    assert admin.post("/api/v1/models/nano/download/").status_code == 200
    assert not Download.objects.exists()


def test_a_download_that_failed_says_why(admin: Client) -> None:
    values = {"name": "tiny", "detail": "the hub said: no", "files": "model.bin", "folder": "/models"}
    Download.objects.create(
        model="tiny", is_asked_for=True, error_code="weights_unavailable", error_values=values, progress=0.5
    )

    assert state(admin, "tiny") == ("failed", 0)
    listed = admin.get("/api/v1/models/", headers={"accept-language": "en"}).json()["results"]
    assert listed[0]["error"]["message"].startswith("The weights of tiny could not be fetched: the hub said: no.")


def test_an_administrator_removes_a_model(admin: Client, models: Path) -> None:
    assert admin.delete("/api/v1/models/nano/").status_code == 204
    assert not (models / "faster-whisper-nano").exists()
    assert admin.delete("/api/v1/models/nano/").status_code == 404


def test_removing_calls_a_download_off(admin: Client) -> None:
    admin.post("/api/v1/models/tiny/download/")

    assert admin.delete("/api/v1/models/tiny/").status_code == 204
    assert state(admin, "tiny") == ("missing", 0)


def test_what_an_unfinished_job_needs_stays(admin: Client, owner: User, models: Path) -> None:
    job = a_job(owner)
    Job.objects.filter(pk=job.pk).update(model="nano", status="queued")

    answer = admin.delete("/api/v1/models/nano/", headers={"accept-language": "en"})

    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("The model nano is needed by unfinished jobs (1).")
    assert (models / "faster-whisper-nano").exists()


@pytest.mark.parametrize("name", ["huge", "..", "%2e%2e", "../../etc"])
def test_a_name_that_nobody_knows_is_not_found(admin: Client, name: str) -> None:
    assert admin.post(f"/api/v1/models/{name}/download/").status_code == 404
    assert admin.delete(f"/api/v1/models/{name}/").status_code == 404


def test_others_may_only_look(api: Client) -> None:
    refused = api.post("/api/v1/models/tiny/download/", headers={"accept-language": "en"})

    assert refused.status_code == 403
    assert refused.json() == {"detail": "Only an administrator may do this."}
    assert api.delete("/api/v1/models/nano/").status_code == 403
    assert Client().get("/api/v1/models/").status_code == 401
    assert not Download.objects.exists()
