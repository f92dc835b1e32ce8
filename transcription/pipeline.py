"""From a recording on disk to a stored transcript, in three steps that any worker may take up after another's death.

`prepare` asks FFmpeg what the recording is and has it decoded to PCM, then stores its sections. `transcribe` has a
section decoded by the device's engine and stores each segment as it comes. `finish` joins the text. Each step holds a
claim; losing it (LeaseLost) means that somebody else has the work now, and ends the step without a trace.
"""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db.models import F

from transcription import audio, catalogue, devices, errors, queue
from transcription.models import Job, Recording, Section, Segment
from transcription.queue import JobClaim, SectionClaim
from transcription.whisper.engine import Event, Sound
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment as DecodedSegment


def prepare(claim: JobClaim, stopping: threading.Event) -> None:
    """Probe and decode a queued job's recording and store its sections. Raises what is wrong with it."""
    started = time.monotonic()
    job = Job.objects.select_related("recording").get(pk=claim.job)
    model = catalogue.find(job.model, devices.engine().name)
    probe = _probe(job.recording)
    lease = _Lease(claim, probe.duration)
    seconds = audio.decode(
        job.recording.path,
        job.pcm_path,
        max_seconds=settings.MAX_DURATION_SECONDS,
        on_progress=lease.decoded,
        should_stop=stopping.is_set,
    )
    try:
        _store_sound(job, probe, seconds)
        queue.prepared(
            claim,
            [Section(job=job, index=0, start=0.0, end=seconds)],
            warnings=["input_truncated"] if audio.is_truncated(probe.duration, seconds) else [],
            weights_sha256=catalogue.weights_sha256(model),
            processing_seconds=F("processing_seconds") + time.monotonic() - started,
        )
    except errors.LeaseLost:
        queue.remove_unwanted_pcm(job.pk)  # deleted while FFmpeg worked, thus before there was any to delete
        raise


def _probe(recording: Recording) -> audio.Probe:
    """Ask FFmpeg what the recording is, and store the answer."""
    probe = audio.probe(recording.path, name=recording.original_name)
    Recording.objects.filter(pk=recording.pk).update(
        container=probe.container[:60],
        codec=probe.codec[:40],
        sample_rate=probe.sample_rate,
        channels=probe.channels,
        has_video=probe.has_video,
        duration=probe.duration,
    )
    return probe


def _store_sound(job: Job, probe: audio.Probe, seconds: float) -> None:
    """The decoded length is the true one: a header may say anything."""
    Recording.objects.filter(pk=job.recording_id).update(duration=seconds, peaks=audio.peaks(job.pcm_path))


class _Lease:
    """Renews a job's lease and moves its progress while FFmpeg decodes, at most once a second."""

    def __init__(self, claim: JobClaim, duration: float | None) -> None:
        self.claim = claim
        self.duration = duration
        self.renewed = time.monotonic()

    def decoded(self, seconds: float) -> None:
        if time.monotonic() - self.renewed < 1:
            return
        self.renewed = time.monotonic()
        queue.renew_job(self.claim, progress=min(1.0, seconds / self.duration) if self.duration else None)


def transcribe(claim: SectionClaim, runner: devices.Runner, stopping: threading.Event) -> None:
    """Have a section decoded and store what comes of it. Raises Problem, and LeaseLost when it is no longer wanted."""
    started = time.monotonic()
    section = Section.objects.select_related("job").get(pk=claim.section)
    job = section.job
    model = catalogue.find(job.model, devices.engine().name)
    sound = Sound(job.pcm_path, round(section.start * audio.SAMPLE_RATE), round(section.end * audio.SAMPLE_RATE))
    segments = 0
    try:
        decoding = runner.decode(section.pk, sound, model, job.transcription_options, beat=1.0)
        # Closed at once when something goes wrong here: the runner must not go on with what nobody will store.
        with contextlib.closing(decoding):
            for event in decoding:
                if stopping.is_set():
                    raise errors.LeaseLost
                segments += _store(claim, section, segments, event)
    except devices.RunnerExited as error:
        raise errors.RunnerDied(attempts=section.attempts) from error
    queue.section_done(
        claim,
        seconds=time.monotonic() - started,
        engine=devices.engine().name,
        device=runner.device,
        versions=runner.versions,
    )


def _store(claim: SectionClaim, section: Section, index: int, event: Event | None) -> int:
    """Store one event of a section; return how many segments it held."""
    match event:
        case None:
            queue.renew_section(claim)
        case {"event": "language", "language": language, "probability": probability}:
            queue.renew_section(claim)
            Job.objects.filter(pk=section.job_id).update(language=language, language_probability=probability)
        case {"event": "progress", "seconds": seconds}:
            queue.store_progress(claim, seconds)
        case {"event": "segment", "segment": segment}:
            queue.store_segment(claim, index, DecodedSegment.from_json(segment), section.start)
            return 1
        case _:
            _raise_error(event)
    return 0


def finish(claim: JobClaim) -> None:
    """Join the text of a job whose sections are all done."""
    started = time.monotonic()
    texts = Segment.objects.filter(job_id=claim.job).order_by("section__index", "index").values_list("text", flat=True)
    text = "".join(texts).strip()
    queue.finished(claim, text=text, processing_seconds=F("processing_seconds") + time.monotonic() - started)


def transcribe_file(
    source: Path, *, model: str, options: TranscriptionOptions, runner: devices.Runner
) -> Iterator[Event]:
    """Decode a file of this machine without rows or workers, for the command line.

    Gives `{"event": "sound", "duration": seconds}` and then the engine's events. Raises Problem.
    """
    weights = catalogue.find(model, devices.engine().name)
    audio.probe(source, name=source.name)
    with tempfile.TemporaryDirectory(prefix="stenograf-") as folder:
        pcm = Path(folder) / "sound.pcm"
        limit = settings.MAX_DURATION_SECONDS
        seconds = audio.decode(source, pcm, max_seconds=limit, on_progress=_ignore, should_stop=_never)
        yield {"event": "sound", "duration": seconds}
        sound = Sound(pcm, 0, round(seconds * audio.SAMPLE_RATE))
        try:
            for event in runner.decode(0, sound, weights, options, beat=1.0):
                if event is not None:
                    _raise_error(event)
                    yield event
        except devices.RunnerExited as error:
            raise errors.RunnerDied(attempts=1) from error


def _ignore(seconds: float) -> None:
    """Nobody waits for the progress of decoding on the command line."""


def _never() -> bool:
    return False


def _raise_error(event: Event) -> None:
    match event:
        case {"event": "error", "code": "out_of_memory"}:
            raise errors.OutOfMemory
        case {"event": "error", "detail": detail}:
            raise errors.EngineFailed(detail=detail)
