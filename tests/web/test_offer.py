"""What an administrator is offered: the better model."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.server import NANO
from tests.web.conftest import MakeJob
from transcription.models import Download
from transcription.queue import wakeups

OFFERED = "turbo hears hard recordings far better, and takes longer: 1.5\xa0GB."


def text_of(response: Any) -> str:
    return str(response.content.decode())


@pytest.fixture(autouse=True)
def models(settings: LazySettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with base in it; nobody listens for wake-ups."""
    monkeypatch.setattr(wakeups, "ring", lambda *queues: None)
    settings.MODELS_DIR, settings.DEFAULT_MODEL = tmp_path / "models", "auto"
    settings.MODELS_DIR.mkdir()
    put(settings.MODELS_DIR, "base")
    return tmp_path / "models"


def put(models: Path, name: str) -> None:
    (models / f"faster-whisper-{name}").symlink_to(NANO / "faster-whisper-nano")


@pytest.fixture
def admin(page: Client, alice: User) -> Client:
    alice.is_staff = True
    alice.save()
    return page


def answer(page: Client, said: str) -> None:
    assert page.post(reverse("answer-offer"), {"answer": said})["Location"] == reverse("dashboard")


def test_an_administrator_is_offered_turbo_while_a_smaller_model_is_the_best(admin: Client, models: Path) -> None:
    assert OFFERED in text_of(admin.get("/"))
    put(models, "turbo")
    assert 'id="offer"' not in text_of(admin.get("/"))


def test_others_are_offered_nothing_and_may_not_answer(page: Client) -> None:
    assert 'id="offer"' not in text_of(page.get("/"))
    assert page.post(reverse("answer-offer"), {"answer": "fetch"}).status_code == 403
    assert not Download.objects.exists()


@pytest.mark.parametrize("setting", ["nano", "large-v3"])
def test_who_has_chosen_another_model_is_offered_none(
    admin: Client, settings: LazySettings, models: Path, setting: str
) -> None:
    put(models, "nano")
    settings.DEFAULT_MODEL = setting
    assert 'id="offer"' not in text_of(admin.get("/"))


def test_one_click_has_it_fetched_and_the_page_asks_how_far_it_is(admin: Client) -> None:
    answer(admin, "fetch")
    Download.objects.update(progress=0.345)
    shown = text_of(admin.get("/"))
    assert "Fetching turbo · 34%" in shown
    assert f"{reverse('offer')}?seen=downloading-34" in shown
    assert admin.get(reverse("offer"), {"seen": "downloading-34"}).status_code == 204
    assert "Fetching turbo · 34%" in text_of(admin.get(reverse("offer"), {"seen": "downloading-33"}))


def test_when_it_has_come_who_saw_it_come_is_told(admin: Client, models: Path) -> None:
    put(models, "turbo")
    assert "turbo is here." in text_of(admin.get(reverse("offer"), {"seen": "downloading-99"}))


def test_it_can_be_stopped_and_had_later(admin: Client) -> None:
    answer(admin, "fetch")
    answer(admin, "stop")
    assert not Download.objects.exists()
    assert OFFERED in text_of(admin.get("/"))


def test_who_wants_it_not_is_not_asked_again(admin: Client) -> None:
    answer(admin, "later")
    assert 'id="offer"' not in text_of(admin.get("/"))
    Download.objects.create(model="turbo", is_asked_for=True)
    assert "Fetching turbo" in text_of(admin.get("/"))


def test_what_could_not_be_fetched_says_why_and_can_be_tried_again(admin: Client) -> None:
    values = {"name": "turbo", "detail": "the hub said: no", "files": "model.bin", "folder": "/models"}
    Download.objects.create(model="turbo", is_asked_for=True, error_code="weights_unavailable", error_values=values)
    shown = text_of(admin.get("/"))
    assert "The weights of turbo could not be fetched: the hub said: no." in shown
    answer(admin, "fetch")
    assert "Fetching turbo · 0%" in text_of(admin.get("/"))


def test_a_job_that_waits_for_its_model_shows_how_much_of_it_is_here(page: Client, make_job: MakeJob) -> None:
    job = make_job("downloading", model="turbo", progress=0.345)
    for address in (reverse("row", args=(job.pk,)), reverse("job", args=(job.pk,))):
        assert "Fetching the model turbo · 34%" in text_of(page.get(address))


def test_the_form_offers_what_can_be_fetched(page: Client) -> None:
    shown = text_of(page.get("/"))
    assert '<option value="base" selected>base · ready</option>' in shown
    assert '<option value="turbo">turbo · fetched first, 1.5\xa0GB</option>' in shown
