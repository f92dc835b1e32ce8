"""A process that does to the queue what its parent says, a line of JSON at a time; several of them race each other."""

import json
import sys
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings

if __name__ == "__main__":
    django.setup()

from celery import current_app
from django.contrib.auth import get_user_model
from django.db.models import DurationField, ExpressionWrapper, F
from django.utils import timezone

from transcription import clock, errors, jobs
from transcription.models import Delivery, Download, Job, Recording, Section, Segment, Worker
from transcription.queue import deliveries, downloads, sections, sweeper
from transcription.queue import jobs as queue_jobs
from transcription.queue.downloads import DownloadClaim
from transcription.queue.jobs import JobClaim
from transcription.queue.sections import SectionClaim
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment as DecodedSegment

SAID = DecodedSegment(0.0, 1.0, " word", 0, (1, 2), 0.0, -0.2, 1.1, 0.01)


class Racer:
    """One worker; `claim` is the last that it won."""

    def __init__(self) -> None:
        # A PID of no namespace: no sweep judges it.
        self.worker = Worker.objects.create(kind="device", queue="device.cpu", device="cpu", hostname="races", pid=1)
        self.claim: Any = None

    # ---------------------------------------------------------------- rows to race for

    def clear(self) -> None:
        for kind in (Delivery, Job, Recording, Download):
            kind.objects.all().delete()

    def make_job(self, status: str, sections: int = 0) -> str:
        """An only job of this status; its sections are of ten seconds."""
        self.clear()
        owner = get_user_model().objects.get_or_create(username="alice")[0]
        recording = Recording.objects.create(owner=owner, original_name="a", bytes=1, sha256="0" * 64, duration=10)
        job = Job.objects.create(
            owner=owner, recording=recording, name="a", model="nano", options=TranscriptionOptions().to_json(),
            status=status, language="en", finishing_at=clock.now(),
        )  # fmt: skip
        Section.objects.bulk_create(
            Section(job=job, index=index, start=0, end=10, spans=[[0, 10]], seconds=10) for index in range(sections)
        )
        return str(job.pk)

    def make_download(self) -> None:
        """Jobs that wait for a model whose download nobody has."""
        job = Job.objects.get(pk=self.make_job("downloading"))
        Job.objects.create(
            owner=job.owner, recording=job.recording, name="b", model="nano", options=job.options, status="downloading"
        )
        Download.objects.create(model="nano")

    def requeue(self) -> None:
        """Let one of the jobs that wait for a model be claimed."""
        first = Job.objects.filter(status="downloading").order_by("created_at").values_list("pk", flat=True)[:1]
        Job.objects.filter(pk=first[0]).update(status="queued", next_attempt_at=clock.now())

    def make_deliveries(self) -> None:
        """Two messages to one address."""
        self.clear()
        owner = get_user_model().objects.get_or_create(username="alice")[0]
        for _ in range(2):
            Delivery.objects.create(owner=owner, url="http://127.0.0.1:9/", type=Delivery.Type.TEST)

    def run_out(self) -> None:
        """Let every lease have ended."""
        for kind in (Job, Section, Download, Delivery):
            kind.objects.exclude(claim=None).update(lease_until=clock.after(-1))

    # ---------------------------------------------------------------- what races

    def win(self, name: str) -> bool:
        """Call one of the queue's claiming functions; return whether it gave a claim."""
        module = next(module for module in (queue_jobs, sections, downloads, deliveries) if hasattr(module, name))
        self.claim = getattr(module, name)(self.worker)
        return self.claim is not None

    def take_over(self) -> int | None:
        """Sweep and claim what was lost; return how many segments there were then, or None."""
        sweeper.sweep()
        return Segment.objects.count() if self.win("claim_section") else None

    def store(self, count: int) -> int:
        """Store segments until the claim is lost; return how many were stored."""
        assert isinstance(self.claim, SectionClaim)
        first = Segment.objects.filter(section=self.claim.section).count()
        for number in range(count):
            try:
                self.claim.store_segment(first + number, SAID, transcribed=1.0)
                self.claim.renew()
            except errors.LeaseLost:
                return number
        return count

    def close(self) -> bool:
        """Close the claimed section, if it is still ours."""
        try:
            self.claim.finish(seconds=1.0, engine="faster-whisper", device="cpu", versions={})
        except errors.LeaseLost:
            return False
        return True

    def prepare(self) -> bool:
        """Open the claimed job, if it is still ours."""
        assert isinstance(self.claim, JobClaim)
        try:
            self.claim.store_sections([])
        except errors.LeaseLost:
            return False
        return True

    def wait_for_model(self) -> bool:
        try:
            downloads.wait_for_model(self.claim)
        except errors.LeaseLost:
            return False
        return True

    def renew_download(self) -> bool:
        assert isinstance(self.claim, DownloadClaim)
        try:
            self.claim.renew(progress=0.5)
        except errors.LeaseLost:
            return False
        return True

    def finish_download(self) -> bool:
        try:
            self.claim.finish()
        except errors.LeaseLost:
            return False
        return True

    def end(self, how: str) -> bool:
        """Cancel, fail or delete the oldest job; return whether this call did it."""
        job = Job.objects.select_related("recording").order_by("created_at").first()
        if job is None:
            return False
        if how == "delete":
            return jobs.delete(job)
        return queue_jobs.cancel(job.pk) if how == "cancel" else queue_jobs.fail(job.pk, errors.NoAudio())

    def sweep(self) -> None:
        sweeper.sweep()

    def renew(self) -> None:
        self.claim.renew()

    def beat(self) -> None:
        """Tell that this worker is alive, as its process does."""
        Worker.objects.filter(pk=self.worker.pk).update(heartbeat_at=clock.now())

    def wait_for_space(self) -> None:
        """Give the claimed section back because the disk is full."""
        self.claim.retry(errors.DiskFull())

    # ---------------------------------------------------------------- what came of it

    def alive(self) -> int:
        return Worker.alive().count()

    def clock_error(self) -> float:
        """Seconds by which this process's clock is ahead of the database's."""
        row = Worker.objects.filter(pk=self.worker.pk).annotate(now=clock.now()).get()
        return (timezone.now() - row.now).total_seconds()

    def lease_left(self) -> float:
        return self._left(F("lease_until"))

    def wait_left(self) -> float:
        return self._left(F("next_attempt_at"))

    def _left(self, until: F) -> float:
        """Seconds of the only section's lease or wait, by the database's clock."""
        left = ExpressionWrapper(until - clock.now(), output_field=DurationField())
        return Section.objects.annotate(left=left).values_list("left", flat=True).get().total_seconds()

    def state(self) -> dict[str, Any]:
        return {
            "jobs": sorted(Job.objects.values_list("status", flat=True)),
            "segments": Segment.objects.count(),
            "claims": sum(kind.objects.exclude(claim=None).count() for kind in (Job, Section, Download, Delivery)),
            "downloads": Download.objects.count(),
        }


def main() -> None:
    current_app.send_task = lambda *_, **__: None  # no broker: who races needs no wake-up
    settings.MAX_ATTEMPTS = 1000
    racer = Racer()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        act: Callable[..., Any] = getattr(racer, name)
        try:
            answer: dict[str, Any] = {"answer": act(*arguments)}
        except Exception as error:  # noqa: BLE001  (whatever it is, such as a deadlock, the parent's test fails of it)
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()
