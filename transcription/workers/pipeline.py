"""From a recording on disk to a stored transcript, in three steps that any worker may continue after another's death.

`prepare` has FFmpeg probe the recording and decode it to PCM, then stores its sections. `transcribe` has the device's
engine decode a section and stores each segment as it comes. `finish` has the text improved if that was asked for, and
joins it. Each step holds a claim. If the claim is lost (LeaseLost), the step stops and stores nothing more.
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet, Sum

from transcription import disk, errors, history, logs
from transcription.logs import timed
from transcription.models import BY_TIME, Job, Recording, Section, Segment
from transcription.outbound import chat
from transcription.queue import downloads, forecast
from transcription.queue import jobs as queue_jobs
from transcription.queue.downloads import DownloadClaim
from transcription.queue.jobs import JobClaim
from transcription.queue.sections import SectionClaim
from transcription.sound import audio
from transcription.sound.decoding import SOUND_WARNINGS, Decoding, Speech, bytes_needed
from transcription.sound.decoding import Sound as DecodedSound
from transcription.sound.speech import Heard, SpeechFinder
from transcription.sound.timeline import Timeline
from transcription.text import edits, enhance
from transcription.weights import catalogue, store
from transcription.whisper import cues, cutting, languages, phantoms, unwritten
from transcription.whisper.cutting import Span
from transcription.whisper.engine import Event, SampleSpans, Sound
from transcription.whisper.options import TranscriptionOptions, unknown_options
from transcription.whisper.pcm import SAMPLE_RATE
from transcription.whisper.result import Segment as DecodedSegment
from transcription.workers import devices

SHORTEST_REST = 0.1  # seconds; from less an engine gets nothing
SPEECH_WITHOUT_TEXT = "speech_without_text:"  # a warning; its places follow
MOST_PLACES = 20  # that it names
LONGEST_PROMPT = 400  # characters; an engine cuts it from the left to half a window of tokens


@timed("preparing")
def prepare(claim: JobClaim, finder: SpeechFinder, stopping: threading.Event) -> None:
    """Probe and decode a queued job's recording and store its sections. Raises Problem, LeaseLost.

    If the job's model is not on this machine but can be fetched, the job waits for it instead.
    """
    started = time.monotonic()
    job = Job.objects.select_related("recording").defer("text", "searchable").get(pk=claim.job)
    engine = devices.engine().name
    if catalogue.on_disk(job.model, engine) is None and store.can_fetch(job.model, engine):
        downloads.wait_for_model(claim)
        return
    model = catalogue.find(job.model, engine)
    options = job.transcription_options
    progress = _PreparingProgress(claim, job.recording, options, stopping)
    speech = Speech(finder, on_beat=lambda searched: progress.on_searched(options.up_speed * searched))
    try:
        sound = Decoding(
            job.recording.path,
            job.pcm_path_of,
            options,
            speech,
            name=job.recording.original_name,
            container=job.recording.container,
            known_track=job.track if job.sections.exists() else None,
            max_seconds=settings.MAX_DURATION_SECONDS,
            on_probe=progress.on_probe,
            on_progress=progress.on_decoded,
            should_stop=stopping.is_set,
        ).run()
        # What was decoded is true: a header may say anything.
        decoded = sound.decoded
        peaks = audio.peaks(sound.whole, decoded.spans, decoded.duration)
        Recording.objects.filter(pk=job.recording_id).update(
            duration=decoded.duration, tracks=sound.tracks, peaks=peaks
        )
        if sound.whole not in sound.pcms.values():
            sound.whole.unlink()
        new_sections = _new_sections(job, sound, speech)
        claim.store_sections(
            new_sections,
            decoding_seconds=forecast.decoding_seconds(job.model, [section.seconds for section in new_sections]),
            language=job.transcription_options.language or job.language,
            track=sound.track,
            warnings=warnings(job, sound.warnings),
            sound_spans=decoded.spans if decoded.has_holes else None,
            weights_sha256=catalogue.weights_sha256(model),
            processing_seconds=F("processing_seconds") + time.monotonic() - started,
        )
    except errors.LeaseLost:
        queue_jobs.remove_unwanted_pcm(job.pk)  # the job may have ended or gone before the PCM was written
        raise


# The beginnings of the warnings that preparing gives.
OF_PREPARING = ("input_truncated", "timestamps_implausible", "option_unknown:", *SOUND_WARNINGS)


def warnings(job: Job, found: Iterable[str]) -> list[str]:
    """The endpoint's warnings, and those of preparing, which replace those of an earlier attempt."""
    unknown = [f"option_unknown:{name}" for name in unknown_options(job.options)]
    return [*_before(job.warnings, *OF_PREPARING), *unknown, *found]


def _before(warnings: Sequence[str], *renewed: str) -> list[str]:
    """The warnings that are not about to be given anew."""
    return [warning for warning in warnings if not warning.startswith(renewed)]


def _new_sections(job: Job, sound: DecodedSound, speech: Speech) -> list[Section]:
    """A new job's sections; none for a job that is tried again, which has them."""
    if job.sections.exists():
        return []
    return [
        Section(
            job=job,
            index=index,
            channel=channel,
            start=section.start,
            end=section.end,
            spans=section.spans,
            speech=section.speech,
            seconds=section.seconds,
        )
        for index, (channel, section) in enumerate(_cut_channels(sound, job.transcription_options, speech))
    ]


def _cut_channels(
    sound: DecodedSound, options: TranscriptionOptions, speech: Speech
) -> list[tuple[int, cutting.Section]]:
    """The sections of all channels in the order of time, each with its channel.

    A channel in which nobody speaks has none if somebody speaks in another.
    """
    pcms = sound.pcms
    if len(pcms) > 1 and not cutting.is_uncut(sections=options.sections, vad_filter=options.vad_filter):
        pcms = {channel: pcm for channel, pcm in pcms.items() if speech.find(pcm)} or pcms
    cut = [(channel, part) for channel, pcm in pcms.items() for part in _cut(pcm, sound.decoded.spans, options, speech)]
    return sorted(cut, key=lambda pair: (pair[1].start, pair[0]))


def _cut(pcm: Path, sound: Sequence[Span], options: TranscriptionOptions, speech: Speech) -> list[cutting.Section]:
    """Find speech if that is wanted, divide the recording into sections, and clip them to what is to be decoded.

    `sound` is where the decoded sound lies in the recording.
    """
    timeline = Timeline(tuple(sound), options.up_speed)
    is_uncut = cutting.is_uncut(sections=options.sections, vad_filter=options.vad_filter)
    heard = Heard() if is_uncut else speech.listen(pcm)
    stretches = [span for stretch in heard.stretches for span in timeline.to_original_spans(*stretch)]
    doubtful = {span for stretch in heard.doubtful for span in timeline.to_original_spans(*stretch)}
    if options.task == "detect":
        sure = [stretch for stretch in stretches if stretch not in doubtful]
        listened = tuple(span for place in languages.places(sure) for span in place)
        return [cutting.Section(listened, listened)] if listened else []
    divided = cutting.cut(
        stretches, timeline.end, sound=sound, sections=options.sections, vad_filter=options.vad_filter
    )
    doubtful = {span for stretch in heard.doubtful for span in timeline.to_original_spans(*stretch)}
    return cutting.clipped([section.without_speech(doubtful) for section in divided], _clips(pcm, timeline, options))


def _clips(pcm: Path, timeline: Timeline, options: TranscriptionOptions) -> list[Span]:
    """The spans of a recording that are to be decoded: `clip_timestamps`, without the silence at its ends."""
    first, last = 0.0, timeline.end
    if options.remove_silence:
        start, end = audio.sounding(pcm, threshold=options.silence_threshold, shortest=options.silence_duration)
        first, last = timeline.to_original(start), timeline.to_original(end, is_end=True)
    edges = (*options.clip_timestamps, timeline.end)  # a missing end is the recording's end
    clips = list(zip(edges[::2], edges[1::2], strict=False)) if options.clip_timestamps else [(0.0, timeline.end)]
    return [(max(start, first), min(end, last)) for start, end in clips]


class _PreparingProgress:
    """Stores a recording's probe, and renews its job's lease with the progress at most once a second."""

    def __init__(
        self, claim: JobClaim, recording: Recording, options: TranscriptionOptions, stopping: threading.Event
    ) -> None:
        self.claim = claim
        self.recording = recording
        self.options = options
        self.duration: float | None = None  # as the file declares it
        self.decoded = 0.0  # seconds
        self.progress = 0.0  # the furthest so far: what is decoded or listened to again does not put it back
        self.stopping = stopping
        self.renewed = time.monotonic()

    def on_probe(self, probe: audio.Probe) -> None:
        """Raises DiskFull if the decoded sound will not fit."""
        _check_space(settings.RECORDINGS_DIR, self.options, probe)
        Recording.objects.filter(pk=self.recording.pk).update(
            container=probe.container[:60],
            codec=probe.codec[:40],
            sample_rate=probe.sample_rate,
            channels=probe.channels,
            has_video=probe.has_video,
            duration=probe.duration,
        )
        self.duration = probe.duration

    def on_decoded(self, seconds: float) -> None:
        self.decoded = seconds
        self._renew(0.5 * seconds / self.duration if self.duration else None)

    def on_searched(self, seconds: float) -> None:
        """Note that speech has been looked for in `seconds` of the decoded sound."""
        self._renew(0.5 + 0.5 * seconds / self.decoded if self.decoded else None)

    def _renew(self, progress: float | None) -> None:
        if self.stopping.is_set():
            raise errors.LeaseLost
        if time.monotonic() - self.renewed >= 1:
            self.renewed = time.monotonic()
            self.progress = max(self.progress, min(1.0, progress or 0.0))
            self.claim.renew(progress=None if progress is None else self.progress)


@timed("fetching weights")
def fetch(claim: DownloadClaim, stopping: threading.Event) -> None:
    """Fetch a model to this machine, and queue the jobs that wait for it. Raises Problem.

    Raises LeaseLost within a second after the model is no longer wanted.
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
    """Have a section decoded after its last stored segment, and store the new ones. Raises Problem, LeaseLost."""
    started = time.monotonic()
    section = Section.objects.select_related("job").get(pk=claim.section)
    work = _Work(claim, section)
    if work.has_rest:
        _decode(work, runner, stopping)
    for passage in _without_text(work.whole, _texts(section), work.options):
        work.begin_again(passage)
        _decode(work, runner, stopping)
    claim.finish(
        seconds=time.monotonic() - started,
        engine=runner.capabilities.name,
        device=runner.device,
        versions=runner.versions,
    )


def _without_text(
    section: cutting.Section, texts: Sequence[Span], options: TranscriptionOptions
) -> list[cutting.Section]:
    """The passages of a decoded section that are to be decoded again."""
    return [] if options.task == "detect" else unwritten.to_decode_again(section, texts)


def _decode(work: "_Work", runner: devices.Runner, stopping: threading.Event) -> None:
    model = catalogue.find(work.section.job.model, runner.capabilities.name)
    decoding = runner.decode(work.section.pk, work.sound, model, work.options, beat=1.0)
    last_event = time.monotonic()
    try:
        # Closed at once if something goes wrong here, so that the runner does not decode what will not be stored.
        with contextlib.closing(decoding):
            for event in decoding:
                if stopping.is_set():
                    raise errors.LeaseLost
                work.store(event)
                if event is not None:
                    last_event = time.monotonic()
                elif time.monotonic() - last_event > settings.STALL_SECONDS:
                    raise errors.RunnerStalled(seconds=settings.STALL_SECONDS)
    except devices.RunnerExited as error:
        raise errors.RunnerDied(attempts=work.section.attempts) from error


class _Work:
    """What is left of a section to decode: its sound and options. Stores the engine's events."""

    def __init__(self, claim: SectionClaim, section: Section) -> None:
        self.claim = claim
        self.section = section
        stored = list(section.segments.order_by(*BY_TIME).values_list("end", "text"))
        self.whole = cutting.Section(_pairs(section.spans), None if section.speech is None else _pairs(section.speech))
        self.rest = self.whole.since(max(end for end, _ in stored)) if stored else self.whole
        self.decoded = self.whole.seconds - self.rest.seconds
        self.segments = len(stored)
        self.options = _options(section, "".join(text for _, text in stored), is_first=not stored)
        self.cues = _Cues(self.sound, self.rest, section.job.transcription_options)
        self.is_second_try = False

    @property
    def sound(self) -> Sound:
        job = self.section.job
        places = _places(self.section) if self.options.language is None else []
        whole = _pairs(job.sound_spans) if job.sound_spans else ((0.0, math.inf),)
        pcm = job.pcm_path_of(self.section.channel)
        return _sound(pcm, self.rest, Timeline(whole, self.options.up_speed), places)

    @property
    def has_rest(self) -> bool:
        """Whether something is left to decode. From silence alone an engine would make words up."""
        heard = [(0.0, self.rest.seconds)] if not self.whole.speech or not self.segments else self.rest.speech or ()
        return sum(end - start for start, end in heard) >= SHORTEST_REST

    def begin_again(self, passage: cutting.Section) -> None:
        """Turn to a passage of the section, to decode it by itself."""
        self.rest, self.decoded, self.is_second_try = passage, 0.0, True
        self.section.job.refresh_from_db(fields=["language"])
        self.options = _options(self.section, is_first=False)
        self.cues = _Cues(self.sound, passage, self.section.job.transcription_options)

    def store(self, event: Event | None) -> None:
        """Store one event of the runner; None is a beat, which renews the lease."""
        match event:
            case None:
                self.claim.renew()
            case {"event": "language", "language": language, "probability": probability}:
                self.claim.store_language(language, probability)
            case {"event": "progress", "seconds": seconds}:
                self.claim.store_progress(self.decoded + seconds * self.options.up_speed)
            case {"event": "segment", "segment": segment_json}:
                segment = DecodedSegment.from_json(segment_json)
                transcribed = self.decoded + segment.end * self.options.up_speed
                if (fault := self.cues.fault(segment)) is not None and self._leave_out(segment, fault):
                    self.claim.store_progress(transcribed)
                    return
                for cue in self.cues.of(segment):
                    if self.is_second_try and self._is_repeated(cue):
                        continue
                    self.claim.store_segment(self.segments, cue, transcribed=transcribed)
                    self.segments += 1
                    if self.options.verbose:
                        history.note(self.section.job_id, "decoded", _measures(cue))
            case {"event": "done", "seconds": seconds}:
                logs.log_time("the engine", seconds)
            case _:
                _raise_error(event)

    def _is_repeated(self, cue: DecodedSegment) -> bool:
        """Whether the text is part of the text beside the passage: its end may have been placed wrongly."""
        stored = self.section.segments.order_by(*BY_TIME)
        before = stored.filter(start__lte=cue.start).values_list("text", flat=True).last()
        after = stored.filter(start__gt=cue.start).values_list("text", flat=True).first()
        return unwritten.is_repeated(cue.text, before or "", after or "")

    def _leave_out(self, segment: DecodedSegment, fault: str) -> bool:
        """Note a segment that nobody seems to have said; return whether it is left out.

        Where the engine has the recording whole, its words stay.
        """
        is_kept = self.section.speech is None
        measures = _measures(self.cues.timeline.restore(segment))
        kind = "doubtful" if is_kept else "left out"
        history.note(self.section.job_id, kind, f"{measures}; {fault}: {segment.text.strip()}")
        return not is_kept


class _Cues:
    """Turns a section's segments, as an engine gives them, into cues in the recording's time."""

    def __init__(self, sound: Sound, section: cutting.Section, options: TranscriptionOptions) -> None:
        self.sound = sound
        self.timeline = Timeline(section.spans, options.up_speed)
        self.speech = self.timeline.decoded_speech(section.speech or ())
        self.options = options
        self.end = 0.0  # of the last cue, in decoded time
        self.before = ""  # the text of the segment before, also of one that was left out

    def fault(self, segment: DecodedSegment) -> str | None:
        """Why a segment is taken for words that nobody said, or None."""
        before, self.before = self.before, segment.text
        return phantoms.fault(
            segment,
            self.options,
            is_heard=phantoms.has_speech(segment, self.speech.stretches),
            loudness=audio.loudness(self.sound, segment.start - phantoms.NEAR, segment.end + phantoms.NEAR),
            before=before,
        )

    def of(self, segment: DecodedSegment) -> list[DecodedSegment]:
        parts = cues.part(segment, self.speech, after=self.end)
        self.end = parts[-1].end
        restored = [self.timeline.restore(part) for part in parts]
        return restored if self.options.gives_words else [replace(part, words=None) for part in restored]


def _pairs(spans: Sequence[Sequence[float]]) -> tuple[Span, ...]:
    return tuple((start, end) for start, end in spans)


def _measures(segment: DecodedSegment) -> str:
    """An engine's measures of a segment, in a line."""
    measures = f"logprob {segment.avg_logprob:.2f}, compression {segment.compression_ratio:.2f}"
    times = f"{segment.start:.2f}-{segment.end:.2f} s"
    return f"{times}: temperature {segment.temperature:.1f}, {measures}, no speech {segment.no_speech_prob:.2f}"


def _options(section: Section, stored_text: str = "", *, is_first: bool) -> TranscriptionOptions:
    """A job's options for a part of a section; the text that is stored of the section is added to the prompt.

    Of several languages no text is added: it might be in another than what follows.
    """
    options = section.job.transcription_options
    options = replace(
        options,
        # Cues are made of words (`whisper/cues.py`), also where nobody asked for their times.
        word_timestamps=options.word_timestamps or section.speech is not None,
        language=None if options.multilingual else section.job.language or None,
        prefix=options.prefix if section.index == 0 and is_first else None,
    )
    if not stored_text.strip() or options.multilingual:
        return options
    prompt = f"{options.initial_prompt or ''} {stored_text.strip()[-LONGEST_PROMPT:]}".strip()
    return replace(options, initial_prompt=prompt)


def _sound(pcm: Path, section: cutting.Section, whole: Timeline, places: Sequence[Sequence[Span]] = ()) -> Sound:
    """The samples of a section, and of the places where its language is detected. `whole` has all of the sound."""
    spans, speech = (_samples(each, whole) for each in (section.spans, section.speech or ()))
    return Sound(pcm, spans, speech, tuple(_samples(place, whole) for place in places))


def _samples(spans: Sequence[Span], whole: Timeline) -> SampleSpans:
    samples = [[round(SAMPLE_RATE * whole.to_decoded(edge)) for edge in span] for span in spans]
    return tuple((start, end) for start, end in samples)


def _places(section: Section) -> list[tuple[Span, ...]]:
    """Where a job's language is detected: spread over the speech of all of its sections."""
    sections = Section.objects.filter(job=section.job_id, channel=section.channel).order_by("index")
    speech = sections.exclude(speech__isnull=True).values_list("speech", flat=True)
    return languages.places([stretch for stretches in speech for stretch in _pairs(stretches or ())])


@timed("finishing")
def finish(claim: JobClaim, stopping: threading.Event) -> None:
    """Improve the text of a job whose sections are all done, if that was asked for; join the text, and end the job.

    If the language model fails, the job gets a warning. Raises LeaseLost.
    """
    started = time.monotonic()
    job = Job.objects.filter(pk=claim.job, claim=claim.token).defer("text", "searchable").first()
    if job is None:
        raise errors.LeaseLost
    language = _main_language(job) or job.language
    probability = job.language_probability if language == job.language else None
    job.language = language
    is_written = job.transcription_options.task != "detect"
    warnings = [*_before(job.warnings, SPEECH_WITHOUT_TEXT), *(_speech_without_text(job) if is_written else [])]
    warnings += _improve(claim, job, stopping) if job.is_to_be_improved else []
    text = edits.joined(edits.read(_segments(claim))).strip()
    seconds = F("processing_seconds") + time.monotonic() - started
    if history.has(claim.job, "doubtful"):
        warnings.append("doubtful_words")
    if is_written and not text:
        warnings.append("no_speech")
        language, probability = "", None  # whatever was asked for or detected
    facts = {"language": language, "language_probability": probability, "processing_seconds": seconds}
    claim.finish(text=text, warnings=warnings, **facts)


def _main_language(job: Job) -> str:
    """The language in which most is said, of the segments that have one of their own; empty if none has."""
    spoken = Segment.objects.filter(job=job).exclude(language="").values_list("language")
    longest = spoken.annotate(seconds=Sum(F("end") - F("start"))).order_by("-seconds", "language").first()
    return longest[0] if longest else ""


def _speech_without_text(job: Job) -> list[str]:
    """The warning that says where speech was found and nothing was written."""
    bare: list[Span] = []
    for section in job.sections.exclude(speech__isnull=True).order_by("index"):
        bare += unwritten.without_text(_pairs(section.speech or ()), _texts(section))
    places = ",".join(f"{start:.1f}-{end:.1f}" for start, end in sorted(bare)[:MOST_PLACES])
    return [f"{SPEECH_WITHOUT_TEXT}{places}"] if places else []


def _texts(section: Section) -> list[Span]:
    """The spans of a section that have text."""
    rows = section.segments.values_list("start", "end", "text")
    return [(start, end) for start, end, text in rows if text.strip()]


def _segments(claim: JobClaim) -> QuerySet[Segment]:
    return Segment.objects.filter(job_id=claim.job).order_by(*BY_TIME)


def _improve(claim: JobClaim, job: Job, stopping: threading.Event) -> list[str]:
    """Have a language model improve the segments that it has not yet; return the warnings. Raises LeaseLost."""

    def beat() -> None:
        if stopping.is_set():
            raise errors.LeaseLost
        claim.renew()

    segments = {segment.pk: segment for segment in _segments(claim).defer("tokens", "words")}
    is_translated = job.transcription_options.task == "translate"
    lines = [
        enhance.Line(segment.pk, segment.text, segment.improved_text, "" if is_translated else segment.language)
        for segment in segments.values()
    ]
    language = "en" if is_translated else job.language
    unimproved = 0  # groups of segments whose answer was not used
    try:
        if not settings.LLM_BASE_URL:
            raise chat.Unanswered("LLM_BASE_URL is empty")
        for texts in enhance.improve(lines, chat.configured(beat).ask, language=language):
            _store_improved(claim, {segments[pk]: text for pk, text in texts.items()})
            unimproved += not texts
    except chat.Unanswered as failure:
        history.note(claim.job, "not improved", f"the language model's server failed: {failure}")
        return ["not_improved"]
    if not unimproved:
        return []
    history.note(claim.job, "not improved", f"the language model did not answer as it was asked: {unimproved} times")
    return ["not_improved"]


def _store_improved(claim: JobClaim, texts: Mapping[Segment, str]) -> None:
    """Store the improved texts of some segments, and the job's text with them. Raises LeaseLost."""
    with transaction.atomic():
        claim.renew()
        for segment, text in texts.items():
            segment.improved_text = edits.like(segment, text)
        Segment.objects.bulk_update(texts, ["improved_text"])
        edits.rejoin(claim.job)


def transcribe_file(
    source: Path, *, model: str, options: TranscriptionOptions, runner: devices.Runner
) -> Iterator[Event]:
    """Decode a file without rows or workers, for the command line.

    Gives `{"event": "sound", "duration": seconds}` and then the engine's events, with segments in the recording's time.
    A segment of a passage that was decoded again may come after later ones. Raises Problem.
    """
    weights = catalogue.find(model, runner.capabilities.name)
    with disk.temporary_folder() as folder:
        finder = SpeechFinder()
        speech = Speech(finder, on_beat=lambda _: None)
        try:
            whole = Decoding(
                source,
                lambda channel: folder / f"sound-{channel}.pcm",
                options,
                speech,
                name=source.name,
                max_seconds=settings.MAX_DURATION_SECONDS,
                on_probe=partial(_check_space, folder, options),
                on_progress=lambda _: None,
                should_stop=lambda: False,
            ).run()
            yield {"event": "sound", "duration": whole.decoded.duration, "warnings": list(whole.warnings)}
            parts = _cut_channels(whole, options, speech)
        finally:
            finder.stop()
        timeline = Timeline(whole.decoded.spans, options.up_speed)
        for index, (channel, section) in enumerate(parts):
            pcm = whole.pcms[channel]
            texts: list[Span] = []
            heard = [stretch for other, part in parts if other == channel for stretch in part.speech or ()]
            sound = _sound(pcm, section, timeline, languages.places(heard))
            for event in _decode_part(index, channel, sound, section, weights, options, runner):
                match event:
                    case {"event": "language", "language": language} if not options.multilingual:
                        options = replace(options, language=language)
                    case {"event": "segment", "segment": {"start": start, "end": end}}:
                        texts.append((start, end))
                yield event
            options = replace(options, prefix=None)
            for passage in _without_text(section, texts, options):
                again = _sound(pcm, passage, timeline)
                yield from _decode_part(index, channel, again, passage, weights, options, runner)


def _check_space(folder: Path, options: TranscriptionOptions, probe: audio.Probe) -> None:
    """Check that a recording's decoded sound fits onto the disk of `folder`. Raises DiskFull.

    A recording that does not say how long it is may still fill the disk; then FFmpeg fails.
    """
    # Whatever a file claims, no more than this is decoded.
    seconds = min(probe.duration or 0, settings.MAX_DURATION_SECONDS)
    disk.check(folder, bytes_needed(probe, seconds, options))


def _decode_part(
    index: int,
    channel: int,
    sound: Sound,
    section: cutting.Section,
    weights: catalogue.LocalModel,
    options: TranscriptionOptions,
    runner: devices.Runner,
) -> Iterator[Event]:
    made = _Cues(sound, section, options)
    options = replace(options, word_timestamps=options.word_timestamps or section.speech is not None)
    try:
        for event in runner.decode(index, sound, weights, options, beat=1.0):
            match event:
                case None:
                    continue
                case {"event": "segment", "segment": segment_json}:
                    segment = DecodedSegment.from_json(segment_json)
                    is_kept = made.fault(segment) is None or section.speech is None
                    for cue in made.of(segment) if is_kept else ():
                        yield {**event, "segment": replace(cue, channel=channel).to_json()}
                case _:
                    _raise_error(event)
                    yield event
    except devices.RunnerExited as error:
        raise errors.RunnerDied(attempts=1) from error


def _raise_error(event: Event) -> None:
    """Raises Problem if the event is an engine's error."""
    match event:
        case {"event": "error", "code": "out_of_memory"}:
            raise errors.OutOfMemory
        case {"event": "error", "detail": detail}:
            raise errors.EngineFailed(detail=detail)
