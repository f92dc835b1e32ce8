"""From a recording on disk to a stored transcript, in three steps that any worker may take up after another's death.

`prepare` has FFmpeg say what the recording is and decode it to PCM, then stores its sections. `transcribe` has a
section decoded by the device's engine and stores each segment as it comes. `finish` has the text improved where that
was asked for, and joins it. Each step holds a claim; losing it (LeaseLost) means that somebody else has the work now,
and ends the step without a trace.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet

from transcription import disk, errors, history, logs
from transcription.logs import timed
from transcription.models import Job, Recording, Section, Segment
from transcription.outbound import chat
from transcription.queue import downloads, forecast
from transcription.queue import jobs as queue_jobs
from transcription.queue.downloads import DownloadClaim
from transcription.queue.jobs import JobClaim
from transcription.queue.sections import SectionClaim
from transcription.sound import audio
from transcription.sound.speech import SpeechFinder
from transcription.sound.timeline import Timeline
from transcription.text import edits, enhance
from transcription.weights import catalogue, store
from transcription.whisper import sections
from transcription.whisper.engine import Event, Sound
from transcription.whisper.options import TranscriptionOptions, unknown_options
from transcription.whisper.pcm import BYTES_A_SECOND, SAMPLE_RATE
from transcription.whisper.result import Segment as DecodedSegment
from transcription.whisper.sections import Span
from transcription.workers import devices

SHORTEST_REST = 0.1  # seconds; of less an engine makes nothing
LONGEST_PROMPT = 400  # characters; an engine takes half a window of tokens, and cuts from the left


@timed("preparing")
def prepare(claim: JobClaim, finder: SpeechFinder, stopping: threading.Event) -> None:
    """Probe and decode a queued job's recording and store its sections. Raises what is wrong with it.

    A job whose model is not here waits for it first.
    """
    started = time.monotonic()
    job = Job.objects.select_related("recording").defer("text", "searchable").get(pk=claim.job)
    engine = devices.engine().name
    if catalogue.on_disk(job.model, engine) is None and store.can_fetch(job.model, engine):
        downloads.wait_for_model(claim)
        return
    model = catalogue.find(job.model, engine)
    lease = _Lease(claim, job.recording, stopping)
    seconds = audio.decode(
        job.recording.path,
        job.pcm_path,
        name=job.recording.original_name,
        container=job.recording.container,
        max_seconds=settings.MAX_DURATION_SECONDS,
        tempo=job.transcription_options.up_speed,
        on_probe=lease.probed,
        on_progress=lease.decoded,
        should_stop=stopping.is_set,
    )
    try:
        _store_sound(job, seconds)
        found = _sections(job, seconds, finder, lease.listened)
        claim.store_sections(
            found,
            decoding_seconds=forecast.decoding_seconds(job.model, [section.seconds for section in found]),
            language=job.transcription_options.language or job.language,
            warnings=warnings(job, is_truncated=audio.is_truncated(lease.duration, seconds)),
            weights_sha256=catalogue.weights_sha256(model),
            processing_seconds=F("processing_seconds") + time.monotonic() - started,
        )
    except errors.LeaseLost:
        queue_jobs.remove_unwanted_pcm(job.pk)  # deleted while FFmpeg worked, thus before there was any to delete
        raise


def warnings(job: Job, *, is_truncated: bool) -> list[str]:
    """What the endpoint warned of, and what is found out now."""
    before = [warning for warning in job.warnings if not warning.startswith(("input_truncated", "option_unknown:"))]
    unknown = [f"option_unknown:{name}" for name in unknown_options(job.options)]
    return [*before, *unknown, *(["input_truncated"] if is_truncated else [])]


def _sections(job: Job, seconds: float, finder: SpeechFinder, on_beat: Callable[[float], None]) -> list[Section]:
    """A new job's sections; none for one that is tried again, which has them."""
    if job.sections.exists():
        return []
    found = _cut(job.pcm_path, seconds, job.transcription_options, finder, on_beat)
    return [_row(job, index, section) for index, section in enumerate(found)]


def _cut(
    pcm: Path, seconds: float, options: TranscriptionOptions, finder: SpeechFinder, on_beat: Callable[[float], None]
) -> list[sections.Section]:
    """Find speech where that is wanted, divide the recording, and keep of it what shall be heard."""
    tempo = options.up_speed
    is_uncut = sections.is_uncut(sections=options.sections, vad_filter=options.vad_filter)
    found = [] if is_uncut else finder.find(pcm, on_beat=lambda heard: on_beat(tempo * heard))
    stretches = [(tempo * start, tempo * end) for start, end in found]
    divided = sections.cut(stretches, seconds, sections=options.sections, vad_filter=options.vad_filter)
    return sections.clipped(divided, _clips(pcm, seconds, options))


def _clips(pcm: Path, seconds: float, options: TranscriptionOptions) -> list[Span]:
    """What shall be heard of a recording: the clips that were asked for, without the silence at its ends."""
    first, last = 0.0, seconds
    if options.remove_silence:
        sound = audio.sounding(pcm, threshold=options.silence_threshold, shortest=options.silence_duration)
        first, last = (options.up_speed * end for end in sound)
    edges = (*options.clip_timestamps, seconds)  # an end that is missing is the recording's
    clips = list(zip(edges[::2], edges[1::2], strict=False)) if options.clip_timestamps else [(0.0, seconds)]
    return [(max(start, first), min(end, last)) for start, end in clips]


def _row(job: Job, index: int, section: sections.Section) -> Section:
    return Section(
        job=job,
        index=index,
        start=section.start,
        end=section.end,
        spans=section.spans,
        seconds=section.seconds,
    )


def _store_probe(recording: Recording, probe: audio.Probe) -> None:
    Recording.objects.filter(pk=recording.pk).update(
        container=probe.container[:60],
        codec=probe.codec[:40],
        sample_rate=probe.sample_rate,
        channels=probe.channels,
        has_video=probe.has_video,
        duration=probe.duration,
    )


def _store_sound(job: Job, seconds: float) -> None:
    """The decoded length is the true one: a header may say anything."""
    Recording.objects.filter(pk=job.recording_id).update(duration=seconds, peaks=audio.peaks(job.pcm_path))


class _Lease:
    """Stores what a recording is, and renews its job's lease and moves its progress at most once a second."""

    def __init__(self, claim: JobClaim, recording: Recording, stopping: threading.Event) -> None:
        self.claim = claim
        self.recording = recording
        self.duration: float | None = None  # as the file declares it
        self.heard = 0.0  # seconds that were decoded, which is the truth
        self.stopping = stopping
        self.renewed = time.monotonic()

    def probed(self, probe: audio.Probe) -> None:
        """Raises DiskFull when the decoded sound will not fit."""
        _check_space(settings.RECORDINGS_DIR, probe)
        _store_probe(self.recording, probe)
        self.duration = probe.duration

    def decoded(self, seconds: float) -> None:
        self.heard = seconds
        self._renew(0.5 * seconds / self.duration if self.duration else None)

    def listened(self, seconds: float) -> None:
        self._renew(0.5 + 0.5 * seconds / self.heard if self.heard else None)

    def _renew(self, progress: float | None) -> None:
        if self.stopping.is_set():
            raise errors.LeaseLost
        if time.monotonic() - self.renewed >= 1:
            self.renewed = time.monotonic()
            self.claim.renew(progress=None if progress is None else min(1.0, progress))


@timed("fetching weights")
def fetch(claim: DownloadClaim, stopping: threading.Event) -> None:
    """Bring a model to this machine, and let the jobs go on that wait for it. Raises Problem.

    Raises LeaseLost within a second of nobody's wanting it any more.
    """
    renewed = -math.inf

    def on_progress(done: int, whole: int) -> None:
        nonlocal renewed
        if stopping.is_set():
            raise errors.LeaseLost
        if time.monotonic() - renewed >= 1:
            renewed = time.monotonic()
            claim.renew(progress=min(1.0, done / whole) if whole else 0.0)

    store.fetch(claim.model, devices.engine().name, on_progress=on_progress)
    claim.finish()


def transcribe(claim: SectionClaim, runner: devices.Runner, stopping: threading.Event) -> None:
    """Have a section decoded and store what comes of it, from the last stored segment on.

    Raises Problem, and LeaseLost when it is no longer wanted.
    """
    started = time.monotonic()
    section = Section.objects.select_related("job").get(pk=claim.section)
    work = _Work(claim, section)
    if work.rest.seconds >= SHORTEST_REST:
        _decode(work, runner, stopping)
    claim.finish(
        seconds=time.monotonic() - started,
        engine=runner.capabilities.name,
        device=runner.device,
        versions=runner.versions,
    )


def _decode(work: "_Work", runner: devices.Runner, stopping: threading.Event) -> None:
    model = catalogue.find(work.section.job.model, runner.capabilities.name)
    decoding = runner.decode(work.section.pk, work.sound, model, work.options, beat=1.0)
    alive = time.monotonic()
    try:
        # Closed at once when something goes wrong here: the runner must not go on with what nobody will store.
        with contextlib.closing(decoding):
            for event in decoding:
                if stopping.is_set():
                    raise errors.LeaseLost
                work.store(event)
                if event is not None:
                    alive = time.monotonic()
                elif time.monotonic() - alive > settings.STALL_SECONDS:
                    raise errors.RunnerStalled(seconds=settings.STALL_SECONDS)
    except devices.RunnerExited as error:
        raise errors.RunnerDied(attempts=work.section.attempts) from error


class _Work:
    """What is left of a section: its sound, its options, and where what comes of it belongs."""

    def __init__(self, claim: SectionClaim, section: Section) -> None:
        self.claim = claim
        self.section = section
        stored = list(section.segments.order_by("index").values_list("end", "text"))
        whole = sections.Section(tuple((start, end) for start, end in section.spans))
        self.rest = whole.since(stored[-1][0]) if stored else whole
        self.heard = whole.seconds - self.rest.seconds
        self.segments = len(stored)
        self.options = _going_on(section, "".join(text for _, text in stored))

    @property
    def sound(self) -> Sound:
        return _sound(self.section.job.pcm_path, self.rest, self.options.up_speed)

    @cached_property
    def timeline(self) -> Timeline:
        return Timeline(self.rest.spans, self.options.up_speed)

    def store(self, event: Event | None) -> None:
        """Store one event of the runner's; None is a beat."""
        match event:
            case None:
                self.claim.renew()
            case {"event": "language", "language": language, "probability": probability}:
                self.claim.store_language(language, probability)
            case {"event": "progress", "seconds": seconds}:
                self.claim.store_progress(self.heard + seconds * self.options.up_speed)
            case {"event": "segment", "segment": said}:
                segment = DecodedSegment.from_json(said)
                transcribed = self.heard + segment.end * self.options.up_speed
                restored = self.timeline.restore(segment)
                self.claim.store_segment(self.segments, restored, transcribed=transcribed)
                self.segments += 1
                if self.options.verbose:
                    history.note(self.section.job_id, "decoded", _measures(restored))
            case {"event": "done", "seconds": seconds}:
                logs.say("the engine", seconds)
            case _:
                _raise_error(event)


def _measures(segment: DecodedSegment) -> str:
    """What an engine thought of a segment, in a line."""
    measures = f"logprob {segment.avg_logprob:.2f}, compression {segment.compression_ratio:.2f}"
    times = f"{segment.start:.2f}-{segment.end:.2f} s"
    return f"{times}: temperature {segment.temperature:.1f}, {measures}, no speech {segment.no_speech_prob:.2f}"


def _going_on(section: Section, said: str) -> TranscriptionOptions:
    """A job's options for a section whose beginning may be stored already: what was said is the prompt."""
    asked = section.job.transcription_options
    options = replace(
        asked,
        language=None if asked.multilingual else section.job.language or None,
        prefix=asked.prefix if section.index == 0 and not said else None,
    )
    if not said:
        return options
    return replace(options, initial_prompt=f"{options.initial_prompt or ''} {said.strip()[-LONGEST_PROMPT:]}".strip())


def _sound(pcm: Path, section: sections.Section, tempo: float) -> Sound:
    rate = SAMPLE_RATE / tempo  # samples that stand for a second of the recording
    spans = [(round(start * rate), round(end * rate)) for start, end in section.spans]
    return Sound(pcm, tuple(spans))


@timed("finishing")
def finish(claim: JobClaim, stopping: threading.Event) -> None:
    """Improve the text of a job whose sections are all done, if that was asked for; join it, and close the job.

    A language model that fails costs a warning. Raises LeaseLost.
    """
    started = time.monotonic()
    job = Job.objects.filter(pk=claim.job, claim=claim.token).defer("text", "searchable").first()
    if job is None:
        raise errors.LeaseLost
    warnings = [*job.warnings, *(_improve(claim, job, stopping) if job.is_to_be_improved else [])]
    text = edits.joined(_segments(claim).only("text", "improved_text", "edited_text"))
    seconds = F("processing_seconds") + time.monotonic() - started
    claim.finish(text=text, warnings=warnings, processing_seconds=seconds)


def _segments(claim: JobClaim) -> QuerySet[Segment]:
    return Segment.objects.filter(job_id=claim.job).order_by("section__index", "index")


def _improve(claim: JobClaim, job: Job, stopping: threading.Event) -> list[str]:
    """Have a language model improve what of a job it has not yet; return the warnings. Raises LeaseLost."""

    def beat() -> None:
        if stopping.is_set():
            raise errors.LeaseLost
        claim.renew()

    segments = {segment.pk: segment for segment in _segments(claim).defer("tokens", "words")}
    lines = [enhance.Line(segment.pk, segment.text, segment.improved_text) for segment in segments.values()]
    language = "en" if job.transcription_options.task == "translate" else job.language
    kept = 0
    try:
        if not settings.LLM_BASE_URL:
            raise chat.Unanswered("LLM_BASE_URL is empty")
        for texts in enhance.improve(lines, chat.configured(beat).ask, language=language):
            _store_improved(claim, {segments[pk]: text for pk, text in texts.items()})
            kept += not texts
    except chat.Unanswered as failure:
        history.note(claim.job, "not improved", f"the language model's server failed: {failure}")
        return ["not_improved"]
    if kept:
        history.note(claim.job, "not improved", f"the language model did not answer as it was asked: {kept} times")
    return ["not_improved"] if kept else []


def _store_improved(claim: JobClaim, texts: Mapping[Segment, str]) -> None:
    """Store what became of some segments, and the job's text as it reads with them. Raises LeaseLost."""
    with transaction.atomic():
        claim.renew()
        for segment, text in texts.items():
            segment.improved_text = edits.like(segment, text)
        Segment.objects.bulk_update(texts, ["improved_text"])
        edits.rejoin(claim.job)


def transcribe_file(
    source: Path, *, model: str, options: TranscriptionOptions, runner: devices.Runner
) -> Iterator[Event]:
    """Decode a file of this machine without rows or workers, for the command line.

    Gives `{"event": "sound", "duration": seconds}` and then the engine's events, segments in the recording's time.
    Raises Problem.
    """
    weights = catalogue.find(model, runner.capabilities.name)
    with disk.temporary_folder() as folder:
        pcm = folder / "sound.pcm"
        limit = settings.MAX_DURATION_SECONDS
        seconds = audio.decode(
            source,
            pcm,
            name=source.name,
            max_seconds=limit,
            tempo=options.up_speed,
            on_probe=partial(_check_space, folder),
            on_progress=_ignore,
            should_stop=_never,
        )
        yield {"event": "sound", "duration": seconds}
        finder = SpeechFinder()
        try:
            found = _cut(pcm, seconds, options, finder, _ignore)
        finally:
            finder.stop()
        for index, section in enumerate(found):
            for event in _decode_part(index, pcm, section, weights, options, runner):
                if event["event"] == "language" and not options.multilingual:
                    options = replace(options, language=event["language"])
                yield event
            options = replace(options, prefix=None)


def _check_space(folder: Path, probe: audio.Probe) -> None:
    """See that a recording's decoded sound fits onto the disk of `folder`. Raises DiskFull.

    One that does not say how long it is may still meet the end of the disk; FFmpeg then says so.
    """
    # Whatever a file claims, no more than this is decoded.
    seconds = min(probe.duration or 0, settings.MAX_DURATION_SECONDS)
    disk.check(folder, seconds * BYTES_A_SECOND)


def _decode_part(
    index: int,
    pcm: Path,
    section: sections.Section,
    weights: catalogue.LocalModel,
    options: TranscriptionOptions,
    runner: devices.Runner,
) -> Iterator[Event]:
    timeline = Timeline(section.spans, options.up_speed)
    sound = _sound(pcm, section, options.up_speed)
    try:
        for event in runner.decode(index, sound, weights, options, beat=1.0):
            match event:
                case None:
                    continue
                case {"event": "segment", "segment": said}:
                    yield {**event, "segment": timeline.restore(DecodedSegment.from_json(said)).to_json()}
                case _:
                    _raise_error(event)
                    yield event
    except devices.RunnerExited as error:
        raise errors.RunnerDied(attempts=1) from error


def _ignore(said: object) -> None:
    """Nobody waits for what is known of a recording, or for its progress, on the command line."""


def _never() -> bool:
    return False


def _raise_error(event: Event) -> None:
    match event:
        case {"event": "error", "code": "out_of_memory"}:
            raise errors.OutOfMemory
        case {"event": "error", "detail": detail}:
            raise errors.EngineFailed(detail=detail)
