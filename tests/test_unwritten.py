"""Speech that has no text, and its second try."""

import threading
import wave
from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.server import NANO
from transcription import errors
from transcription.models import BY_TIME, Job, Section, Segment, Worker
from transcription.queue import jobs as queue_jobs
from transcription.queue import sections as queue_sections
from transcription.sound.speech import SpeechFinder
from transcription.whisper import cutting
from transcription.whisper.engine import ENGINES
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.pcm import SAMPLE_RATE
from transcription.whisper.unwritten import is_repeated, to_decode_again, without_text
from transcription.workers import devices, pipeline

ONE, TWO, THREE = (1.0, 4.0), (5.0, 8.0), (20.0, 24.0)
SPEECH = [ONE, TWO, THREE]


def test_speech_with_text_is_not_missed() -> None:
    assert without_text(SPEECH, SPEECH) == []
    assert without_text(SPEECH, [(1.0, 24.0)]) == []
    assert without_text([], []) == []


def test_a_sentence_without_text_is_found_wherever_it_is() -> None:
    assert without_text(SPEECH, [TWO, THREE]) == [ONE]
    assert without_text(SPEECH, [ONE, THREE]) == [TWO]
    assert without_text(SPEECH, [ONE, TWO]) == [THREE]


def test_neighbours_without_text_are_one_passage_a_long_silence_parts_them() -> None:
    assert without_text(SPEECH, []) == [(1.0, 8.0), THREE]


def test_the_ends_of_a_text_may_be_a_little_wrong() -> None:
    assert without_text([(1.0, 4.0)], [(1.9, 3.2)]) == []
    assert without_text([(1.0, 9.0)], [(1.0, 5.0)]) == [(5.3, 9.0)]


def test_a_cough_is_no_sentence_but_short_words_together_are() -> None:
    assert without_text([(1.0, 1.7)], []) == []
    assert without_text([(1.0, 1.6), (2.0, 2.6)], []) == [(1.0, 2.6)]
    assert without_text([(1.0, 1.6), (4.0, 4.6)], []) == []


def test_a_passage_has_silence_beside_it_but_nothing_that_has_text() -> None:
    section = cutting.Section(((0.6, 8.4), (19.6, 24.4)), tuple(SPEECH))
    (passage,) = to_decode_again(section, [ONE, TWO])
    assert (passage.spans, passage.speech) == (((19.6, 24.4),), (THREE,))
    (passage,) = to_decode_again(section, [(1.0, 4.9), THREE])
    assert passage.spans == ((4.9, 8.4),)


def test_what_was_decoded_by_itself_already_is_not_decoded_again() -> None:
    assert to_decode_again(cutting.Section(((0.6, 4.4),), (ONE,)), []) == []
    assert to_decode_again(cutting.Section(((0.0, 9.0),)), []) == []


def test_a_section_has_so_many_second_tries_and_no_more() -> None:
    speech = tuple((10.0 * index, 10.0 * index + 2 + index / 100) for index in range(40))
    again = to_decode_again(cutting.Section(((0.0, 400.0),), speech), [speech[0]])
    assert len(again) == 8
    assert [passage.speech for passage in again] == [(stretch,) for stretch in speech[-8:]]  # the longest


def test_a_second_try_that_repeats_what_is_there_is_known() -> None:
    assert is_repeated(" try again.", "Please, try again!", "")
    assert is_repeated(" Please", "", "please enter")
    assert is_repeated(" … ", "", "")
    assert not is_repeated(" Please enter.", "Please, try again!", "Your number")


# ---------------------------------------------------------------- a job whose engine leaves a sentence out


FORGETFUL = replace(ENGINES["faster-whisper"], module="tests.engines.forgetful")


@pytest.fixture
def runner() -> Iterator[devices.Runner]:
    runner = devices.Runner("cpu", FORGETFUL)
    yield runner
    runner.stop()


@pytest.fixture
def job(job: Job, worker: Worker) -> Job:
    """A prepared job with a sentence three times, and three seconds of silence between."""
    job.recording.path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(NANO / "nano" / "bears.wav")) as bears, wave.open(str(job.recording.path), "wb") as recording:
        recording.setparams(bears.getparams())
        sentence = bears.readframes(bears.getnframes())
        recording.writeframes((sentence + bytes(2 * 3 * SAMPLE_RATE)) * 3)
    return job


def prepare(job: Job, worker: Worker, **asked: object) -> None:
    Job.objects.filter(pk=job.pk).update(options=TranscriptionOptions(**asked).to_json())
    claim, finder = queue_jobs.claim_job(worker), SpeechFinder()
    assert claim is not None
    try:
        pipeline.prepare(claim, finder, threading.Event())
    finally:
        finder.stop()


def transcribe(worker: Worker, runner: devices.Runner, stopping: threading.Event | None = None) -> None:
    claim = queue_sections.claim_section(worker)
    assert claim is not None
    try:
        pipeline.transcribe(claim, runner, stopping or threading.Event())
    except errors.LeaseLost:
        claim.release()
        raise


def finish(job: Job, worker: Worker) -> Job:
    claim = queue_jobs.claim_finished_job(worker)
    assert claim is not None
    pipeline.finish(claim, threading.Event())
    job.refresh_from_db()
    return job


@pytest.mark.django_db(transaction=True)
@pytest.mark.heavy
def test_a_sentence_that_was_left_out_is_decoded_by_itself(job: Job, worker: Worker, runner: devices.Runner) -> None:
    prepare(job, worker, initial_prompt=" Found again.")
    transcribe(worker, runner)
    ended = finish(job, worker)
    assert ended.text == "Sentence 1. Found again. Sentence 3."
    assert ended.warnings == []
    first, second, third = job.segments.order_by(*BY_TIME)
    assert (second.start, second.end) == pytest.approx(Section.objects.get().speech[1], abs=0.01)
    assert first.end < second.start < second.end < third.start


@pytest.mark.django_db(transaction=True)
@pytest.mark.heavy
def test_speech_that_stays_without_text_is_a_warning_with_its_place(
    job: Job, worker: Worker, runner: devices.Runner, client: Client, alice: User
) -> None:
    prepare(job, worker)
    transcribe(worker, runner)
    ended = finish(job, worker)
    assert ended.text == "Sentence 1. Sentence 3."
    (warning,) = ended.warnings
    start, end = map(float, warning.removeprefix("speech_without_text:").split("-"))
    assert (start, end) == pytest.approx(Section.objects.get().speech[1], abs=0.1)
    client.force_login(alice)
    shown = client.get(reverse("job", args=(job.pk,))).content.decode()
    assert f"Speech was heard at 0:0{int(start)}–0:0{int(end)}, but no words could be made out there." in shown


@pytest.mark.django_db(transaction=True)
@pytest.mark.heavy
def test_the_whole_recording_at_once_is_left_to_the_engine(job: Job, worker: Worker, runner: devices.Runner) -> None:
    prepare(job, worker, vad_filter=False, sections=1, initial_prompt=" All of it.")
    assert Section.objects.get().speech is None


class AfterTwoSegments(threading.Event):
    """Set once two segments are stored."""

    def is_set(self) -> bool:
        return Segment.objects.count() >= 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.heavy
def test_a_worker_that_stops_before_the_second_try_leaves_it_to_the_next(
    job: Job, worker: Worker, runner: devices.Runner
) -> None:
    prepare(job, worker, initial_prompt=" Found again.")
    with pytest.raises(errors.LeaseLost):
        transcribe(worker, runner, AfterTwoSegments())
    assert [segment.text for segment in job.segments.order_by(*BY_TIME)] == [" Sentence 1.", " Sentence 3."]
    transcribe(worker, runner)
    assert finish(job, worker).text == "Sentence 1. Found again. Sentence 3."
