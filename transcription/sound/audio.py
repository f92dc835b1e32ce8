"""FFmpeg: decoding and probing. No other module runs a media program.

Whatever people send goes through FFmpeg, which is restricted in four ways: by lists of formats, codecs and protocols,
by the kernel's limits on memory, time and disk, by an environment without our secrets, and by file names that we make.
Without the list of formats, a playlist named .wav would make FFmpeg read another user's recording.
"""

import itertools
import math
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO

import imageio_ffmpeg

from transcription import disk, errors, processes
from transcription.logs import timed
from transcription.sound import completeness, formats, stamps
from transcription.sound.timeline import Timeline
from transcription.whisper.cutting import Span
from transcription.whisper.engine import Sound
from transcription.whisper.pcm import BYTES_A_SAMPLE, BYTES_A_SECOND, SAMPLE_RATE

with warnings.catch_warnings():
    # pydub warns that it finds no FFmpeg. It only measures here; `ffmpeg_path` finds FFmpeg.
    warnings.filterwarnings("ignore", "Couldn't find ffmpeg or avconv", RuntimeWarning)
    from pydub import AudioSegment
    from pydub.silence import detect_leading_silence

RAW = "s16le"  # FFmpeg's name for PCM without a header
LEVELS_RATE = 4000  # samples a second of each channel, enough to compare the channels of speech

RESTRICTIONS = (
    *("-max_alloc", str(512 * 1024**2), "-protocol_whitelist", "file", "-codec_whitelist", ",".join(formats.DECODERS)),
    *("-max_streams", "64", "-probesize", "10000000", "-analyzeduration", "20000000", "-threads", "2"),
)  # fmt: skip
# A file's stamps as they are. Else FFmpeg subtracts the lowest of the streams that it decodes, and not of the file, and
# in some containers joins what is more than ten seconds apart. The microsecond keeps it from believing that it did.
OWN_STAMPS = ("-copyts", "-itsoffset", "0.000001")
MEASURED = ("mpegts", "mpeg", "ogg")  # containers that declare no length: FFmpeg looks at their last stamps
# Nothing of ours: FFREPORT would make FFmpeg write files, a proxy's variable would make it connect.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "HOME": "/nonexistent"}

# CPU seconds, the largest file in blocks of 512 bytes (some shells count 1024, and then -fs holds), memory in KiB.
# `exec` makes the shell become FFmpeg, so that killing the child kills FFmpeg.
# A machine whose own limits are lower keeps them; the shell's complaint about that is dropped.
LIMITED = (
    '{ ulimit -c 0; ulimit -t "$1"; ulimit -f "$2"; ulimit -n 64; ulimit -v "$3"; } 2>/dev/null; shift 3; exec "$@"'
)
MEMORY_KIB = str(4 * 1024**2) if sys.platform == "linux" else "unlimited"  # macOS has no limit on memory

PROBE_SECONDS = 30  # the longest that FFmpeg may take before it decodes
REPORT_BYTES = 1024**2  # the part of FFmpeg's messages that begins with its report; audiobooks have a thousand chapters
HEAD_BYTES = 64 * 1024  # the part of a file in which a format without a signature is looked for
TAIL_BYTES = 64 * 1024  # the part of FFmpeg's messages that has its errors
BEAT_SECONDS = 0.5
CHUNK_BYTES = 1024**2
MINUTE_BYTES = 60 * BYTES_A_SECOND


@dataclass(frozen=True)
class Track:
    """One of a recording's streams of sound, in FFmpeg's names: language "rus", codec "aac", layout "5.1(side)"."""

    number: int  # among the streams of sound, from 1
    language: str  # empty if the file does not say it
    codec: str
    sample_rate: int
    layout: str
    is_default: bool  # whether the file says that a player plays it

    @property
    def channels(self) -> int:
        return _channels(self.layout)

    def __str__(self) -> str:
        facts = ", ".join(filter(None, (self.language, self.codec, self.layout)))
        return f"{self.number} ({facts})"


@dataclass(frozen=True)
class Probe:
    """FFmpeg's report on a recording, in FFmpeg's names: container "mov,mp4,m4a,3gp,3g2,mj2", codec "aac".

    Codec, sample rate and channels are those of the track that is decoded. `duration` is what the file declares, in
    seconds, and may be wrong; None when the file declares none. FFmpeg's estimate from size and bit rate is not used:
    for an AAC that begins with silence it is ten times too long.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    duration: float | None
    has_video: bool
    tracks: tuple[Track, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """What decoding found out. Times are those that a player shows, in seconds.

    `duration` is the recording's length, with holes and with a picture that goes on after the sound. Laid end to end,
    `spans` are the decoded sound.
    """

    duration: float
    spans: tuple[Span, ...]
    is_truncated: bool = False  # the file breaks off
    has_plausible_stamps: bool = True

    @property
    def has_holes(self) -> bool:
        """Whether there is a time at which a player shows silence that is not in the decoded sound."""
        return len(self.spans) > 1 or self.spans[0][0] > 0

    @property
    def warnings(self) -> list[str]:
        """The job's warnings (docs/errors.md) of what decoding found out."""
        found = {"input_truncated": self.is_truncated, "timestamps_implausible": not self.has_plausible_stamps}
        return [warning for warning, is_found in found.items() if is_found]


def ffmpeg_path() -> str:
    """The absolute path of the machine's FFmpeg, else of imageio-ffmpeg's. Raises FFmpegMissing."""
    if program := shutil.which("ffmpeg"):
        return str(Path(program).absolute())
    try:
        return str(Path(imageio_ffmpeg.get_ffmpeg_exe()).absolute())
    except RuntimeError as error:
        raise errors.FFmpegMissing from error


@timed("decoding")
def decode(
    source: Path,
    target: Path,
    *,
    name: str,
    max_seconds: int,
    container: str = "",
    tempo: float = 1.0,
    track: int = 1,
    channels: str = "",
    others: Mapping[Path, str] | None = None,
    levels: Path | None = None,
    on_tracks: Callable[[tuple[Track, ...]], None] = lambda _: None,
    on_probe: Callable[[Probe], None],
    on_progress: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> Decoded:
    """Decode a recording to PCM (`whisper/pcm.py`) in `target`, and return where that lies in the recording.

    `name` is the owner's name of the file. A second of the decoded sound holds `tempo` seconds of the recording, at
    the same pitch. `container` is RAW for a file that is such PCM already: it is copied, and FFmpeg is run only to
    change its tempo. FFmpeg detects any other container, and never takes it for RAW; where the bytes say nothing, the
    ending of `name` may (`formats.headerless`).

    `track` is the number of the stream of sound. `channels` says in the terms of FFmpeg's filter pan what of its
    channels is decoded, such as `c0` or `0.5*c0-0.5*c1`; empty, it is FFmpeg's own mix of them. `others` are more files
    to decode at once, each with its channels. `levels` gets all channels at LEVELS_RATE, interleaved, in the
    recording's own tempo; it serves to compare them, so it may hold frequencies that are not there.

    `target` appears whole or not at all. `on_tracks` gets the tracks as soon as they are known, also those of a
    recording that cannot be decoded. `on_probe` is called once, within a second of FFmpeg's report. `on_progress`
    gets the seconds of sound decoded so far at least every second, even when FFmpeg is silent. What they raise passes
    through. When `should_stop` returns True, LeaseLost is raised.

    One run of FFmpeg probes and decodes, because a start costs up to a tenth of a second. ffprobe cannot be used with
    a list of codecs: it stops at the first stream that is not on it, thus at every film and every cover picture.

    Raises RecordingMissing, EmptyFile, NotMedia, NoAudio, TooLong, DamagedFile, BeginningMissing, UnsupportedCodec,
    UnsupportedFormat, ProtectedFile, DecodingTimedOut, DiskFull, FFmpegMissing.
    """
    if not source.is_file():
        raise errors.RecordingMissing
    if source.stat().st_size == 0:
        raise errors.EmptyFile
    if container == RAW and tempo == 1:
        on_tracks((Track(1, "", "pcm_s16le", SAMPLE_RATE, "mono", is_default=False),))
        return _copy_raw(source, target, max_seconds, on_probe, on_progress, should_stop)
    claims = completeness.read(source)  # before FFmpeg runs: the recording may be deleted meanwhile
    reader = stamps.Reader(tempo)

    def on_report(report: str) -> None:
        probe = _parse(report, claims.missing_factor, track)
        on_tracks(probe.tracks)
        on_probe(probe)

    with ExitStack() as stack:
        drafts = {path: stack.enter_context(_draft(path)) for path in (target, *(others or {}))}
        # The first is that whose stamps are watched and whose size FFmpeg reports.
        outputs = [_pcm_output(drafts[target], channels, max_seconds, tempo, is_watched=True)]
        outputs += [_pcm_output(drafts[path], pan, max_seconds, tempo) for path, pan in (others or {}).items()]
        outputs += [_levels_output(levels, max_seconds)] if levels else []
        watch = _Watch(on_report, lambda decoded: on_progress(tempo * decoded), should_stop)
        raw = formats.Headerless(RAW, SAMPLE_RATE) if container == RAW else _headerless(source, name, should_stop)
        arguments = _decoding_arguments(source, outputs, track, raw)
        result = _run(arguments, _decoding_limits(max_seconds, tempo), watch, reader.read)
        if result.returncode != 0:
            if not watch.has_report:
                on_tracks(_parse(result.report, claims.missing_factor, track).tracks)
            raise _failure(result, source, name, max_seconds)
        if LOW_SCORE in result.report and formats.is_beginning_missing(_head(source)):
            raise errors.BeginningMissing
        for path in others or {}:
            _measure(drafts[path], max_seconds, tempo)
            _keep(drafts[path], path)
        file = _File(source, _parse(result.report, claims.missing_factor, track), _first_stamp(result.report), claims)
        sound = _measure(drafts[target], max_seconds, tempo)
        decoded = _place(
            file,
            lambda start: stamps.lay(reader.anchors, sound, start=start, longest=max_seconds),
            max_seconds,
            should_stop,
        )
        _keep(drafts[target], target)
        return decoded


def _copy_raw(
    source: Path,
    target: Path,
    max_seconds: int,
    on_probe: Callable[[Probe], None],
    on_progress: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> Decoded:
    """Copy the whole samples of a file that is PCM already. Raises what `decode` raises."""
    size = source.stat().st_size // BYTES_A_SAMPLE * BYTES_A_SAMPLE
    if size > (max_seconds + 1) * BYTES_A_SECOND:
        raise _too_long(max_seconds)
    on_probe(Probe(RAW, "pcm_s16le", SAMPLE_RATE, 1, size / BYTES_A_SECOND, has_video=False))
    copied = 0
    with _draft(target) as draft:
        with source.open("rb") as file, draft.open("wb") as copy:
            while chunk := file.read(min(CHUNK_BYTES, size - copied)):
                if should_stop():
                    raise errors.LeaseLost
                copy.write(chunk)
                copied += len(chunk)
                on_progress(copied / BYTES_A_SECOND)
        seconds = _measure(draft, max_seconds, 1.0)
        _keep(draft, target)
        return Decoded(seconds, ((0.0, seconds),))


def _measure(draft: Path, max_seconds: int, tempo: float) -> float:
    """The recording's seconds in a complete draft."""
    try:
        seconds = tempo * draft.stat().st_size / BYTES_A_SECOND
    except FileNotFoundError as error:
        # Only another attempt at the same job removes a draft, and it began because our lease had run out.
        raise errors.LeaseLost from error
    if seconds == 0:
        raise errors.NoAudio
    if seconds > max_seconds:
        raise _too_long(max_seconds)
    return seconds


def _keep(draft: Path, target: Path) -> None:
    """Rename a complete draft to its target."""
    try:
        draft.replace(target)
    except FileNotFoundError as error:
        raise errors.LeaseLost from error


def is_much_shorter(seconds: float, declared: float | None) -> bool:
    """Whether a recording ends long before the length that its file declares.

    The sound of any file may be half a second shorter than the file: the picture lasts longer, or the encoder padded.
    """
    return declared is not None and seconds < min(0.95 * declared, declared - 0.5)


@timed("measuring loudness")
def peaks(pcm: Path, spans: Sequence[Span] = ((0.0, 1.0),), duration: float = 1.0, *, count: int = 240) -> list[int]:
    """The loudness of `count` equal parts of a recording, in percent of the loudest, for the player's wave form.

    `spans` are where the decoded sound lies in it (by default it is all of it); elsewhere it is silent. The sound is
    read in chunks: a day of it takes no more memory than a minute.
    """
    length = sum(end - start for start, end in spans)
    rate = pcm.stat().st_size // BYTES_A_SAMPLE / length  # samples in a second of the recording
    timeline = Timeline(tuple(spans))
    samples = [round(rate * timeline.to_decoded(duration * index / count)) for index in range(count + 1)]
    with pcm.open("rb") as file:
        highest = [_highest_sample(file, BYTES_A_SAMPLE * (end - start)) for start, end in itertools.pairwise(samples)]
    loudest = max(highest, default=0)
    return [round(100 * sample / loudest) if loudest else 0 for sample in highest]


def _highest_sample(file: BinaryIO, size: int) -> int:
    """The highest absolute sample in the next `size` bytes."""
    highest = 0
    while size > 0 and (chunk := file.read(min(size, CHUNK_BYTES))):
        size -= len(chunk)
        highest = max(highest, _audio_segment(chunk).max)
    return highest


def _audio_segment(pcm: bytes) -> AudioSegment:
    return AudioSegment(pcm, sample_width=BYTES_A_SAMPLE, frame_rate=SAMPLE_RATE, channels=1)


def loudness(sound: Sound, start: float, end: float) -> float:
    """The loudness of the loudest tenth of a second of a sound, between two of its times, in dBFS."""
    loudest = -math.inf
    first, last = (max(0, round(SAMPLE_RATE * seconds)) for seconds in (start, end))
    with sound.path.open("rb") as file:
        for span_first, span_end in sound.spans:
            place, rest = span_first + first, min(span_end, span_first + last) - span_first - first
            first, last = (max(0, sample - (span_end - span_first)) for sample in (first, last))
            if rest > 0:
                file.seek(place * BYTES_A_SAMPLE)
                pieces = _audio_segment(file.read(rest * BYTES_A_SAMPLE))[::100]
                loudest = max(loudest, *(float(piece.dBFS) for piece in pieces))
    return loudest


def sounding(pcm: Path, *, threshold: float, shortest: float) -> tuple[float, float]:
    """The start and end of decoded sound without the silence at both ends, in seconds; (0, 0) if all is silence.

    Silence stays below `threshold` dBFS for at least `shortest` seconds. The file is read in minutes from each end.
    """
    size = pcm.stat().st_size // BYTES_A_SAMPLE * BYTES_A_SAMPLE
    starts = range(0, size, MINUTE_BYTES)
    head = _leading_silence(_minutes(pcm, starts, size), threshold)
    if head >= size / BYTES_A_SECOND:
        return 0.0, 0.0
    tail = _leading_silence((minute.reverse() for minute in _minutes(pcm, reversed(starts), size)), threshold)
    whole = size / BYTES_A_SECOND
    return head if head >= shortest else 0.0, whole - tail if tail >= shortest else whole


def _minutes(pcm: Path, starts: Iterable[int], size: int) -> Iterator[AudioSegment]:
    with pcm.open("rb") as file:
        for start in starts:
            file.seek(start)
            yield _audio_segment(file.read(min(MINUTE_BYTES, size - start)))


def _leading_silence(minutes: Iterable[AudioSegment], threshold: float) -> float:
    """The seconds of silence before the first sound."""
    seconds = 0.0
    for minute in minutes:
        silent = min(float(detect_leading_silence(minute, threshold)) / 1000, float(minute.duration_seconds))
        seconds += silent
        if silent < minute.duration_seconds - 0.01:  # pydub looks at ten milliseconds at a time
            return seconds
    return seconds


# ------------------------------------------------------------------ the recording's own time


@dataclass(frozen=True)
class _File:
    """What is known of a recording's file when it is decoded."""

    path: Path
    probe: Probe
    first: float  # the lowest stamp that FFmpeg found, in seconds
    claims: completeness.Claims


def _place(
    file: _File, lay: Callable[[float], stamps.Layout], max_seconds: int, should_stop: Callable[[], bool]
) -> Decoded:
    """Where the decoded sound lies in its recording, and how long that is. `lay` gets the stamp that is shown as 0."""
    start, layout = 0.0, lay(0.0)
    if not _is_counted(file, layout):
        start = _lowest_stamp(file, should_stop)
        layout = lay(start)
    end, declared = layout.spans[-1][1], file.probe.duration
    pictured = declared if file.probe.has_video else None  # what a player shows as the length of a film
    if not is_much_shorter(end, declared) or not layout.is_plausible:
        duration = min(pictured or end, max_seconds) if layout.is_plausible else end
        return Decoded(max(end, duration), layout.spans, has_plausible_stamps=layout.is_plausible)
    # What it declares may be the length of its picture, or that of a file from which this one was cut.
    is_whole = file.probe.container in MEASURED or file.claims.is_whole
    last = _last_stamp(file, max_seconds, should_stop)
    reached = (pictured if is_whole else None) if last is None else last - start
    duration = max(end, reached or end)
    is_short = is_much_shorter(duration, declared)
    if not is_short:
        duration = max(duration, pictured or end)
    return Decoded(min(duration, max_seconds), layout.spans, is_truncated=is_short and not is_whole)


def _is_counted(file: _File, layout: stamps.Layout) -> bool:
    """Whether a player waits for the first stamp of a file, rather than showing it as 0.

    It does in an MP4 whose edit list begins with nothing, and in a Matroska file whose length counts the time before.
    The stamps of a broadcast, and of what was cut out of one, begin anywhere.
    """
    if file.first <= 0 or not file.probe.container.startswith(("matroska", "mov")):
        return False
    if file.probe.container.startswith("mov") and not file.claims.is_in_fragments:
        return True
    return layout.is_plausible and layout.spans[-1][1] < (file.probe.duration or 0.0) + 0.5


def _lowest_stamp(file: _File, should_stop: Callable[[], bool]) -> float:
    """The lowest stamp of a file's sound or picture, in seconds.

    FFmpeg does not know when H.264 in a Matroska file begins: it may not use that decoder here.
    """
    if file.first < stamps.HOLE or not file.probe.has_video or not file.probe.container.startswith("matroska"):
        return file.first
    arguments = [
        *(ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+error", *RESTRICTIONS),
        *(
            "-format_whitelist",
            ",".join(formats.DEMUXERS),
            *OWN_STAMPS,
            "-an",
            "-sn",
            "-dn",
            "-i",
            f"file:{file.path.absolute()}",
        ),
        *("-map", "0:V:0", "-frames:v", "1", "-c", "copy", "-copyinkf", "-f", "framecrc", "-"),
    ]
    result = _run(arguments, _Limits(PROBE_SECONDS, CHUNK_BYTES), _Watch.only_for(should_stop))
    base = re.search(r"^#tb 0: (\d+)/(\d+)$", result.output, re.MULTILINE)
    packet = re.search(r"^0, +-?\d+, +(-?\d+),", result.output, re.MULTILINE)
    return min(file.first, int(packet[1]) * int(base[1]) / int(base[2])) if base and packet else file.first


def _last_stamp(file: _File, max_seconds: int, should_stop: Callable[[], bool]) -> float | None:
    """When a file's last sound or picture ends, in its own stamps; None if that cannot be found out.

    Nothing is decoded. FFmpeg 5 cannot copy a picture whose size it does not know.
    """
    arguments = [
        *(ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+error", "-progress", "pipe:1"),
        *(*RESTRICTIONS, "-format_whitelist", ",".join(formats.DEMUXERS), "-i", f"file:{file.path.absolute()}"),
        *("-map", "0:V?", "-map", "0:a?", "-c", "copy", "-f", "null", "-"),
    ]
    result = _run(arguments, _decoding_limits(max_seconds, 1.0), _Watch.only_for(should_stop))
    times = re.findall(r"^out_time_us=(\d+)$", result.output, re.MULTILINE)
    return file.first + int(times[-1]) / 1e6 if times and result.returncode == 0 else None


# ------------------------------------------------------------------ FFmpeg's arguments and limits


def _most_seconds(max_seconds: int, tempo: float) -> int:
    """The limit of decoded sound: a second more than allowed, so that a longer recording is noticed and not cut."""
    return math.ceil((max_seconds + 1) / tempo)


def _decoding_arguments(
    source: Path, outputs: Sequence[Sequence[str]], track: int, raw: formats.Headerless | None
) -> list[str]:
    # FFmpeg must never detect a format without a signature by itself: any file could be it.
    demuxers = [raw.demuxer] if raw else formats.DEMUXERS
    stream = ("-map", f"0:a:{track - 1}", "-vn", "-sn", "-dn")
    return [
        *(ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "repeat+level+info"),
        *("-progress", "pipe:1", "-stats_period", str(BEAT_SECONDS)),
        *(*RESTRICTIONS, "-format_whitelist", ",".join(demuxers), *(raw.arguments if raw else ())),
        *(*OWN_STAMPS, "-vn", "-sn", "-dn", "-i", f"file:{source.absolute()}"),
        *itertools.chain.from_iterable((*stream, *output) for output in outputs),
    ]


def _pcm_output(draft: Path, channels: str, max_seconds: int, tempo: float, *, is_watched: bool = False) -> list[str]:
    """FFmpeg's arguments for one file of decoded sound."""
    filters = _filters(channels, tempo, is_watched=is_watched)
    return _output_arguments(draft, _most_seconds(max_seconds, tempo), filters)


def _levels_output(levels: Path, max_seconds: int) -> list[str]:
    """FFmpeg's arguments for the file that serves to compare the channels."""
    # Without a filter against aliasing, because the same is done to every channel: a tenth of the time.
    filters = [stamps.UNSTAMPED, f"aresample={LEVELS_RATE}:filter_size=1:phase_shift=0"]
    return _output_arguments(levels, _most_seconds(max_seconds, 1.0), filters)


def _output_arguments(path: Path, seconds: int, filters: Sequence[str]) -> list[str]:
    return [
        *("-t", str(seconds), "-fs", str(seconds * BYTES_A_SECOND + 4096)),
        *("-map_metadata", "-1", "-map_chapters", "-1"),
        *("-filter:a", ",".join(filters), "-c:a", "pcm_s16le", "-f", "s16le", "-y", f"file:{path.absolute()}"),
    ]


def _filters(channels: str, tempo: float, *, is_watched: bool) -> list[str]:
    """FFmpeg's filters between a decoder and the PCM. Watched, the first and the last write for `stamps.Reader`."""
    pan = (f"pan=mono|c0{'' if channels.startswith('<') else '='}{channels}",) if channels else ()
    faster = () if tempo == 1 else (f"atempo={tempo:g}",)
    pcm = f"aformat=sample_fmts=s16:channel_layouts=mono:sample_rates={SAMPLE_RATE}"
    filters = [stamps.UNSTAMPED, *pan, *faster, pcm]
    return [stamps.WATCH, *filters, stamps.COUNT] if is_watched else filters


@dataclass(frozen=True)
class _Limits:
    """The limits of a run of FFmpeg: wall-clock seconds, bytes of its file."""

    seconds: float
    file_bytes: int

    def around(self, arguments: Sequence[str]) -> list[str]:
        """The command that runs `arguments` within the limits. Two threads may use twice the wall clock's seconds."""
        limits = (int(2 * self.seconds), self.file_bytes // 512 + 1, MEMORY_KIB)
        return [*_die_with_parent(), "/bin/sh", "-c", LIMITED, "sh", *map(str, limits), *arguments]


@cache
def _die_with_parent() -> tuple[str, ...]:
    """The command that makes the kernel kill a program when the thread that started it ends; empty where it cannot.

    It cannot on a Mac, where FFmpeg outlives a killed worker until its limits end it.
    """
    program = shutil.which("setpriv")
    command = () if program is None else (str(Path(program).absolute()), "--pdeathsig", "KILL")
    if not command or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        return ()  # BusyBox's setpriv does not have the option
    return command


def _decoding_limits(max_seconds: int, tempo: float) -> _Limits:
    """A minute, plus an hour for a day of sound: the slowest machine decodes far faster than 24 times real time."""
    return _Limits(60 + max_seconds / 24, (_most_seconds(max_seconds, tempo) + 1) * BYTES_A_SECOND)


# ------------------------------------------------------------------ running FFmpeg


@dataclass(frozen=True)
class _Result:
    returncode: int
    output: str  # the last of its standard output
    report: str  # the first of FFmpeg's messages
    tail: str  # the last of FFmpeg's messages


class _Watch:
    """Passes on the report and the progress of a run, and stops it when it is no longer wanted."""

    def __init__(
        self,
        on_report: Callable[[str], None],
        on_progress: Callable[[float], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.on_report = on_report
        self.on_progress = on_progress
        self.should_stop = should_stop
        self.has_report = False
        self.seconds = 0.0

    @classmethod
    def only_for(cls, should_stop: Callable[[], bool]) -> "_Watch":
        return cls(lambda report: None, lambda seconds: None, should_stop)

    def beat(self, output: bytes, report: bytes) -> None:
        """Raises LeaseLost when the run is no longer wanted."""
        if self.should_stop():
            raise errors.LeaseLost
        if output and not self.has_report:  # FFmpeg decodes, so its report is complete
            self.has_report = True
            self.on_report(report.decode(errors="replace"))
        sizes = re.findall(rb"^total_size=(\d+)$", output, re.MULTILINE)
        if sizes:
            self.seconds = int(sizes[-1]) / BYTES_A_SECOND
        self.on_progress(self.seconds)


@dataclass
class _Pipes:
    """What comes through the pipes of a running program."""

    process: subprocess.Popen[bytes]
    take_line: Callable[[bytes], bool]  # gets each line of standard error; those that it takes are not kept
    output: bytearray = field(default_factory=bytearray)  # the last bytes of standard output
    tail: bytearray = field(default_factory=bytearray)  # the last bytes of standard error
    report: bytearray = field(default_factory=bytearray)  # the first bytes of standard error
    line: bytearray = field(default_factory=bytearray)  # the beginning of a line of standard error

    def __post_init__(self) -> None:
        assert self.process.stdout is not None  # noqa: S101  # both are pipes
        assert self.process.stderr is not None  # noqa: S101
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ, self.output)
        self._selector.register(self.process.stderr, selectors.EVENT_READ, self.tail)

    def read(self, seconds: float) -> bool:
        """Read what comes within `seconds`; return False when both pipes are closed."""
        for key, _ in self._selector.select(seconds):
            chunk = os.read(key.fd, 65536)
            if not chunk:
                self._selector.unregister(key.fileobj)
            if key.data is self.tail:
                self._read_messages(chunk)
            else:
                self.output += chunk
                del self.output[:-TAIL_BYTES]
        return bool(self._selector.get_map())

    def _read_messages(self, chunk: bytes) -> None:
        """Keep the lines that are complete; all that there is at the end, or when a line is longer than any of ours."""
        self.line += chunk
        complete = self.line.rfind(b"\n") + 1 if chunk and len(self.line) < TAIL_BYTES else len(self.line)
        lines = bytes(self.line[:complete]).splitlines(keepends=True)
        del self.line[:complete]
        kept = b"".join(line for line in lines if not self.take_line(line))
        self.report += kept[: REPORT_BYTES - len(self.report)]
        self.tail += kept
        del self.tail[:-TAIL_BYTES]

    def close(self) -> None:
        self._selector.close()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def _run(
    arguments: Sequence[str], limits: _Limits, watch: _Watch, take_line: Callable[[bytes], bool] = lambda line: False
) -> _Result:
    """Run FFmpeg to its end within limits. Whatever happens, it has ended when this returns or raises.

    The lines of its messages that `take_line` takes are not among the result's.

    Raises DecodingTimedOut, FFmpegMissing, and what the watch raises.
    """
    process = processes.start(
        limits.around(arguments),
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    pipes = _Pipes(process, take_line)
    try:
        _follow(pipes, limits.seconds, watch)
        returncode = process.wait(limits.seconds)
    except subprocess.TimeoutExpired as error:
        raise errors.DecodingTimedOut(seconds=round(error.timeout)) from error
    finally:
        process.kill()
        process.wait()
        pipes.close()
    if returncode in (126, 127):  # the shell could not start it
        raise errors.FFmpegMissing
    return _Result(returncode, *(kept.decode(errors="replace") for kept in (pipes.output, pipes.report, pipes.tail)))


def _follow(pipes: _Pipes, seconds: float, watch: _Watch) -> None:
    """Read the pipes until the program closes them. Raises TimeoutExpired, and what the watch raises."""
    began = last_beat = time.monotonic()
    is_open = True
    while is_open:
        is_open = pipes.read(BEAT_SECONDS)
        now = time.monotonic()
        longest = seconds if pipes.output else min(seconds, PROBE_SECONDS)
        if now - began > longest:
            raise subprocess.TimeoutExpired(pipes.process.args, longest)
        if now - last_beat >= BEAT_SECONDS or not is_open:
            watch.beat(bytes(pipes.output), bytes(pipes.report))
            last_beat = now


def _headerless(source: Path, name: str, should_stop: Callable[[], bool]) -> formats.Headerless | None:
    """The format without a signature that a file is in; None if FFmpeg knows its bytes for another."""
    with source.open("rb") as file:
        headerless = formats.headerless(name, file.read(HEAD_BYTES))
    return None if headerless and formats.is_signed(_detected(source, should_stop)) else headerless


def _detected(source: Path, should_stop: Callable[[], bool] = lambda: False) -> str:
    """FFmpeg's name of the format that it takes a file for, whether that is read or not; empty if it is unsure.

    FFmpeg says it only while it looks for bugs, and here it may open no format, whatever it finds.
    """
    arguments = [
        *(ffmpeg_path(), "-hide_banner", "-nostdin", "-loglevel", "level+debug"),
        *(*RESTRICTIONS, "-format_whitelist", "none", "-i", f"file:{source.absolute()}"),
    ]
    watch = _Watch.only_for(should_stop)
    result = _run(arguments, _Limits(PROBE_SECONDS, CHUNK_BYTES), watch)
    if HIDDEN_PLAYLIST in result.report:
        return "hls"
    probed = re.search(r"Format (\S+) probed with size=\d+ and score=", result.report)
    return probed[1].partition(",")[0] if probed else ""


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A file name beside `target`, removed afterwards. The drafts of killed attempts are removed first."""
    for leftover in target.parent.glob(f"{target.name}.*.part"):
        leftover.unlink(missing_ok=True)
    draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


# ------------------------------------------------------------------ FFmpeg's messages


def _first_stamp(report: str) -> float:
    """The lowest stamp of a file, in seconds."""
    _, lines = _input_lines(report) or ("", "")
    start = re.search(r"^\s+Duration: [^,\n]+, start: (-?\d+\.\d+)", lines, re.MULTILINE)
    return float(start[1]) if start else 0.0


def _parse(report: str, missing_factor: float, track: int = 1) -> Probe:
    """Read FFmpeg's report on a file, the lines below `Input #0`. What is not in them stays empty."""
    is_estimated = "Estimating duration from bitrate" in report and missing_factor == 1
    container, lines = _input_lines(report) or ("", "")
    time = re.search(r"^\s+Duration: (\d+):(\d\d):(\d\d\.\d\d)", lines, re.MULTILINE)
    duration = int(time[1]) * 3600 + int(time[2]) * 60 + float(time[3]) if time and not is_estimated else None
    streams = re.findall(STREAM, lines, re.MULTILINE)
    sounds = [(language, description) for language, kind, description in streams if kind == "Audio"]
    tracks = tuple(_track(number, *sound) for number, sound in enumerate(sounds, start=1))
    decoded = tracks[track - 1] if 0 < track <= len(tracks) else Track(track, "", "", 0, "", is_default=False)
    return Probe(
        container=container,
        codec=decoded.codec,
        sample_rate=decoded.sample_rate,
        channels=decoded.channels,
        duration=duration and round(missing_factor * duration, 2),
        has_video=any(kind == "Video" and "(attached pic)" not in description for _, kind, description in streams),
        tracks=tracks,
    )


STREAM = r"^\s+Stream #0:\d+(?:\[\w+\])?(?:\(([^)]*)\))?: (Audio|Video): (.*)$"


def _track(number: int, language: str, description: str) -> Track:
    match = re.match(r"(\w+).*?(?:, (\d+) Hz, ([^,]+)|$)", description)
    codec, sample_rate, layout = match.groups() if match else ("", None, None)
    return Track(
        number=number,
        language="" if language == "und" else language,
        codec=codec,
        sample_rate=int(sample_rate or 0),
        layout=(layout or "").partition(" (")[0].strip(),  # "stereo (default)" at a line's end
        is_default="(default)" in description,
    )


def _input_lines(report: str) -> tuple[str, str] | None:
    """The container that FFmpeg detected, and its lines on the content; None when it could not open the file."""
    plain = re.sub(r"^\[info\] ", "", report, flags=re.MULTILINE)
    match = re.search(
        r"^Input #0, (.+), from '(.*?)(?=^Stream mapping:|^Output #0|\Z)", plain, re.MULTILINE | re.DOTALL
    )
    return (match[1], match[2]) if match else None


NAMED_LAYOUTS = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "cube": 8, "octagonal": 8}


def _channels(layout: str) -> int:
    """The number of channels in a layout of FFmpeg's: `stereo`, `5.1(side)`, `3 channels`; 0 when it is unknown."""
    name = layout.split("(")[0].strip()
    if number := re.fullmatch(r"(\d+) channels?", name):
        return int(number[1])
    if re.fullmatch(r"\d+(\.\d+)+", name):
        return sum(map(int, name.split(".")))
    return NAMED_LAYOUTS.get(name, 0)


LOW_SCORE = "detected only with low score"  # what FFmpeg says of a file that looks a little like one of its formats
HIDDEN_PLAYLIST = "Not detecting m3u8/hls"  # newer FFmpegs want a playlist to be named one
# FFmpeg's messages about a file that it cannot open.
FOREIGN = re.compile(rf"Format not on whitelist|{LOW_SCORE}|{HIDDEN_PLAYLIST}")
UNINFORMATIVE = re.compile(
    r"^\s*(file:|Error opening |Error parsing |Last message repeated|To ignore this"
    r"|Task finished with error|Terminating thread|Nothing was written)"
)


def _too_long(max_seconds: int) -> errors.TooLong:
    return errors.TooLong(hours=f"{max_seconds / 3600:g}")


def _head(source: Path) -> bytes:
    try:
        with source.open("rb") as file:
            return file.read(formats.HEAD_BYTES)
    except FileNotFoundError:  # deleted meanwhile, with its job
        return b""


def _failure(result: _Result, source: Path, name: str, max_seconds: int) -> errors.Problem:
    """The problem of a run that failed."""
    complaints = "\n".join(_complaints(result.tail))  # not the tail itself: a recording's title may say anything
    if disk.reports_full_disk(complaints):
        return errors.DiskFull()
    # The machine is stopping. A file can cause 255 too: it is a -1 from any of FFmpeg's functions.
    if result.returncode == 255 and "received signal" in result.tail:
        return errors.Problem(detail="FFmpeg was told to stop")
    if result.returncode == -signal.SIGXFSZ:  # a single packet may unpack to more than the whole limit
        return _too_long(max_seconds)
    if result.returncode == -signal.SIGKILL:  # by Linux, which is out of memory; the wall clock comes before our limits
        return errors.OutOfMemory()
    if result.returncode < 0:
        return errors.DamagedFile(detail=f"FFmpeg crashed on it ({signal.Signals(-result.returncode).name})")
    head = _head(source)
    if formats.is_beginning_missing(head):
        return errors.BeginningMissing()
    if formats.is_protected(head):
        return errors.ProtectedFile()
    if unread := formats.unread_codec(result.report + complaints):
        return unread
    if "matches no streams" in complaints:
        return errors.NoAudio()
    sentences = _sentences(result.tail)
    if _input_lines(result.report) is None:
        if FOREIGN.search(result.tail) or not sentences:
            return formats.unread_format(_detected(source), name, head)
        return errors.DamagedFile(detail=sentences[-1])
    sentences = sentences or [line.rpartition(": ")[2] for line in _complaints(result.tail)]
    return errors.DamagedFile(detail=sentences[-1] if sentences else "FFmpeg gave no reason")


def _sentences(messages: str) -> list[str]:
    """FFmpeg's errors as short lines, without its addresses, our paths and our lists."""
    lines = [
        re.sub(r"file:.*?(?=: |\.?$)|(?<=whitelist) '.*", "", line).strip(" .:")
        for line in _complaints(messages)
        if not UNINFORMATIVE.match(line)
    ]
    return [line[:200] for line in lines if line]


def _complaints(messages: str) -> list[str]:
    """The lines that report errors, without FFmpeg's addresses and levels; the second line of an error has no level.

    A line that begins with a space continues the recording's own title or comment.
    """
    lines = [re.sub(r"^(\[[^\]]* @ \w+\] )+", "", line) for line in messages.splitlines()]
    complaints = [line for line in lines if line and not line.startswith(("[info] ", "[warning] ", " "))]
    return [re.sub(r"^\[(error|fatal|panic)\] ", "", line) for line in complaints]
