"""Models that are fetched because a job waits for them, or somebody asked."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.utils import timezone

from tests.server import wait_until
from transcription import errors, jobs
from transcription.models import Download, Job, Worker
from transcription.queue import downloads, sweeper, wakeups
from transcription.queue import jobs as queue_jobs
from transcription.queue.downloads import DownloadClaim
from transcription.sound.speech import SpeechFinder
from transcription.weights import store
from transcription.workers import pipeline
from transcription.workers.process import WorkerProcess

pytestmark = pytest.mark.django_db(transaction=True)
UNAVAILABLE = errors.WeightsUnavailable(name="base", detail="the hub said: no", files="model.bin", folder="/models")


@pytest.fixture(autouse=True)
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which queues were rung, in the place of a broker."""
    queues: list[str] = []
    monkeypatch.setattr(wakeups.current_app, "send_task", lambda name, queue, **_: queues.append(queue))
    return queues


@pytest.fixture(autouse=True)
def models(settings: LazySettings, tmp_path: Path) -> Path:
    """An empty models folder."""
    settings.MODELS_DIR = tmp_path / "models"
    settings.MODELS_DIR.mkdir()
    return tmp_path / "models"


@pytest.fixture
def job(job: Job) -> Job:
    """One whose model can be fetched."""
    job.model = "base"
    job.save()
    return job


def wait_for_its_model(worker: Worker) -> None:
    claim = queue_jobs.claim_job(worker)
    assert claim is not None
    pipeline.prepare(claim, SpeechFinder(), threading.Event())


def claimed(worker: Worker) -> DownloadClaim:
    claim = downloads.claim_download(worker)
    assert claim is not None
    return claim


def look_at(job: Job) -> tuple[str, float]:
    job.refresh_from_db()
    return job.status, job.progress


def test_a_job_whose_model_is_not_here_waits_for_it_in_nobodys_hands(job: Job, worker: Worker, rung: list[str]) -> None:
    wait_for_its_model(worker)
    assert look_at(job) == ("downloading", 0)
    assert (job.claim, job.worker, job.lease_until, job.attempts) == (None, None, None, 0)
    assert rung == ["default"]
    assert queue_jobs.claim_job(worker) is None
    assert claimed(worker).model == "base"


def test_a_job_whose_model_nobody_has_fails_with_where_to_put_it(job: Job, worker: Worker) -> None:
    Job.objects.update(model="mine")
    with pytest.raises(errors.ModelMissing, match="faster-whisper-mine"):
        wait_for_its_model(worker)


def test_one_fetch_serves_every_job_that_waits(job: Job, worker: Worker, alice: User) -> None:
    wait_for_its_model(worker)
    job.pk = None
    second = Job.objects.create(owner=alice, recording=job.recording, name="b", model="base", options=job.options)
    wait_for_its_model(worker)
    claim = claimed(worker)
    assert downloads.claim_download(worker) is None
    claim.renew(progress=0.4)
    assert set(Job.objects.values_list("status", "progress")) == {("downloading", 0.4)}
    claim.finish()
    assert set(Job.objects.values_list("status", "progress")) == {("queued", 0.0)}
    assert not Download.objects.exists()
    assert queue_jobs.claim_job(worker) is not None
    assert look_at(second)[0] in ("queued", "preparing")


def test_a_fetch_that_nobody_waits_for_any_more_ends(job: Job, worker: Worker) -> None:
    wait_for_its_model(worker)
    claim = claimed(worker)
    claim.renew(progress=0.4)
    jobs.cancel(job)
    assert look_at(job) == ("cancelled", 0)
    with pytest.raises(errors.LeaseLost):
        claim.renew(progress=0.5)
    assert not Download.objects.exists()


def test_what_somebody_asked_for_is_fetched_though_no_job_waits(worker: Worker, rung: list[str]) -> None:
    downloads.request_download("turbo")
    claim = claimed(worker)
    claim.renew(progress=0.5)
    assert Download.objects.get().progress == 0.5
    assert rung == ["default"]


def test_what_was_cancelled_ends_at_the_next_beat(worker: Worker) -> None:
    downloads.request_download("turbo")
    claim = claimed(worker)
    downloads.cancel_download("turbo")
    with pytest.raises(errors.LeaseLost):
        claim.renew(progress=0.5)


def test_what_a_job_waits_for_cannot_be_cancelled(job: Job, worker: Worker) -> None:
    wait_for_its_model(worker)
    downloads.request_download("base")
    downloads.cancel_download("base")
    claimed(worker).renew(progress=0.5)


def test_a_fetch_is_tried_again_and_after_the_last_attempt_fails_its_jobs(
    job: Job, worker: Worker, settings: LazySettings
) -> None:
    wait_for_its_model(worker)
    for _ in range(settings.MAX_ATTEMPTS):
        assert look_at(job) == ("downloading", 0)
        Download.objects.update(next_attempt_at=timezone.now())
        claimed(worker).retry(UNAVAILABLE)
    assert look_at(job)[0] == "failed"
    assert job.error_message.startswith("The weights of base could not be fetched: the hub said: no. Put model.bin")
    assert not Download.objects.exists()


def test_who_asked_for_what_could_not_be_fetched_finds_out_why_and_can_ask_again(
    worker: Worker, settings: LazySettings
) -> None:
    settings.MAX_ATTEMPTS = 1
    downloads.request_download("base")
    claimed(worker).retry(UNAVAILABLE)
    assert "the hub said: no" in Download.objects.get().error_message
    assert downloads.claim_download(worker) is None
    sweeper.sweep()
    assert downloads.claim_download(worker) is None
    downloads.request_download("base")
    assert Download.objects.get().error_message == ""
    assert claimed(worker).model == "base"


def test_a_job_that_waits_for_a_full_disk_says_so(job: Job, worker: Worker) -> None:
    wait_for_its_model(worker)
    claim = claimed(worker)
    claim.retry(errors.DiskFull())
    assert look_at(job)[0] == "downloading"
    assert job.waiting_for == "disk_full"
    Download.objects.update(next_attempt_at=timezone.now())
    claimed(worker).renew(progress=0.1)
    job.refresh_from_db()
    assert job.waiting_for == ""


def test_a_worker_that_stops_gives_its_fetch_back(job: Job, worker: Worker) -> None:
    wait_for_its_model(worker)
    claimed(worker).release()
    assert Download.objects.values_list("attempts", "claim").get() == (0, None)
    claimed(worker)


def test_what_a_dead_worker_fetched_is_taken_up_however_often_they_die(job: Job, worker: Worker) -> None:
    wait_for_its_model(worker)
    for _ in range(9):
        claimed(worker)
        Download.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        sweeper.sweep()
    assert look_at(job)[0] == "downloading"
    claimed(worker)


def test_a_job_that_waits_for_nothing_goes_on(job: Job, worker: Worker) -> None:
    wait_for_its_model(worker)
    Download.objects.all().delete()
    sweeper.sweep()
    assert look_at(job)[0] == "queued"


def test_a_wake_up_that_was_lost_is_sent_again(job: Job, worker: Worker, rung: list[str]) -> None:
    wait_for_its_model(worker)
    rung.clear()
    Download.objects.update(rung_at=timezone.now() - timedelta(minutes=1))
    sweeper.sweep()
    assert rung == ["default"]


def test_a_step_fetches_and_shows_how_far_it_is(job: Job, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_its_model(worker)
    seen = []

    def fetch(name: str, engine: str, *, on_progress: store.Progress) -> None:
        on_progress(25, 100)
        seen.append((name, engine, look_at(job)))

    monkeypatch.setattr(store, "fetch", fetch)
    pipeline.fetch(claimed(worker), threading.Event())
    assert seen == [("base", "faster-whisper", ("downloading", 0.25))]
    assert look_at(job)[0] == "queued"


def test_a_worker_that_is_asked_to_stop_ends_its_fetch(
    job: Job, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_its_model(worker)
    monkeypatch.setattr(store, "fetch", lambda *_, on_progress: on_progress(1, 2))
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(errors.LeaseLost):
        pipeline.fetch(claimed(worker), stopping)


def test_what_is_done_beside_is_done_by_one_thread_at_a_time() -> None:
    process, begun, go_on = WorkerProcess(wakeups.DEFAULT_QUEUE), [], threading.Event()

    def work(_: WorkerProcess) -> None:
        begun.append(threading.current_thread())
        go_on.wait(10)

    for _ in range(3):
        process.run_in_background(work)
    wait_until(lambda: begun, 5)
    assert len(begun) == 1
    go_on.set()
    begun[0].join(5)
    process.run_in_background(work)
    wait_until(lambda: len(begun) == 2, 5)
