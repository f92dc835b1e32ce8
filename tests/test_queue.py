"""Who works on what."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.utils import timezone

from transcription import clock, errors, processes
from transcription.models import Event, Job, Recording, Section, Segment, Worker
from transcription.queue import jobs as queue_jobs
from transcription.queue import sections, sweeper, wakeups
from transcription.queue.sections import SectionClaim
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment as DecodedSegment

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def rung(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which queues were rung, in the place of a broker."""
    queues: list[str] = []
    monkeypatch.setattr(wakeups.current_app, "send_task", lambda name, queue, **_: queues.append(queue))
    return queues


def said(text: str, start: float = 0.0, end: float = 1.0) -> DecodedSegment:
    return DecodedSegment(start, end, text, 0, (1, 2), 0.0, -0.2, 1.1, 0.01)


def part(job: Job, index: int) -> Section:
    """The `index`th ten seconds of a job's recording."""
    start = index * 10.0
    return Section(job=job, index=index, start=start, end=start + 10, spans=[[start, start + 10]], seconds=10)


def open_section(job: Job, worker: Worker, *, count: int = 1) -> SectionClaim:
    """Bring a job to transcribing with `count` sections of 10 s, and claim the first."""
    prepared = queue_jobs.claim_job(worker)
    assert prepared is not None
    prepared.store_sections([part(job, index) for index in range(count)], language="en")
    claim = sections.claim_section(worker)
    assert claim is not None
    return claim


def close(claim: SectionClaim, *, seconds: float = 1.0) -> None:
    claim.finish(seconds=seconds, engine="faster-whisper", device="cpu", versions={"faster-whisper": "1"})


def run_out(*kinds: type[Job] | type[Section]) -> None:
    for kind in kinds:
        kind.objects.update(lease_until=timezone.now() - timedelta(seconds=1))


def test_a_claimed_job_is_left_alone(job: Job, worker: Worker) -> None:
    assert queue_jobs.claim_job(worker) is not None
    assert queue_jobs.claim_job(worker) is None


def test_the_claim_moves_the_job_and_counts_the_attempt(job: Job, worker: Worker) -> None:
    queue_jobs.claim_job(worker)
    job.refresh_from_db()
    assert (job.status, job.attempts, job.worker) == ("preparing", 1, worker)
    assert job.preparing_at is not None


def test_a_job_that_is_to_be_tried_later_is_not_claimed_now(job: Job, worker: Worker) -> None:
    Job.objects.update(next_attempt_at=timezone.now() + timedelta(seconds=30))
    assert queue_jobs.claim_job(worker) is None


def test_preparing_opens_the_sections_and_rings_the_devices(job: Job, worker: Worker, rung: list[str]) -> None:
    open_section(job, worker, count=2)
    job.refresh_from_db()
    assert (job.status, job.claim, job.attempts) == ("transcribing", None, 0)
    assert rung == ["device.cpu"]


def test_a_stolen_lease_refuses_the_first_owners_writes(job: Job, worker: Worker) -> None:
    first = open_section(job, worker)
    run_out(Section)
    sweeper.sweep()
    second = sections.claim_section(worker)
    assert second is not None
    with pytest.raises(errors.LeaseLost):
        first.store_segment(0, said(" late"), transcribed=1.0)
    with pytest.raises(errors.LeaseLost):
        close(first)
    first.release()
    first.retry(errors.RunnerDied(attempts=1))
    second.store_segment(0, said(" in time"), transcribed=1.0)
    assert [segment.text for segment in Segment.objects.all()] == [" in time"]


def test_a_section_taken_up_again_keeps_its_segments(job: Job, worker: Worker) -> None:
    open_section(job, worker).store_segment(0, said(" half"), transcribed=1.0)
    kept = Segment.objects.get().pk
    run_out(Section)
    sweeper.sweep()
    again = sections.claim_section(worker)
    assert again is not None
    again.store_segment(1, said(" whole"), transcribed=2.0)
    assert list(Segment.objects.order_by("index").values_list("pk", "text"))[0] == (kept, " half")
    assert Segment.objects.count() == 2


def test_other_sections_wait_until_the_first_has_said_the_language(job: Job, worker: Worker) -> None:
    prepared = queue_jobs.claim_job(worker)
    assert prepared is not None
    prepared.store_sections([part(job, index) for index in range(3)])
    first = sections.claim_section(worker)
    assert first is not None
    assert sections.claim_section(worker) is None
    first.store_language("ru", 0.98)
    assert sections.claim_section(worker) is not None
    job.refresh_from_db()
    assert (job.language, job.language_probability) == ("ru", 0.98)


def test_a_recording_without_speech_goes_on_to_be_finished(job: Job, worker: Worker, rung: list[str]) -> None:
    prepared = queue_jobs.claim_job(worker)
    assert prepared is not None
    prepared.store_sections([])
    job.refresh_from_db()
    assert job.status == "finishing"
    assert "default" in rung


def queued(owner: User, seconds: float, *, sections: int = 1, priority: int = 0, latest_start: float = 3600) -> Job:
    """A job of a recording of so many seconds, open to the device workers; its latest start in seconds from now."""
    recording = Recording.objects.create(owner=owner, original_name="a", bytes=1, sha256="0" * 64, duration=seconds)
    options = TranscriptionOptions().to_json()
    job = Job.objects.create(
        owner=owner, recording=recording, name="a", model="nano", options=options, status="transcribing", language="en",
        priority=priority, latest_start=clock.after(latest_start),
    )  # fmt: skip
    Section.objects.bulk_create([part(job, index) for index in range(sections)])
    return job


def turns(worker: Worker) -> list[Job]:
    """The jobs in the order in which their sections are claimed and done."""
    order = []
    while (claim := sections.claim_section(worker)) is not None:
        order.append(Section.objects.get(pk=claim.section).job)
        close(claim)
    return order


def test_users_take_turns(alice: User, bob: User, worker: Worker) -> None:
    lecture, talk = queued(alice, 600, sections=3), queued(bob, 600, sections=2)
    assert turns(worker) == [lecture, talk, lecture, talk, lecture]


def test_a_voice_message_overtakes_its_owners_lecture_at_the_next_section(alice: User, worker: Worker) -> None:
    lecture = queued(alice, 10_000, sections=3)
    first = sections.claim_section(worker)
    message = queued(alice, 4)
    assert first is not None
    close(first)
    assert turns(worker) == [message, lecture, lecture]


def test_high_priority_goes_before_everybodys_turn(alice: User, bob: User, worker: Worker) -> None:
    low, normal, high = queued(alice, 5, priority=-1), queued(bob, 50), queued(alice, 500, sections=2, priority=1)
    assert turns(worker) == [high, high, normal, low]


def test_users_take_turns_with_many_recordings(alice: User, bob: User, worker: Worker) -> None:
    for seconds in range(100, 110):
        queued(alice, seconds)
    message = queued(bob, 600)
    assert turns(worker).index(message) <= 1


def to_prepare(owner: User, size: int, *, priority: int = 0, latest_start: float = 3600) -> Job:
    """A queued job of a file of so many bytes; its latest start in seconds from now."""
    recording = Recording.objects.create(owner=owner, original_name="a", bytes=size, sha256="0" * 64)
    options = TranscriptionOptions().to_json()
    return Job.objects.create(
        owner=owner, recording=recording, name="a", model="nano", options=options, priority=priority,
        latest_start=clock.after(latest_start),
    )  # fmt: skip


def prepared_in_order(worker: Worker, *, most_bytes: int | None = None) -> list[Job]:
    order = []
    while (claim := queue_jobs.claim_job(worker, most_bytes=most_bytes)) is not None:
        order.append(Job.objects.get(pk=claim.job))
    return order


def test_preparing_takes_turns_too(alice: User, bob: User, worker: Worker) -> None:
    film, lecture, message = to_prepare(alice, 900), to_prepare(alice, 90), to_prepare(bob, 500)
    urgent = to_prepare(bob, 5000, priority=1)
    # Bob's turn is over with the urgent one, so alice is next; then bob was served before her.
    assert prepared_in_order(worker) == [urgent, lecture, message, film]


def test_a_job_is_overtaken_until_its_latest_start(alice: User, worker: Worker) -> None:
    minute, clips = queued(alice, 60, latest_start=-1), [queued(alice, 5), queued(alice, 5)]
    assert turns(worker) == [minute, *clips]


def test_of_jobs_that_are_overtaken_no_more_the_first_submitted_goes_first(alice: User, worker: Worker) -> None:
    lecture, clip, talk = queued(alice, 900, latest_start=-1), queued(alice, 5, latest_start=-9), queued(alice, 90)
    assert turns(worker) == [lecture, clip, talk]


def test_a_latest_start_changes_neither_other_users_turns_nor_priorities(
    alice: User, bob: User, worker: Worker
) -> None:
    lecture, talk = queued(alice, 900, sections=2, latest_start=-1), queued(bob, 90, sections=2)
    urgent = queued(alice, 9000, priority=1)
    assert turns(worker) == [urgent, talk, lecture, talk, lecture]


def test_preparing_overtakes_until_the_latest_start_too(alice: User, worker: Worker) -> None:
    film, message = to_prepare(alice, 900, latest_start=-1), to_prepare(alice, 9)
    assert prepared_in_order(worker) == [film, message]


def test_the_latest_start_is_put_off_by_the_decoding_time(job: Job, worker: Worker) -> None:
    before = job.latest_start
    claim = queue_jobs.claim_job(worker)
    assert claim is not None
    claim.store_sections([part(job, 0)], decoding_seconds=7)
    job.refresh_from_db()
    assert job.latest_start - before == timedelta(seconds=7 * queue_jobs.PATIENCE_FACTOR)


def test_a_job_that_is_tried_again_is_patient_again(job: Job, worker: Worker) -> None:
    Job.objects.update(latest_start=clock.after(-3600))
    queue_jobs.cancel(job.pk)
    queue_jobs.retry(job.pk)
    job.refresh_from_db()
    assert job.latest_start > timezone.now()


def test_a_thread_kept_for_small_files_leaves_large_ones_alone(alice: User, worker: Worker) -> None:
    film, message = to_prepare(alice, 900), to_prepare(alice, 9)
    assert prepared_in_order(worker, most_bytes=100) == [message]
    assert prepared_in_order(worker) == [film]


def test_a_full_disk_is_waited_for_and_never_fails_a_job(job: Job, worker: Worker) -> None:
    for _ in range(5):
        claim = queue_jobs.claim_job(worker)
        assert claim is not None
        claim.retry(errors.DiskFull())
        job.refresh_from_db()
        assert (job.status, job.attempts, job.waiting_for) == ("queued", 0, "disk_full")
        assert job.next_attempt_at > timezone.now()
        Job.objects.update(next_attempt_at=timezone.now())
    assert [event.kind for event in Event.objects.all()] == ["waiting"]
    open_section(job, worker)
    job.refresh_from_db()
    assert (job.status, job.waiting_for) == ("transcribing", "")


def test_a_disk_that_fills_up_while_decoding_is_waited_for(job: Job, worker: Worker) -> None:
    claim = open_section(job, worker)
    claim.retry(errors.DiskFull())
    job.refresh_from_db()
    section = Section.objects.get()
    assert (job.status, job.waiting_for, section.status, section.attempts) == (
        "transcribing", "disk_full", "queued", 0,
    )  # fmt: skip
    Section.objects.update(next_attempt_at=timezone.now())
    again = sections.claim_section(worker)
    assert again is not None
    again.store_progress(1.0)
    job.refresh_from_db()
    assert job.waiting_for == ""


def test_the_turn_is_decided_in_one_query(
    alice: User, worker: Worker, django_assert_num_queries: Callable[[int], AbstractContextManager[object]]
) -> None:
    queued(alice, 5)
    with django_assert_num_queries(5):  # which one; the conditional update and whose turn it was, in a transaction
        sections.claim_section(worker)


def test_storing_a_segment_moves_the_progress(job: Job, worker: Worker) -> None:
    claim = open_section(job, worker, count=2)
    claim.store_segment(0, said(" five", 0.0, 5.0), transcribed=5.0)
    job.refresh_from_db()
    assert job.progress == pytest.approx(0.25)


def test_progress_without_a_segment_moves_it_too_and_never_back(job: Job, worker: Worker) -> None:
    claim = open_section(job, worker)
    claim.store_progress(7.0)
    claim.store_progress(6.0)
    job.refresh_from_db()
    assert job.progress == pytest.approx(0.7)


def test_only_the_last_section_hands_the_job_on(job: Job, worker: Worker, rung: list[str]) -> None:
    first = open_section(job, worker, count=2)
    second = sections.claim_section(worker)
    assert second is not None
    close(first, seconds=2)
    job.refresh_from_db()
    assert job.status == "transcribing"
    close(second, seconds=3)
    job.refresh_from_db()
    assert (job.status, job.processing_seconds, job.progress) == ("finishing", 5, 1)
    assert rung == ["device.cpu", "default"]


def test_a_finished_job_is_claimed_once_and_ends_done(job: Job, worker: Worker) -> None:
    close(open_section(job, worker))
    claim = queue_jobs.claim_finished_job(worker)
    assert claim is not None
    assert queue_jobs.claim_finished_job(worker) is None
    claim.finish(text="Hello.")
    job.refresh_from_db()
    assert (job.status, job.text) == ("done", "Hello.")
    with pytest.raises(errors.LeaseLost):
        claim.finish(text="Again.")


def test_giving_back_on_stop_costs_no_attempt(job: Job, worker: Worker) -> None:
    open_section(job, worker).release()
    section = Section.objects.get()
    assert (section.status, section.attempts, section.claim) == ("queued", 0, None)


def test_a_job_given_back_while_preparing_is_queued_again(job: Job, worker: Worker) -> None:
    claim = queue_jobs.claim_job(worker)
    assert claim is not None
    claim.release()
    job.refresh_from_db()
    assert (job.status, job.attempts) == ("queued", 0)


def test_the_second_attempt_comes_at_once_and_the_third_waits(job: Job, worker: Worker) -> None:
    open_section(job, worker).retry(errors.RunnerDied(attempts=1))
    again = sections.claim_section(worker)
    assert again is not None
    again.retry(errors.RunnerDied(attempts=2))
    assert sections.claim_section(worker) is None
    Section.objects.update(next_attempt_at=timezone.now())
    assert sections.claim_section(worker) is not None


def test_the_last_attempt_fails_the_job_and_keeps_its_text(job: Job, worker: Worker, settings: LazySettings) -> None:
    settings.MAX_ATTEMPTS = 1
    claim = open_section(job, worker)
    claim.store_segment(0, said(" so far"), transcribed=1.0)
    claim.retry(errors.RunnerDied(attempts=1))
    job.refresh_from_db()
    assert (job.status, job.error_code) == ("failed", "runner_died")
    assert "crashed 1 times" in job.error_message
    assert Segment.objects.get().text == " so far"


@pytest.mark.parametrize(
    "problem",
    [errors.NoAudio(), errors.ModelMissing(name="base", files="model.bin", folder="models"), errors.FFmpegMissing()],
)
def test_what_does_not_pass_by_itself_fails_at_once(job: Job, worker: Worker, problem: errors.Problem) -> None:
    claim = queue_jobs.claim_job(worker)
    assert claim is not None
    claim.retry(problem)
    job.refresh_from_db()
    assert (job.status, job.error_code) == ("failed", problem.code)


def test_a_job_that_has_ended_stays_as_it_is(job: Job, worker: Worker) -> None:
    Job.move(job.pk, Job.Status.DONE, since=Job.UNFINISHED)
    assert not queue_jobs.fail(job.pk, errors.NoAudio())
    job.refresh_from_db()
    assert (job.status, job.error_code) == ("done", "")


def test_an_ended_job_leaves_no_decoded_sound(job: Job, worker: Worker) -> None:
    job.pcm_path.parent.mkdir(parents=True, exist_ok=True)
    left = [job.pcm_path, job.pcm_path.with_suffix(".pcm.part")]
    for path in left:
        path.write_bytes(b"00")
    queue_jobs.fail(job.pk, errors.NoAudio())
    assert not any(path.exists() for path in left)


def test_a_lease_that_ran_out_while_preparing_is_returned(job: Job, worker: Worker) -> None:
    queue_jobs.claim_job(worker)
    run_out(Job)
    sweeper.sweep()
    job.refresh_from_db()
    assert (job.status, job.claim, job.attempts) == ("queued", None, 1)


def test_a_lease_that_ran_out_while_finishing_can_be_claimed_again(job: Job, worker: Worker) -> None:
    close(open_section(job, worker))
    queue_jobs.claim_finished_job(worker)
    run_out(Job)
    sweeper.sweep()
    assert queue_jobs.claim_finished_job(worker) is not None


def test_a_section_that_always_loses_its_worker_fails_its_job(job: Job, worker: Worker, settings: LazySettings) -> None:
    settings.MAX_ATTEMPTS = 2
    open_section(job, worker)
    run_out(Section)
    sweeper.sweep()
    sections.claim_section(worker)
    run_out(Section)
    sweeper.sweep()
    job.refresh_from_db()
    assert (job.status, job.error_code) == ("failed", "runner_died")


def test_a_lease_that_is_renewed_is_not_swept(job: Job, worker: Worker) -> None:
    claim = open_section(job, worker)
    run_out(Section)
    claim.renew()
    sweeper.sweep()
    assert Section.objects.get().claim == claim.token


@pytest.mark.parametrize("turn", [SectionClaim.renew, lambda claim: close(claim, seconds=1)])
def test_a_late_sign_of_life_saves_the_job_from_a_sweep_under_way(
    job: Job, worker: Worker, settings: LazySettings, turn: Callable[[SectionClaim], None]
) -> None:
    settings.MAX_ATTEMPTS = 1
    claim = open_section(job, worker)
    run_out(Section)
    lost = list(Section.objects.all())
    turn(claim)
    for section in lost:
        sweeper._sweep_section(section)
    job.refresh_from_db()
    assert job.status in ("transcribing", "finishing")


def test_a_job_that_always_loses_its_worker_fails(job: Job, worker: Worker, settings: LazySettings) -> None:
    settings.MAX_ATTEMPTS = 1
    queue_jobs.claim_job(worker)
    run_out(Job)
    lost = list(Job.objects.all())
    Job.objects.update(lease_until=timezone.now() + timedelta(minutes=1))
    for job_lost in lost:
        sweeper._sweep_job(job_lost)
    job.refresh_from_db()
    assert job.status == "preparing"  # renewed since
    run_out(Job)
    sweeper.sweep()
    job.refresh_from_db()
    assert (job.status, job.error_code) == ("failed", "worker_lost")


def at_home(worker: Worker, pid: int, **facts: object) -> None:
    """Have a worker be process `pid` of this machine."""
    known: dict[str, object] = {"hostname": sweeper.socket.gethostname(), "pid_namespace": processes.namespace()}
    Worker.objects.filter(pk=worker.pk).update(pid=pid, **{**known, **facts})


def test_a_dead_process_of_this_machine_is_not_waited_for(job: Job, worker: Worker) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    at_home(worker, child.pid)
    open_section(job, worker)
    sweeper.sweep()
    assert Section.objects.get().status == "queued"
    assert not Worker.objects.exists()


def test_a_living_process_of_this_machine_keeps_its_work(job: Job, worker: Worker) -> None:
    at_home(worker, os.getpid(), pid_started=processes.started(os.getpid()))
    claim = open_section(job, worker)
    sweeper.sweep()
    assert Section.objects.get().claim == claim.token


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac does not say when a process was started")
def test_a_process_that_has_a_dead_ones_number_is_not_taken_for_it(job: Job, worker: Worker) -> None:
    at_home(worker, os.getpid(), pid_started=processes.started(os.getpid()) - 1)
    open_section(job, worker)
    sweeper.sweep()
    assert Section.objects.get().status == "queued"


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has no PID namespaces")
@pytest.mark.parametrize("namespace", ["", "another boot pid:[4026531836]"])
def test_a_worker_whose_number_says_nothing_here_is_waited_for(job: Job, worker: Worker, namespace: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    at_home(worker, child.pid, pid_namespace=namespace)  # none: its row was written by an older version
    claim = open_section(job, worker)
    sweeper.sweep()
    assert Section.objects.get().claim == claim.token
    run_out(Section)
    sweeper.sweep()
    assert Section.objects.get().status == "queued"


def test_work_that_nobody_looked_at_is_rung_for_once(job: Job, rung: list[str]) -> None:
    Job.objects.update(rung_at=timezone.now() - timedelta(minutes=1))
    sweeper.sweep()
    sweeper.sweep()
    assert rung == ["default"]


@pytest.mark.parametrize("error", [wakeups.OperationalError("no broker"), ValueError("a file cut short")])
def test_a_broker_that_is_down_fails_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(wakeups.current_app, "send_task", refuse)
    wakeups.ring("default")


def test_each_turn_is_an_event(job: Job, worker: Worker) -> None:
    close(open_section(job, worker))
    claim = queue_jobs.claim_finished_job(worker)
    assert claim is not None
    claim.finish(text="")
    assert list(Event.objects.order_by("id").values_list("kind", flat=True)) == ["transcribing", "finishing", "done"]


def test_a_claim_of_a_deleted_job_is_lost(job: Job, worker: Worker) -> None:
    claim = open_section(job, worker)
    job.delete()
    with pytest.raises(errors.LeaseLost):
        claim.renew()


@pytest.mark.parametrize("status", ["queued", "preparing", "transcribing", "finishing"])
def test_a_job_can_be_cancelled_in_every_unfinished_state(job: Job, worker: Worker, status: str) -> None:
    Job.objects.update(status=status)
    assert queue_jobs.cancel(job.pk)
    assert not queue_jobs.cancel(job.pk)
    job.refresh_from_db()
    assert job.status == "cancelled"


def test_a_cancelled_section_refuses_its_workers_writes_and_keeps_its_text(job: Job, worker: Worker) -> None:
    claim = open_section(job, worker)
    claim.store_segment(0, said(" so far"), transcribed=1.0)
    queue_jobs.cancel(job.pk)
    with pytest.raises(errors.LeaseLost):
        claim.renew()
    assert sections.claim_section(worker) is None
    assert Segment.objects.get().text == " so far"


def test_a_cancelled_job_that_is_tried_again_goes_on_from_what_it_has(job: Job, worker: Worker) -> None:
    done = open_section(job, worker, count=2)
    done.store_segment(0, said(" first"), transcribed=10.0)
    close(done, seconds=1)
    queue_jobs.cancel(job.pk)
    assert queue_jobs.retry(job.pk)
    again = queue_jobs.claim_job(worker)
    assert again is not None
    again.store_sections([])
    rest = sections.claim_section(worker)
    assert rest is not None
    assert Section.objects.get(pk=rest.section).index == 1
    assert sections.claim_section(worker) is None
    job.refresh_from_db()
    assert (job.status, job.progress) == ("transcribing", 0.5)
    assert Segment.objects.get().text == " first"


def test_a_failed_job_loses_its_error_when_it_is_tried_again(job: Job, worker: Worker) -> None:
    queue_jobs.fail(job.pk, errors.OutOfMemory())
    assert queue_jobs.retry(job.pk)
    job.refresh_from_db()
    assert (job.status, job.error_code, job.attempts, job.finished_at) == ("queued", "", 0, None)


@pytest.mark.parametrize("status", ["queued", "transcribing", "done"])
def test_only_what_failed_or_was_cancelled_is_tried_again(job: Job, status: str) -> None:
    Job.objects.update(status=status)
    assert not queue_jobs.retry(job.pk)
