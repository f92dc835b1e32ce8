"""When each job's turn comes, and when it will be done."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from transcription import clock
from transcription.models import Job, Recording, Section, Worker
from transcription.queue import forecast, sections, wakeups
from transcription.queue.forecast import Speed
from transcription.whisper.options import TranscriptionOptions

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def looked_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(wakeups.current_app, "send_task", lambda *_, **__: None)
    forecast.forget()
    yield
    forecast.forget()


def given(owner: User, seconds: float | None, *, sections: int = 1, status: str = "transcribing", **facts: Any) -> Job:
    """A job of a recording of so many seconds; cut into sections where it is being transcribed."""
    recording = Recording.objects.create(owner=owner, original_name="a", bytes=1, sha256="0" * 64, duration=seconds)
    options = TranscriptionOptions().to_json()
    facts = {"model": "nano", "language": "en", "name": "a", "options": options, **facts}
    facts.setdefault("latest_start", clock.after(3600))
    job = Job.objects.create(owner=owner, recording=recording, status=status, **facts)
    if status in ("transcribing", "done"):
        each = (seconds or 0) / sections
        Section.objects.bulk_create(
            Section(job=job, index=i, start=i * each, end=(i + 1) * each, spans=[], seconds=each)
            for i in range(sections)
        )
    return job


def learned(owner: User, *samples: tuple[float, float], model: str = "nano", device: str = "cpu") -> None:
    """Sections that a device has decoded: seconds of sound, and seconds that it took."""
    job = given(owner, sum(seconds for seconds, _ in samples), status="finished", model=model)
    Job.objects.filter(pk=job.pk).update(status="done")
    for index, (seconds, took) in enumerate(samples):
        Section.objects.create(
            job=job, index=index, start=0, end=seconds, spans=[], seconds=seconds, processing_seconds=took,
            status="done", attempts=1, device=device, finished_at=timezone.now(),
        )  # fmt: skip


def test_nothing_is_foreseen_of_an_empty_queue(db: None) -> None:
    assert forecast.latest() == {}


def test_the_time_left_is_what_the_device_took_for_the_same_model(alice: User, worker: Worker) -> None:
    learned(alice, (100, 10), (50, 5))
    job = given(alice, 200, sections=2)
    assert forecast.latest()[job.pk] == forecast.Forecast(1, pytest.approx(20))


def test_another_models_or_devices_speed_says_nothing(alice: User, worker: Worker) -> None:
    learned(alice, (100, 10), model="base")
    learned(alice, (100, 10), device="cuda:0")
    job = given(alice, 200)
    assert forecast.latest()[job.pk].seconds is None


def test_each_channel_that_is_transcribed_apart_takes_its_time(alice: User, worker: Worker) -> None:
    learned(alice, (100, 10), (50, 5))
    options = TranscriptionOptions(channels="separate").to_json()
    job = given(alice, 200, status="queued", options=options)
    Recording.objects.filter(pk=job.recording_id).update(channels=2)
    mixed = given(alice, 200, status="queued", priority=1)
    Recording.objects.filter(pk=mixed.recording_id).update(channels=2)

    told = forecast.latest()

    assert told[mixed.pk].seconds == pytest.approx(20)
    assert told[job.pk].seconds == pytest.approx(20 + 40)


def test_those_before_it_take_their_time(alice: User, worker: Worker) -> None:
    learned(alice, (100, 10))
    short, long = given(alice, 100), given(alice, 300, sections=3)
    forecasts = forecast.latest()
    assert forecasts[short.pk] == forecast.Forecast(1, pytest.approx(10))
    assert forecasts[long.pk] == forecast.Forecast(2, pytest.approx(40))


def test_a_job_is_foreseen_to_be_overtaken_until_its_latest_start(alice: User, worker: Worker) -> None:
    learned(alice, (30, 10))
    minute = given(alice, 60, latest_start=clock.after(25))
    clips = [given(alice, 5) for _ in range(6)]
    forecasts = forecast.latest()
    # Three clips take 30 s; the minute is one section, which takes 20.
    assert sorted(forecasts, key=lambda job: forecasts[job].position) == [
        job.pk for job in (*clips[:3], minute, *clips[3:])
    ]
    assert forecasts[minute.pk].seconds == pytest.approx(50)


def test_the_decoding_time_is_that_of_the_devices_that_are_alive(alice: User, worker: Worker) -> None:
    assert forecast.decoding_seconds("nano", [100, 50]) == pytest.approx(150 * forecast.UNKNOWN_PACE)
    learned(alice, (100, 10))
    assert forecast.decoding_seconds("nano", [100, 50]) == pytest.approx(15)
    Worker.objects.create(kind="device", queue="device.cpu", device="cpu", hostname="other", pid=2)
    assert forecast.decoding_seconds("nano", [100, 50]) == pytest.approx(7.5)


def test_two_devices_share_the_work(alice: User, worker: Worker) -> None:
    Worker.objects.create(kind="device", queue="device.cpu", device="cpu", hostname="other", pid=2)
    learned(alice, (100, 10))
    job = given(alice, 400, sections=4)
    assert forecast.latest()[job.pk].seconds == pytest.approx(20)


def test_what_is_being_decoded_counts_with_its_rest(alice: User, worker: Worker) -> None:
    learned(alice, (100, 10))
    job = given(alice, 200, sections=2)
    claim = sections.claim_section(worker)
    assert claim is not None
    claim.store_progress(75)
    assert forecast.latest()[job.pk] == forecast.Forecast(0, pytest.approx(2.5 + 10))


def test_a_device_that_has_finished_nothing_is_judged_by_what_it_does(alice: User, worker: Worker) -> None:
    job = given(alice, 200)
    claim = sections.claim_section(worker)
    assert claim is not None
    claim.store_progress(50)
    Section.objects.update(started_at=timezone.now() - timedelta(seconds=10))
    assert forecast.latest()[job.pk].seconds == pytest.approx(30, rel=0.05)


def test_a_jobs_own_sections_know_best(alice: User, worker: Worker) -> None:
    learned(alice, (100, 10))
    job = given(alice, 500, sections=5)
    for _ in range(3):
        claim = sections.claim_section(worker)
        assert claim is not None
        claim.finish(seconds=50, engine="faster-whisper", device="cpu", versions={})
    assert forecast.latest()[job.pk].seconds == pytest.approx(100)


def test_a_job_whose_length_nobody_knows_has_a_place_and_no_time(alice: User, worker: Worker) -> None:
    learned(alice, (100, 10))
    job = given(alice, None, status="queued")
    assert forecast.latest()[job.pk] == forecast.Forecast(1, None)


def test_a_queued_job_counts_with_its_preparing(alice: User, worker: Worker) -> None:
    learned(alice, (100, 10))
    before = Job.objects.get()
    since = timezone.now()
    Job.objects.filter(pk=before.pk).update(preparing_at=since, transcribing_at=since + timedelta(seconds=1))
    job = given(alice, 200, status="queued")
    assert forecast.latest()[job.pk].seconds == pytest.approx(20 + 2)


def test_without_a_worker_there_is_a_place_and_no_time(alice: User) -> None:
    learned(alice, (100, 10))
    job = given(alice, 200)
    assert forecast.latest()[job.pk] == forecast.Forecast(1, None)


def test_a_job_that_waits_for_space_has_no_turn(alice: User, worker: Worker) -> None:
    job = given(alice, 200, status="queued", waiting_for="disk_full")
    assert job.pk not in forecast.latest()


def test_a_short_section_is_not_judged_by_long_ones_alone(alice: User, worker: Worker) -> None:
    learned(alice, (100, 11), (50, 6), (30, 4))
    job = given(alice, 2)
    assert forecast.latest()[job.pk].seconds == pytest.approx(4)


def test_a_long_recording_is_not_judged_by_how_long_a_voice_message_took(alice: User, worker: Worker) -> None:
    learned(alice, (1.5, 2))  # a window of 30 s, most of it empty
    job = given(alice, 600)
    assert forecast.latest()[job.pk].seconds == pytest.approx(40)


@pytest.mark.parametrize(
    ("samples", "speed"),
    [
        ([], None),
        ([(100.0, 50.0)], Speed(0, 0.5)),
        ([(100.0, 50.0), (100.0, 70.0)], Speed(0, 0.6)),
        ([(100.0, 50.0), (200.0, 40.0)], Speed(0, 0.3)),  # the longer the quicker: nobody would believe that
    ],
)
def test_the_line_through_the_samples(samples: list[tuple[float, float]], speed: Speed | None) -> None:
    assert forecast.fit(samples) == speed


@pytest.mark.parametrize("seed", range(12))
def test_the_places_are_those_that_the_claims_then_give(alice: User, bob: User, worker: Worker, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(rng.randrange(2, 9)):
        given(
            rng.choice([alice, bob]),
            rng.choice([5, 90, 600, 9000]),
            sections=rng.randrange(1, 5),
            priority=rng.choice([-1, 0, 0, 1]),
            latest_start=clock.after(rng.choice([-1, 3600, 3600])),
        )
    learned(alice, (100, 10))
    foreseen = sorted(forecasts := forecast.latest(), key=lambda job: forecasts[job].position)
    begun: dict[object, None] = {}
    while (claim := sections.claim_section(worker)) is not None:
        begun.setdefault(Section.objects.get(pk=claim.section).job_id)
        claim.finish(seconds=1, engine="faster-whisper", device="cpu", versions={})
    assert foreseen == list(begun)


def test_the_forecast_costs_the_same_for_many_jobs(
    alice: User, worker: Worker, django_assert_max_num_queries: Callable[[int], AbstractContextManager[object]]
) -> None:
    learned(alice, (100, 10))
    for _ in range(30):
        given(alice, 500, sections=5)
    with django_assert_max_num_queries(8):
        forecast.forecast_now()


def test_who_looks_again_soon_gets_the_same(
    alice: User, worker: Worker, django_assert_num_queries: Callable[[int], AbstractContextManager[object]]
) -> None:
    given(alice, 500)
    forecast.latest()
    with django_assert_num_queries(0):
        forecast.latest()
