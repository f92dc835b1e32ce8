import re
from pathlib import Path
from typing import Any

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.web.conftest import MakeJob, add_segment
from transcription.models import Job, Recording, Section, Segment, Worker
from transcription.web import transcript
from transcription.web.rows import STATES


def text_of(response: Any) -> str:
    return str(response.content.decode())


def test_the_page_has_the_text_the_player_and_every_format(page: Client, make_job: MakeJob) -> None:
    job = make_job(said=(" First.", " Second."), language="en")
    shown = text_of(page.get(reverse("job", args=(job.pk,))))
    assert shown.index("First.") < shown.index("Second.")
    assert reverse("api:audio", args=(job.pk,)) in shown
    for format in ("txt", "srt", "vtt", "tsv", "json"):
        assert f'{reverse("api:transcript", args=(job.pk, format))}"' in shown


def test_words_are_marked_when_their_times_are_known(page: Client, make_job: MakeJob) -> None:
    job = make_job()
    words = [
        {"word": " Hello", "start": 0.5, "end": 1.0, "probability": 0.9},
        {"word": " <Kraft>", "start": 1.0, "end": 1.5, "probability": 0.3},
    ]
    add_segment(Section.objects.get(job=job), 0, " Hello <Kraft>", words)
    page.cookies["django_language"] = "ru"  # times keep their point where people write a comma
    shown = text_of(page.get(reverse("job", args=(job.pk,))))
    assert '<span class="word" data-start="0.50">Hello</span>' in shown
    assert 'is-very-doubtful" data-start="1.00">&lt;Kraft&gt;</span>' in shown


def test_an_ended_page_does_not_poll(page: Client, make_job: MakeJob) -> None:
    assert "hx-get" not in text_of(page.get(reverse("job", args=(make_job().pk,))))


def poll_of(shown: str) -> str:
    found = re.search(r'hx-get="([^"]+)"', shown)
    assert found is not None
    return found[1].replace("&amp;", "&")


def test_only_what_is_new_is_sent_to_a_page_that_is_open(page: Client, make_job: MakeJob, worker: Worker) -> None:
    job = make_job("transcribing", said=(" First.",))
    poll = poll_of(text_of(page.get(reverse("job", args=(job.pk,)))))
    assert page.get(poll).status_code == 204
    add_segment(Section.objects.get(job=job), 1, " Second.")
    news = text_of(page.get(poll))
    assert "First." not in news
    assert "Second." in news
    assert 'hx-swap-oob="beforeend:#section-0"' in news
    assert page.get(poll_of(news)).status_code == 204


def test_an_unfinished_page_follows_the_events_from_where_its_text_ends(page: Client, make_job: MakeJob) -> None:
    job = make_job("transcribing", said=(" First.", " Second."))
    shown = text_of(page.get(reverse("job", args=(job.pk,))))
    newest = job.segments.order_by("pk").last()
    assert newest is not None
    assert f'data-events="{reverse("api:events", args=(job.pk,))}?after={newest.pk}"' in shown


def test_a_page_opened_before_the_sections_gets_places_for_them(page: Client, make_job: MakeJob) -> None:
    job = make_job("preparing")
    Section.objects.all().delete()
    poll = poll_of(text_of(page.get(reverse("job", args=(job.pk,)))))
    add_segment(Section.objects.create(job=job, index=0, start=0, end=60, spans=[[0, 60]], seconds=60), 0, " First.")
    Job.objects.update(status="transcribing")
    news = text_of(page.get(poll))
    assert 'id="transcript" hx-swap-oob="innerHTML"' in news
    assert 'id="section-0"' in news


def test_a_section_that_begins_anew_replaces_what_the_page_has(make_job: MakeJob) -> None:
    job = make_job("transcribing", said=(" Once more.",))
    (part,) = transcript.since(job, "5").parts
    assert part.is_whole
    assert [segment.text for segment in part.segments] == [" Once more."]


def test_a_passage_that_comes_late_is_put_into_its_place(make_job: MakeJob) -> None:
    job = make_job("transcribing", said=(" First.", " Third."))
    late = add_segment(Section.objects.get(), 2, " Second.")
    Segment.objects.filter(pk=late.pk).update(start=1.0)
    (part,) = transcript.since(job, "2").parts
    assert part.is_whole
    assert [segment.text for segment in part.segments] == [" First.", " Second.", " Third."]


def test_another_language_is_marked_and_told_to_the_browser(page: Client, make_job: MakeJob) -> None:
    job = make_job(said=(" Good day.", " Добрый день.", " Bye."), language="en")
    job.segments.filter(index=0).update(language="en")
    job.segments.filter(index=1).update(language="ru")
    shown = text_of(page.get(reverse("job", args=(job.pk,))))
    assert re.findall(r'data-end="[\d.]+" lang="(\w+)"', shown) == ["en", "ru", "en"]
    assert re.findall(r'data-language="(\w+)"', shown) == ["Russian"]


def test_a_job_that_only_detects_the_language_is_not_called_silent(page: Client, make_job: MakeJob) -> None:
    job = make_job(options={"task": "detect"}, language="ru")
    shown = text_of(page.get(reverse("job", args=(job.pk,))))
    assert "Only its language was asked for." in shown
    assert "No speech" not in shown


def test_a_page_learns_that_the_job_has_ended(page: Client, make_job: MakeJob) -> None:
    job = make_job("finishing", said=(" First.",))
    poll = poll_of(text_of(page.get(reverse("job", args=(job.pk,)))))
    Job.objects.update(status="done", text="First.", processing_seconds=368)
    news = text_of(page.get(poll))
    assert "the transcript is ready" in news
    assert "in 6 min 8 s" in news
    assert "hx-get" not in news


def test_a_recording_that_breaks_off_is_said(page: Client, make_job: MakeJob) -> None:
    job = make_job(warnings=["input_truncated"])
    assert "The file breaks off at 1:32:07." in text_of(page.get(reverse("job", args=(job.pk,))))


def test_times_that_cannot_be_believed_are_said(page: Client, make_job: MakeJob) -> None:
    job = make_job(warnings=["timestamps_implausible"])
    assert "Times in this file jump too far ahead" in text_of(page.get(reverse("job", args=(job.pk,))))


def call(make_job: MakeJob, status: str = "done") -> tuple[Job, Section, Section]:
    """A job whose two channels are transcribed apart."""
    job = make_job(status, language="en")
    Section.objects.update(channel=1)
    second = Section.objects.create(job=job, index=1, channel=2, start=1, end=60, spans=[[1, 60]], seconds=59)
    return job, Section.objects.get(index=0), second


def test_two_channels_are_in_the_order_of_time_and_named_where_another_speaks(page: Client, make_job: MakeJob) -> None:
    job, first, second = call(make_job)
    for index, text in enumerate((" Hello.", " Who is it?", " I know.")):
        add_segment(first, index, text)
    add_segment(second, 0, " Anna.")
    Segment.objects.filter(section=second).update(start=3.5, end=4.5)

    page.cookies["django_language"] = "ru"
    shown = text_of(page.get(reverse("job", args=(job.pk,))))

    order = ["Канал 1:", "Hello.", "Who is it?", "Канал 2:", "Anna.", "Канал 1:", "I know."]
    places = re.findall("|".join(map(re.escape, order)), shown[shown.index('id="transcript"') :])
    assert places == order


def test_a_page_of_two_channels_gets_all_of_them_when_one_has_grown(
    page: Client, make_job: MakeJob, worker: Worker
) -> None:
    job, first, second = call(make_job, "transcribing")
    add_segment(first, 0, " Hello.")
    poll = poll_of(text_of(page.get(reverse("job", args=(job.pk,)))))
    assert page.get(poll).status_code == 204
    add_segment(second, 0, " Anna.")

    news = text_of(page.get(poll))

    assert 'hx-swap-oob="innerHTML:#section-0"' in news
    assert news.index("Hello.") < news.index("Anna.")
    assert page.get(poll_of(news)).status_code == 204


def test_tracks_and_channels_are_told_of(page: Client, make_job: MakeJob) -> None:
    job = make_job(warnings=["several_tracks", "channels_differ", "one_channel"], track=2)
    Recording.objects.update(tracks=3, channels=2)

    shown = text_of(page.get(reverse("job", args=(job.pk,))))

    assert "The file has 3 tracks with sound; this is the text of track 2." in shown
    assert "Each of the two channels seems to have its own voice." in shown
    assert "so it was transcribed once." in shown
    assert re.search(r"<dt>Track</dt>\s*<dd>\s*2 of 3\s*</dd>", shown)
    assert re.search(r"<dt>Channels</dt>\s*<dd>2</dd>", shown)


def test_where_the_sound_was_removed_a_sentence_stands_in_place_of_the_player(page: Client, make_job: MakeJob) -> None:
    job = make_job("cancelled", said=(" First.",))
    address = reverse("job", args=(job.pk,))
    assert reverse("retry", args=(job.pk,)) in text_of(page.get(address))
    Recording.objects.update(removed_at=timezone.now())
    shown = text_of(page.get(address))
    assert "The sound is removed, as this server keeps it for a limited time; the text is kept." in shown
    assert "First." in shown
    for gone in ("<audio", 'id="player"', "player.js", reverse("api:audio", args=(job.pk,))):
        assert gone not in shown
    for place in (address, "/"):
        assert reverse("retry", args=(job.pk,)) not in text_of(page.get(place))


def test_a_form_sent_after_the_sound_was_removed_gets_a_sentence(page: Client, make_job: MakeJob) -> None:
    job = make_job("cancelled")
    Recording.objects.update(removed_at=timezone.now())
    shown = text_of(page.post(reverse("retry", args=(job.pk,)), {"from_job": ""}, follow=True))
    assert "The recording is no longer on this machine&#x27;s disk. Give it again." in shown
    job.refresh_from_db()
    assert job.status == "cancelled"


def test_a_status_of_another_version_is_shown_as_it_is_stored(page: Client, make_job: MakeJob) -> None:
    job = make_job("reviewing", said=("Hello.",))
    assert "Its status is `reviewing`, which this version does not know." in text_of(page.get("/"))
    shown = text_of(page.get(reverse("job", args=(job.pk,))))
    assert "<dd>reviewing</dd>" in shown
    assert "Hello." in shown
    assert "Reviewing" in text_of(page.get(reverse("row", args=(job.pk,)), {"seen": "old"}))
    assert "`reviewing`" in text_of(page.get(reverse("text", args=(job.pk,)), {"seen": "old"}))
    assert page.get(reverse("delete", args=(job.pk,))).status_code == 200


def test_text_is_never_markup(page: Client, make_job: MakeJob) -> None:
    job = make_job(said=("<script>alert(1)</script>",), name="<script>x</script>", text="<script>y</script>")
    for address in (*(reverse(name, args=(job.pk,)) for name in ("job", "again", "delete")), "/"):
        assert not re.search(r"<script>[axy]", text_of(page.get(address)))


def test_deleting_asks_once_and_says_what_goes(page: Client, make_job: MakeJob) -> None:
    job = make_job()
    path: Path = job.recording.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"sound")
    asked = text_of(page.get(reverse("delete", args=(job.pk,))))
    assert "2.9\xa0MB" in asked
    assert Job.objects.exists()
    assert page.post(reverse("delete", args=(job.pk,)))["Location"] == "/"
    assert not Job.objects.exists()
    assert not path.exists()
    assert "talk_one.mp3 is deleted." in text_of(page.get("/"))


def test_pages_hold_no_inline_script_and_no_inline_style(page: Client, make_job: MakeJob) -> None:
    job = make_job(said=("Hello.",))
    for address in ("/", *(reverse(name, args=(job.pk,)) for name in ("job", "again", "delete"))):
        shown = text_of(page.get(address))
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", shown)), address
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", shown), address


def test_every_icon_that_is_used_is_in_the_sprite_and_none_is_there_in_vain() -> None:
    root = Path(__file__).parents[2]
    sources = "".join(path.read_text() for folder in ("templates", "static") for path in (root / folder).rglob("*.*"))
    drawn = set(re.findall(r'<symbol id="([\w-]+)"', sources))
    used = set(re.findall(r'{% icon "([\w-]+)"', sources)) | {icon for _state, icon in STATES.values()}
    used |= set(re.findall(r'href="#([\w-]+)"/>', sources)) | {"play", "pause", "copy"}  # the scripts change these
    assert drawn == used
