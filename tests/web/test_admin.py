from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tests.web.conftest import MakeJob
from transcription.models import ApiToken, Delivery, Download, Event, Job, Recording
from transcription.queue import wakeups

LIST = "/admin/transcription/job/"


def text_of(response: Any) -> str:
    return str(response.content.decode())


@pytest.fixture
def chief(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("chief"))
    return client


def test_past_jobs_of_everybody_are_listed(chief: Client, make_job: MakeJob) -> None:
    make_job(name="Talk", language="ru", processing_seconds=368.0)
    shown = text_of(chief.get(LIST))
    assert "Talk" in shown
    assert "1:32:07" in shown
    assert "6:08 (15×)" in shown


def test_jobs_are_found_by_what_was_said(chief: Client, make_job: MakeJob) -> None:
    make_job(name="Found", text="entropy of a coin")
    make_job(name="Other", text="nothing of it")
    shown = text_of(chief.get(LIST, {"q": "entropy"}))
    assert "Found" in shown
    assert "Other" not in shown


def test_the_list_asks_as_often_for_many_jobs_as_for_one(
    chief: Client, make_job: MakeJob, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(20):
        make_job()
    with django_assert_max_num_queries(12):
        chief.get(LIST)


def test_only_a_name_and_a_note_can_be_changed(chief: Client, make_job: MakeJob) -> None:
    job = make_job(text="what was said")
    events = {"events-TOTAL_FORMS": "0", "events-INITIAL_FORMS": "0"}
    changed = {"name": "New", "notes": "checked", "status": "failed", "text": "else", **events}
    assert chief.post(reverse("admin:transcription_job_change", args=(job.pk,)), changed).status_code == 302
    job.refresh_from_db()
    assert (job.name, job.notes, job.status, job.text) == ("New", "checked", "done", "what was said")


def test_nothing_is_added_by_hand(chief: Client) -> None:
    for kind in ("job", "recording", "worker", "event", "apitoken"):
        assert chief.get(f"/admin/transcription/{kind}/").status_code == 200
        assert chief.get(f"/admin/transcription/{kind}/add/").status_code == 403


def test_an_administrator_reads_the_text_of_another(chief: Client, make_job: MakeJob) -> None:
    job = make_job(said=(" First.", " Second."))
    response = chief.get(reverse("admin:transcription_job_text", args=(job.pk,)))
    assert text_of(response) == "First.\nSecond.\n"
    assert response["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("name", ["text", "audio"])
def test_staff_without_the_permission_see_neither_text_nor_sound(client: Client, make_job: MakeJob, name: str) -> None:
    job = make_job(said=("First.",))
    clerk = User.objects.create_user("clerk", is_staff=True)
    client.force_login(clerk)
    address = reverse(f"admin:transcription_job_{name}", args=(job.pk,))
    assert client.get(address).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="view_job"))
    assert client.get(address).status_code != 403


@pytest.mark.parametrize("name", ["text", "audio"])
def test_a_person_who_is_not_staff_is_led_away(page: Client, make_job: MakeJob, name: str) -> None:
    assert page.get(reverse(f"admin:transcription_job_{name}", args=(make_job().pk,))).status_code == 302


def test_the_sound_comes_from_the_recordings_own_file(chief: Client, make_job: MakeJob) -> None:
    job = make_job()
    job.recording.path.parent.mkdir(parents=True, exist_ok=True)
    job.recording.path.write_bytes(b"sound")
    response = chief.head(reverse("admin:transcription_job_audio", args=(job.pk,)))
    assert response["Content-Length"] == "5"


def test_deleting_a_job_takes_its_file_with_it(chief: Client, make_job: MakeJob) -> None:
    job = make_job()
    Event.objects.create(job=job, kind="queued")
    job.recording.path.parent.mkdir(parents=True, exist_ok=True)
    job.recording.path.write_bytes(b"sound")
    chief.post(reverse("admin:transcription_job_delete", args=(job.pk,)), {"post": "yes"})
    assert not Job.objects.exists()
    assert not job.recording.path.exists()


def test_a_key_is_revoked_and_never_shown(chief: Client, alice: User) -> None:
    key = ApiToken.make(alice, "laptop")
    token = ApiToken.objects.get()
    shown = text_of(chief.get(reverse("admin:transcription_apitoken_change", args=(token.pk,))))
    assert key not in shown
    assert token.digest not in shown
    chief.post(reverse("admin:transcription_apitoken_delete", args=(token.pk,)), {"post": "yes"})
    assert not ApiToken.objects.exists()


def test_the_admin_works_under_the_policy_of_the_pages(chief: Client, make_job: MakeJob) -> None:
    make_job()
    response = chief.get(LIST)
    assert "script-src 'self'" in response["Content-Security-Policy"]
    assert "<style" not in text_of(response)


@pytest.fixture
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeups, "ring", lambda *queues: None)


def act(client: Client, action: str, *jobs: Job) -> Any:
    return client.post(LIST, {"action": action, "_selected_action": [str(job.pk) for job in jobs]}, follow=True)


def statuses(*jobs: Job) -> list[str]:
    return [Job.objects.get(pk=job.pk).status for job in jobs]


def test_selected_jobs_are_cancelled_and_those_that_had_ended_are_counted(chief: Client, make_job: MakeJob) -> None:
    selected = make_job("queued"), make_job("transcribing"), make_job("done")
    other = make_job("queued")
    shown = text_of(act(chief, "cancel", *selected))
    assert statuses(*selected, other) == ["cancelled", "cancelled", "done", "queued"]
    assert "2 jobs are cancelled." in shown
    assert "1 job had ended already: there was nothing to cancel." in shown


@pytest.mark.usefixtures("_no_broker")
def test_selected_jobs_are_tried_again_and_those_that_cannot_be_are_counted(chief: Client, make_job: MakeJob) -> None:
    selected = make_job("failed", error_code="engine_failed"), make_job("done"), make_job("queued")
    silent = make_job("cancelled")
    Recording.objects.filter(jobs=silent).update(removed_at=timezone.now())
    shown = text_of(act(chief, "retry", *selected, silent))
    assert statuses(*selected, silent) == ["queued", "done", "queued", "cancelled"]
    assert "1 job is queued again." in shown
    assert "3 jobs stay as they are: only failed or cancelled ones whose sound is here can be tried again." in shown


@pytest.mark.parametrize("action", ["cancel", "retry"])
def test_who_may_only_look_turns_nothing(client: Client, make_job: MakeJob, action: str) -> None:
    job = make_job("queued" if action == "cancel" else "failed")
    clerk = User.objects.create_user("clerk", is_staff=True)
    clerk.user_permissions.add(Permission.objects.get(codename="view_job"))
    client.force_login(clerk)
    assert f'value="{action}"' not in text_of(client.get(LIST))
    before = statuses(job)
    act(client, action, job)
    assert statuses(job) == before


def test_jobs_are_listed_by_their_priority(chief: Client, make_job: MakeJob) -> None:
    make_job(name="Urgent", priority=Job.Priority.HIGH)
    make_job(name="Usual")
    shown = text_of(chief.get(LIST, {"priority__exact": "1"}))
    assert "Urgent" in shown
    assert "Usual" not in shown


def test_messages_are_reviewed_and_sent_again(chief: Client, alice: User, make_job: MakeJob) -> None:
    refused = {
        "at": "2026-11-21T10:00:00Z",
        "seconds": 1,
        "status_code": 500,
        "code": "status",
        "values": {"status": 500},
    }
    url = "https://hook.example.org/a-secret-path"
    message = Delivery.objects.create(
        owner=alice, job=make_job(), url=url, type="job.done", status="failed", attempts=5, tries=[refused]
    )
    address = "/admin/transcription/delivery/"
    shown = text_of(chief.get(address))
    assert "The answer was 500." in shown
    assert "hook.example.org" in shown
    assert "a-secret-path" not in shown
    assert "The answer was 500." in text_of(chief.get(f"{address}{message.pk}/change/"))
    said = chief.post(address, {"action": "replay", "_selected_action": [message.pk]}, follow=True)
    assert "1 message is sent again." in text_of(said)
    message.refresh_from_db()
    assert (message.status, message.attempts) == ("waiting", 0)


def test_who_may_only_look_at_messages_sends_none_again(client: Client, alice: User) -> None:
    watcher = User.objects.create_user("watcher", is_staff=True)
    watcher.user_permissions.add(Permission.objects.get(codename="view_delivery"))
    client.force_login(watcher)
    message = Delivery.objects.create(owner=alice, url="https://hook.example.org/", type="job.done", status="failed")
    address = "/admin/transcription/delivery/"
    assert "Send the selected messages again" not in text_of(client.get(address))
    client.post(address, {"action": "replay", "_selected_action": [message.pk]})
    message.refresh_from_db()
    assert message.status == "failed"


def test_downloads_are_reviewed(chief: Client) -> None:
    Download.objects.create(model="turbo", progress=0.25, error_code="disk_full")
    shown = text_of(chief.get("/admin/transcription/download/"))
    assert "turbo" in shown
    assert "lacks space" in shown
