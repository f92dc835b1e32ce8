"""An administrator deletes users, and what is theirs goes with them."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from tests.api.rows import a_done_job, a_job, a_recording
from transcription import errors, users
from transcription.models import ApiToken, Batch, Delivery, Job, Recording, Segment, Tag, Upload, Webhook, Worker
from transcription.queue import jobs as queue_jobs

LIST = "/admin/auth/user/"


@pytest.fixture(autouse=True)
def _own_folders(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    settings.RECORDINGS_DIR, settings.UPLOADS_DIR = tmp_path / "recordings", tmp_path / "uploads"
    settings.UPLOADS_DIR.mkdir()


@pytest.fixture
def boss(db: None) -> User:
    return User.objects.create_superuser("boss", date_joined=timezone.now() - timedelta(days=1))


@pytest.fixture
def chief(client: Client, boss: User) -> Client:
    client.force_login(boss)
    return client


def text_of(response: Any) -> str:
    return str(response.content.decode())


def delete_page(user: User) -> str:
    return reverse("admin:auth_user_delete", args=(user.pk,))


def with_belongings(user: User) -> list[Path]:
    """Give a user one of everything; return the files."""
    done, running = a_done_job(user), a_job(user, status="transcribing")
    running.pcm_path.write_bytes(b"pcm")
    lonely = a_recording(user)
    upload = Upload.objects.create(owner=user, original_name="x", bytes=5, expires_at=timezone.now())
    upload.path.write_bytes(b"part")
    done.tags.add(Tag.objects.create(owner=user, name="work"))
    Batch.objects.create(owner=user)
    Webhook.objects.create(owner=user, secret="whsec_")
    Delivery.objects.create(owner=user, job=done, url="https://example.org/", type=Delivery.Type.DONE)
    ApiToken.make(user)
    return [done.recording.path, running.recording.path, running.pcm_path, lonely.path, upload.path]


def test_a_user_goes_with_their_rows_and_files(
    chief: Client, alice: User, bob: User, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    files, kept = with_belongings(alice), with_belongings(bob)
    with django_capture_on_commit_callbacks(execute=True):
        assert chief.post(delete_page(alice), {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk=alice.pk).exists()
    for rows in (Recording, Job, Upload, Tag, Batch, Webhook, Delivery):
        assert set(rows.objects.values_list("owner", flat=True)) == {bob.pk}
    assert [*ApiToken.objects.values_list("user", flat=True)] == [bob.pk]
    assert Segment.objects.count() == 1
    assert [file.exists() for file in files] == [False] * len(files)
    assert [file.exists() for file in kept] == [True] * len(kept)


def test_no_file_goes_before_the_rows_are_gone(alice: User, boss: User) -> None:
    files = with_belongings(alice)
    users.delete(User.objects.filter(pk=alice.pk))  # in the transaction of this test, which is never committed
    assert all(file.exists() for file in files)


def test_the_page_that_asks_says_what_goes(chief: Client, alice: User) -> None:
    with_belongings(alice)
    shown = text_of(chief.get(delete_page(alice)))
    for said in (
        "3 recordings with their files",
        "2 jobs with their texts",
        "which are stopped: 1",
        "keys to the API: 1",
    ):
        assert said in shown


def test_several_users_go_at_once(
    chief: Client, alice: User, bob: User, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    files = [*with_belongings(alice), *with_belongings(bob)]
    selected = {"action": "delete_selected", "_selected_action": [alice.pk, bob.pk]}
    shown = text_of(chief.post(LIST, selected))
    assert "6 recordings with their files" in shown
    with django_capture_on_commit_callbacks(execute=True):
        chief.post(LIST, {**selected, "post": "yes"})
    assert [user.username for user in User.objects.all()] == ["boss"]
    assert not any(file.exists() for file in files)


def test_a_worker_stops_when_its_jobs_user_is_gone(alice: User, boss: User, worker: Worker) -> None:
    a_job(alice)
    claim = queue_jobs.claim_job(worker)
    assert claim is not None
    users.delete(User.objects.filter(pk=alice.pk))
    with pytest.raises(errors.LeaseLost):
        claim.renew()


@pytest.mark.parametrize("confirmed", [{}, {"post": "yes"}])
def test_the_last_administrator_stays(chief: Client, boss: User, alice: User, confirmed: dict[str, str]) -> None:
    said = "This is the last administrator. Make another user a superuser first."
    assert said in text_of(chief.post(delete_page(boss), confirmed, follow=True))
    selected = {"action": "delete_selected", "_selected_action": [boss.pk, alice.pk]}
    assert said in text_of(chief.post(LIST, {**selected, **confirmed}, follow=True))
    assert User.objects.count() == 2


@pytest.mark.parametrize("loses", ["is_superuser", "is_staff", "is_active"])
def test_the_last_administrator_stays_one(chief: Client, boss: User, loses: str) -> None:
    address = reverse("admin:auth_user_change", args=(boss.pk,))
    rights = dict.fromkeys(("is_superuser", "is_staff", "is_active"), "on")
    del rights[loses]
    joined = {"date_joined_0": "2026-01-01", "date_joined_1": "10:00:00"}
    shown = text_of(chief.post(address, {"username": "boss", **joined, **rights}))
    assert "This is the last administrator." in shown
    boss.refresh_from_db()
    assert getattr(boss, loses)
    User.objects.create_superuser("second")
    assert chief.post(address, {"username": "boss", **joined, **rights}).status_code == 302
    boss.refresh_from_db()
    assert not getattr(boss, loses)


def test_an_administrator_may_go_while_another_stays_who_takes_over_the_keys_of_the_file(
    chief: Client, boss: User, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    second = User.objects.create_superuser("second")
    ApiToken.objects.create(user=boss, prefix="", digest="0" * 64, is_from_file=True)
    with django_capture_on_commit_callbacks(execute=True):
        assert chief.post(delete_page(boss), {"post": "yes"}).status_code == 302
    assert [user.username for user in User.objects.all()] == ["second"]
    assert ApiToken.objects.get().user == second


def test_who_may_not_delete_users_does_not(client: Client, alice: User, boss: User) -> None:
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_user"))
    client.force_login(clerk)
    assert client.post(delete_page(alice), {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=alice.pk).exists()
