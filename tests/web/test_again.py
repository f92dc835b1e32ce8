"""Having a recording transcribed once more, from the pages."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.web.conftest import MakeJob
from transcription import jobs
from transcription.models import Job, Recording
from transcription.whisper.options import TEMPERATURES, TranscriptionOptions

# What a browser sends when nothing is changed in the page of a job with the default options.
UNCHANGED = {"language": "auto", "model": "nano", "task": "transcribe", "beam_size": "5", "temperature": ""}


def text_of(response: Any) -> str:
    return str(response.content.decode())


@pytest.fixture
def before(make_job: MakeJob) -> Job:
    job = make_job(said=(" First.",), text="First.", language="ru")
    job.recording.path.parent.mkdir(parents=True, exist_ok=True)
    job.recording.path.write_bytes(b"sound")
    return job


def asked_for(job: Job, **options: Any) -> Job:
    job.options = TranscriptionOptions(**options).to_json()
    job.save()
    return job


def again(page: Client, before: Job, **changed: Any) -> Job:
    """The new job that the page makes."""
    response = page.post(f"/jobs/{before.pk}/again/", UNCHANGED | changed)
    job = Job.objects.exclude(pk=before.pk).get()
    assert response["Location"] == f"/jobs/{job.pk}/"
    return job


def test_another_track_and_each_channel_apart_can_be_had(page: Client, before: Job) -> None:
    Recording.objects.update(tracks=3, channels=2)
    Job.objects.update(track=2)
    shown = text_of(page.get(f"/jobs/{before.pk}/again/"))
    assert '<option value="2" selected>2</option>' in shown
    assert '<option value="mix" selected>' in shown

    options = again(page, before, track="3", channels="separate").transcription_options

    assert (options.track, options.channels) == (3, "separate")


def test_track_and_channels_stay_open_where_nothing_is_chosen(page: Client, before: Job) -> None:
    Recording.objects.update(tracks=3, channels=2)
    Job.objects.update(track=2)

    options = again(page, before, track="2", channels="mix").transcription_options

    assert (options.track, options.channels) == (None, None)


def test_a_channel_by_its_number_stays(page: Client, before: Job) -> None:
    asked_for(before, channels=2)
    assert '<option value="2" selected>2</option>' in text_of(page.get(f"/jobs/{before.pk}/again/"))

    assert again(page, before, channels="2").transcription_options.channels == 2


def test_the_page_is_filled_in_with_what_was_asked_for(page: Client, before: Job) -> None:
    asked_for(
        before,
        language="de",
        task="translate",
        word_timestamps=True,
        initial_prompt="Кант",
        temperature=(0.25,),
        beam_size=3,
    )
    shown = text_of(page.get(f"/jobs/{before.pk}/again/"))
    assert '<option value="de" selected>' in shown
    assert '<option value="nano" selected>' in shown
    assert '<input type="radio" name="task" value="translate" checked>' in shown
    assert re.search(r'name="word_timestamps"[^>]* checked', shown)
    assert 'value="Кант"' in shown
    assert re.search(r'name="beam_size" value="3"', shown)
    assert re.search(r'name="temperature" value="0.25"[^>]* step="any"', shown)


def test_what_was_not_asked_for_is_the_default(page: Client, before: Job) -> None:
    shown = text_of(page.get(f"/jobs/{before.pk}/again/"))
    assert '<option value="auto" selected>' in shown
    assert re.search(r'name="temperature"(?! value)', shown)


def test_a_new_job_stands_beside_the_old_one(page: Client, before: Job) -> None:
    Job.objects.update(name="Lecture", priority=Job.Priority.LOW)
    job = again(page, before, language="en", beam_size="1")
    assert (job.status, job.name, job.recording, job.priority) == ("queued", "Lecture", before.recording, -1)
    assert job.transcription_options == TranscriptionOptions(language="en", beam_size=1)
    before.refresh_from_db()
    assert (before.status, before.text, before.segments.count()) == ("done", "First.", 1)


def test_what_the_page_does_not_show_stays_as_it_was(page: Client, before: Job) -> None:
    asked_for(before, vad_filter=False, sections=1, temperature=(0.2, 0.8))
    options = again(page, before, temperature="0.2", word_timestamps="on").transcription_options
    assert options == TranscriptionOptions(vad_filter=False, sections=1, temperature=(0.2, 0.8), word_timestamps=True)


@pytest.mark.parametrize(("sent", "tried"), [("0.4", (0.4,)), ("", TEMPERATURES)])
def test_another_temperature_takes_the_place_of_several(
    page: Client, before: Job, sent: str, tried: tuple[float, ...]
) -> None:
    asked_for(before, temperature=(0.2, 0.8))
    assert again(page, before, temperature=sent).transcription_options.temperature == tried


def test_a_model_that_is_not_here_can_be_had_again(page: Client, before: Job) -> None:
    Job.objects.update(model="base")
    assert '<option value="base" selected>base · fetched first, 141' in text_of(page.get(f"/jobs/{before.pk}/again/"))
    assert again(page, before, model="base").model == "base"


def test_a_model_whose_folder_is_gone_gives_way_to_the_default(page: Client, before: Job) -> None:
    Job.objects.update(model="my-own")
    shown = text_of(page.get(f"/jobs/{before.pk}/again/"))
    assert "my-own" not in shown
    assert '<option value="nano" selected>' in shown


def test_a_value_out_of_range_is_refused_at_its_field(page: Client, before: Job) -> None:
    response = page.post(f"/jobs/{before.pk}/again/", UNCHANGED | {"beam_size": "99"})
    assert response.status_code == 400
    assert 'aria-describedby="id_beam_size_error"' in text_of(response)
    assert Job.objects.get() == before


def test_sound_that_is_gone_is_said(page: Client, before: Job) -> None:
    Recording.objects.update(removed_at=timezone.now())
    response = page.post(f"/jobs/{before.pk}/again/", UNCHANGED, follow=True)
    assert response.redirect_chain == [(f"/jobs/{before.pk}/", 302)]
    assert "The recording is no longer on this machine" in text_of(response)
    assert Job.objects.get() == before


def test_another_persons_recording_is_not_there(client: Client, before: Job, bob: User) -> None:
    assert client.get(f"/jobs/{before.pk}/again/")["Location"].startswith("/login/")
    client.force_login(bob)
    assert client.get(f"/jobs/{before.pk}/again/").status_code == 404
    assert client.post(f"/jobs/{before.pk}/again/", UNCHANGED).status_code == 404


@pytest.mark.parametrize("status", Job.Status.values)
def test_it_is_offered_when_the_job_has_ended(page: Client, before: Job, status: str) -> None:
    Job.objects.update(status=status)
    is_offered = f"/jobs/{before.pk}/again/" in text_of(page.get(f"/jobs/{before.pk}/"))
    assert is_offered is (status in Job.ENDED)


def test_it_is_not_offered_without_the_sound(page: Client, before: Job) -> None:
    Recording.objects.update(removed_at=timezone.now())
    assert f"/jobs/{before.pk}/again/" not in text_of(page.get(f"/jobs/{before.pk}/"))


def test_each_transcript_leads_to_the_others(page: Client, before: Job, make_job: MakeJob) -> None:
    other = jobs.again(before.recording, model="base", options=TranscriptionOptions())
    unrelated = make_job()
    shown = text_of(page.get(f"/jobs/{before.pk}/"))
    (listed,) = re.findall(r'<ul class="runs">.*?</ul>', shown, re.DOTALL)
    assert f'<a href="/jobs/{other.pk}/">base</a>' in listed
    assert "queued" in listed
    assert str(before.pk) not in listed
    assert str(unrelated.pk) not in shown
    back = text_of(page.get(f"/jobs/{other.pk}/"))
    assert f'<a href="/jobs/{before.pk}/">nano, Russian</a>' in back


def test_a_transcript_alone_lists_no_others(page: Client, before: Job) -> None:
    assert "Other transcripts" not in text_of(page.get(f"/jobs/{before.pk}/"))


def test_deleting_says_that_the_recording_stays_for_the_others(page: Client, before: Job) -> None:
    path = before.recording.path
    for count in ("1 other transcript.", "2 other transcripts."):
        jobs.again(before.recording, model="nano", options=TranscriptionOptions())
        shown = text_of(page.get(f"/jobs/{before.pk}/delete/"))
        assert f"stays: it has {count}" in shown
        assert "The recording (2.9\xa0MB) and its transcript go" not in shown
    page.post(f"/jobs/{before.pk}/delete/")
    assert path.exists()


def test_deleting_does_not_speak_of_sound_that_is_gone(page: Client, before: Job) -> None:
    Recording.objects.update(removed_at=timezone.now())
    shown = text_of(page.get(f"/jobs/{before.pk}/delete/"))
    assert "This transcript goes from this machine for good" in shown
    assert "MB" not in shown


def test_the_engine_and_the_device_stay_as_asked_for(page: Client, before: Job) -> None:
    Job.objects.update(asked_engine="faster-whisper", asked_device="cpu")
    job = again(page, before)
    assert (job.asked_engine, job.asked_device) == ("faster-whisper", "cpu")
