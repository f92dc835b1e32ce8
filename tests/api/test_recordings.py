"""A client looks through its recordings, and removes one."""

from django.contrib.auth.models import User
from django.test import Client

from tests.api.rows import a_done_job, a_job, a_recording
from transcription.models import Job, Recording

RECORDINGS = "/api/v1/recordings/"


def test_each_recording_tells_its_jobs(api: Client, owner: User, stranger: User) -> None:
    recording = a_recording(owner)
    older, newer = a_done_job(owner, recording=recording), a_job(owner, recording=recording)
    a_recording(stranger)

    (told,) = api.get(RECORDINGS).json()["results"]

    assert (told["id"], told["original_name"], told["duration"]) == (str(recording.pk), "lecture.mp3", 2.5)
    assert told["jobs"] == [str(newer.pk), str(older.pk)]
    assert api.get(f"{RECORDINGS}{recording.pk}/").json() == told


def test_a_recording_goes_with_all_of_its_jobs(api: Client, owner: User) -> None:
    recording = a_recording(owner)
    for status in ("done", "transcribing"):
        a_job(owner, recording=recording, status=status)
    other = a_job(owner)

    assert api.delete(f"{RECORDINGS}{recording.pk}/").status_code == 204

    assert list(Job.objects.all()) == [other]
    assert list(Recording.objects.all()) == [other.recording]
    assert not recording.path.exists()


def test_anothers_recording_stays(api: Client, stranger: User) -> None:
    recording = a_recording(stranger)

    answer = api.delete(f"{RECORDINGS}{recording.pk}/")

    assert (answer.status_code, answer.json()) == (404, {"detail": "There is no such recording."})
    assert recording.path.exists()


def test_a_list_costs_as_many_queries_however_long(api: Client, owner: User, django_assert_max_num_queries) -> None:  # noqa: ANN001
    for _number in range(10):
        a_done_job(owner)

    with django_assert_max_num_queries(4):  # the key, its use, the recordings, their jobs
        api.get(RECORDINGS)
