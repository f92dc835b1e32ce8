import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.web.conftest import MakeJob, add_segment
from transcription.models import Job, Section, Worker
from transcription.queue import forecast
from transcription.web import rows

OPTIONS = {"language": "auto", "model": "nano", "task": "transcribe", "beam_size": "5"}


def text_of(response: Any) -> str:
    return str(response.content.decode())


def test_somebody_who_is_not_signed_in_is_led_to_the_login_page(client: Client, db: None) -> None:
    response = client.get("/")
    assert response.status_code == 302
    assert response["Location"] == "/login/?next=/"


def test_a_newcomer_is_told_what_to_do(page: Client, worker: Worker) -> None:
    shown = text_of(page.get("/"))
    assert "Your recordings will be here" in shown
    assert "Transcribe the sample" in shown


def test_the_empty_state_goes_with_the_first_recording(page: Client, make_job: MakeJob) -> None:
    make_job()
    assert "Your recordings will be here" not in text_of(page.get("/"))


def test_another_persons_recordings_are_not_there(client: Client, make_job: MakeJob) -> None:
    job = make_job()
    client.force_login(User.objects.create_superuser("chief"))
    assert job.name not in text_of(client.get("/"))
    for name in ("job", "row", "text", "again", "delete"):
        assert client.get(reverse(name, args=(job.pk,))).status_code == 404, name


def test_a_file_name_may_break_after_an_underscore_and_is_never_markup(page: Client, make_job: MakeJob) -> None:
    make_job(name="<b>one_two")
    assert "&lt;b&gt;one_<wbr>two" in text_of(page.get("/"))


def test_recordings_are_grouped_by_day(page: Client, make_job: MakeJob) -> None:
    make_job("transcribing")
    make_job()
    make_job(created_at=timezone.now() - timedelta(days=1))
    shown = text_of(page.get("/"))
    assert shown.index("<h2>Now</h2>") < shown.index("<h2>Today</h2>") < shown.index("<h2>Yesterday</h2>")


def test_the_day_is_the_one_of_the_browsers_time_zone(page: Client, make_job: MakeJob) -> None:
    make_job(created_at=timezone.now())
    page.cookies["timezone"] = "../../etc/passwd"
    assert "<h2>Today</h2>" in text_of(page.get("/"))
    page.cookies["timezone"] = "Asia/Tokyo"
    tokyo = timezone.now() + timedelta(hours=9)
    assert f">{tokyo:%H:%M}<" in text_of(page.get("/"))


def test_older_recordings_are_on_the_next_page_each_once(page: Client, make_job: MakeJob) -> None:
    at = timezone.now() - timedelta(days=3)
    names = {f"talk {number}" for number in range(rows.PAGE + 3)}
    for name in names:
        make_job(name=name, created_at=at)  # all at one moment: the place must tell them apart
    first = page.get("/")
    older = re.search(r'href="(/\?before=[^"]+)"', text_of(first))
    assert older is not None
    second = page.get(older[1])
    found = [row.job.name for response in (first, second) for group in response.context["groups"] for row in group.rows]
    assert len(found) == len(names)
    assert set(found) == names
    assert not second.context["older"]


def test_a_page_asks_the_database_as_often_for_many_rows_as_for_one(page: Client, make_job: MakeJob) -> None:
    def queries() -> int:
        forecast.forget()
        with CaptureQueriesContext(connection) as asked:
            page.get("/")
        return len(asked)

    def make_jobs(count: int) -> None:
        for _ in range(count):
            make_job(said=("Hello.",))
            make_job("transcribing", said=("Hello.",))

    make_jobs(1)
    few = queries()
    make_jobs(11)
    assert queries() == few


def test_an_unfinished_row_polls_and_an_ended_one_does_not(page: Client, make_job: MakeJob) -> None:
    unfinished, ended = make_job("preparing"), make_job()
    assert "hx-get" in text_of(page.get(reverse("row", args=(unfinished.pk,))))
    assert "hx-get" not in text_of(page.get(reverse("row", args=(ended.pk,))))


def test_a_row_that_looks_the_same_is_not_sent_again(page: Client, make_job: MakeJob, worker: Worker) -> None:
    job = make_job("transcribing", progress=0.1, said=("First words.",))
    address = reverse("row", args=(job.pk,))
    seen = re.search(r"seen=(\w+)", text_of(page.get(address)))
    assert seen is not None
    assert page.get(address, {"seen": seen[1]}).status_code == 204
    add_segment(Section.objects.get(job=job), 1, " More words.")
    assert "More words." in text_of(page.get(address, {"seen": seen[1]}))


def test_a_row_that_ends_is_announced_once(page: Client, make_job: MakeJob) -> None:
    address = reverse("row", args=(make_job().pk,))
    assert "the transcript is ready" in text_of(page.get(address, {"seen": "another"}))
    assert "the transcript is ready" not in text_of(page.get(address))


def test_a_row_asked_for_after_signing_out_does_not_get_a_login_page(client: Client, make_job: MakeJob) -> None:
    assert client.get(reverse("row", args=(make_job().pk,))).status_code == 401


def test_a_failed_row_says_why_in_the_readers_language(page: Client, make_job: MakeJob) -> None:
    make_job("failed", error_code="no_audio")
    assert "The file has no sound track." in text_of(page.get("/"))
    page.cookies["django_language"] = "ru"
    assert "В файле нет звуковой дорожки." in text_of(page.get("/"))


def test_nobody_to_transcribe_is_said(page: Client, make_job: MakeJob, worker: Worker) -> None:
    make_job("queued")
    assert "Nobody can transcribe now" not in text_of(page.get("/"))
    Worker.objects.update(heartbeat_at=timezone.now() - timedelta(minutes=5))
    assert text_of(page.get("/")).count("Nobody can transcribe now") == 2  # above the list and in the row


def test_no_weights_is_said_with_the_folder(page: Client, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr("transcription.weights.catalogue.local_models", list)
    shown = text_of(page.get("/"))
    assert "There is no model on this machine yet" in shown
    assert str(settings.MODELS_DIR) in shown


def test_without_a_script_the_form_takes_several_files(
    page: Client, alice: User, django_capture_on_commit_callbacks: Any
) -> None:
    files = [SimpleUploadedFile(name, b"sound") for name in ("one.mp3", "two.mp3")]
    response = page.post("/", OPTIONS | {"language": "ru", "word_timestamps": "on", "file": files})
    assert response.status_code == 302
    jobs = Job.objects.for_user(alice).order_by("name")
    assert [job.name for job in jobs] == ["one.mp3", "two.mp3"]
    assert jobs[0].transcription_options.language == "ru"
    assert jobs[0].transcription_options.word_timestamps is True
    assert jobs[0].recording.path.read_bytes() == b"sound"


def test_the_form_without_a_file_asks_for_one(page: Client) -> None:
    response = page.post("/", OPTIONS)
    assert response.status_code == 400
    assert "Choose at least one file." in text_of(response)


def test_a_beam_that_is_too_wide_is_refused_at_its_field(page: Client) -> None:
    response = page.post("/", OPTIONS | {"beam_size": "99", "file": SimpleUploadedFile("one.mp3", b"sound")})
    assert response.status_code == 400
    assert 'aria-describedby="id_beam_size_error"' in text_of(response)
    assert not Job.objects.exists()


def test_the_sample_becomes_a_recording_like_any_other(page: Client, alice: User) -> None:
    response = page.post(reverse("sample"), headers={"accept-language": "ru"})
    job = Job.objects.for_user(alice).get()
    assert response["Location"] == reverse("job", args=(job.pk,))
    assert job.name == "sample-ru.ogg"
    assert job.recording.path.stat().st_size == job.recording.bytes > 1000


def test_the_theme_is_kept_in_a_cookie_and_rendered_by_the_server(page: Client) -> None:
    response = page.post(reverse("theme"), {"theme": "dark", "next": "/?before=x"})
    assert response["Location"] == "/?before=x"
    assert 'data-theme="dark"' in text_of(page.get("/"))
    page.post(reverse("theme"), {"theme": ""})
    assert "data-theme" not in text_of(page.get("/"))


def test_the_theme_form_leads_to_no_other_site(page: Client) -> None:
    assert page.post(reverse("theme"), {"theme": "dark", "next": "//evil.example/"})["Location"] == "/"


def test_the_language_is_switched_from_any_page(page: Client) -> None:
    page.post(reverse("set_language"), {"language": "ru", "next": "/"})
    assert "Выбрать файлы" in text_of(page.get("/"))


def test_usual_languages_stand_first_and_the_rest_in_order(page: Client) -> None:
    shown = re.findall(r'<option value="(\w+)"[^>]*>([^<]+)</option>', text_of(page.get("/")).partition("</select>")[0])
    assert [code for code, _name in shown[:3]] == ["auto", "ru", "en"]
    named = [name for code, name in shown[3:] if len(code) <= 3]
    assert named == sorted(named)
    assert len(named) == 98


def given(page: Client, **options: Any) -> Job:
    """The job that the form makes without a script."""
    file = SimpleUploadedFile("talk.mp3", b"sound")
    assert page.post("/", OPTIONS | {"file": file, **options}).status_code == 302
    return Job.objects.latest("created_at")


def test_the_form_begins_with_the_installations_defaults(page: Client, settings: Settings) -> None:
    settings.DEFAULTS = {"language": "ru", "initial_prompt": "Анна", "beam_size": 3, "temperature": (0.4,), "seed": 7}
    shown = text_of(page.get("/"))
    assert '<option value="ru" selected>' in shown
    assert re.search(r'name="initial_prompt" value="Анна"', shown)
    assert re.search(r'name="beam_size" value="3"', shown)
    assert re.search(r'name="temperature" value="0.4"', shown)
    options = given(page, beam_size="4", temperature="0.2").transcription_options
    assert (options.language, options.beam_size, options.temperature, options.seed) == (None, 4, (0.2,), 7)


def test_what_no_engine_here_can_do_is_not_asked_for(page: Client, settings: Settings) -> None:
    settings.ENGINE = "mlx-whisper"
    assert re.search(r'name="beam_size" value="1"[^>]* disabled', text_of(page.get("/")))
    assert given(page).transcription_options.beam_size == 1


def test_a_language_that_the_model_does_not_know_is_said_at_its_field(page: Client, settings: Settings) -> None:
    settings.DEFAULT_MODEL = "base"  # not here, and offered all the same
    file = SimpleUploadedFile("talk.mp3", b"sound")
    response = page.post("/", OPTIONS | {"file": file, "language": "yue", "model": "base"})
    assert response.status_code == 400
    assert "Models that know it: large-v3, turbo." in text_of(response)
    assert not Job.objects.exists()
