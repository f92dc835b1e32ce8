"""A client deletes a job."""

from django.contrib.auth.models import User
from django.test import Client

from tests.api.rows import a_done_job
from transcription.models import Job, Recording


def test_a_deleted_job_takes_its_recording_along(api: Client, owner: User) -> None:
    job = a_done_job(owner)
    path = job.recording.path

    answer = api.delete(f"/api/v1/jobs/{job.pk}/")

    assert answer.status_code == 204
    assert not Job.objects.exists()
    assert not Recording.objects.exists()
    assert not path.exists()


def test_anothers_job_stays(api: Client, stranger: User) -> None:
    job = a_done_job(stranger)

    assert api.delete(f"/api/v1/jobs/{job.pk}/").status_code == 404
    assert Job.objects.exists()


def test_a_session_without_its_csrf_token_deletes_nothing(owner: User) -> None:
    job = a_done_job(owner)
    client = Client(enforce_csrf_checks=True)
    client.force_login(owner)

    answer = client.delete(f"/api/v1/jobs/{job.pk}/")

    assert answer.status_code == 403
    assert "CSRF" in answer.json()["detail"]
    assert Job.objects.exists()
