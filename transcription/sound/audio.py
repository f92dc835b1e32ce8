"""FFmpeg and probing; no other file runs a media program.

Whatever people send goes through FFmpeg behind four walls: the formats, codecs and protocols that it may use, the
memory, time and disk that the kernel gives it, an environment without our secrets, and a name that we made. Without the
list of formats a playlist named .wav makes FFmpeg read another user's recording.
"""

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import imageio_ffmpeg

from transcription import disk, errors, processes
from transcription.logs import timed
from transcription.whisper.pcm import BYTES_A_SAMPLE, BYTES_A_SECOND, SAMPLE_RATE

with warnings.catch_warnings():
    # pydub looks for an FFmpeg of its own; here it only measures, and FFmpeg is for `ffmpeg_path` to find.
    warnings.filterwarnings("ignore", "Couldn't find ffmpeg or avconv", RuntimeWarning)
    from pydub import AudioSegment
    from pydub.silence import detect_leading_silence

RAW = "s16le"  # FFmpeg's name for PCM without a header

# FFmpeg's names. Those that a build does not have are never matched, so the lists suit every machine.
FORMATS = (
    "wav,w64,rf64,aiff,au,caf,flac,mp3,aac,ac3,eac3,ogg,matroska,mov,avi,asf,mpeg,mpegts,flv,amr,amrnb,amrwb,ape,wv,tta"
)
# No decoder of pictures is among them: FFmpeg opens those even while it only looks, and they are where its holes are.
CODECS = (
    "aac,aac_latm,mp3float,mp3,mp2float,mp2,mp1float,ac3,eac3,flac,alac,opus,libopus,vorbis,libvorbis,wmav1,wmav2,wmapro,"
    "amrnb,amrwb,ape,wavpack,tta,speex,libspeex,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,gsm,gsm_ms,pcm_s16le,pcm_s16be,"
    "pcm_s24le,pcm_s24be,pcm_s32le,pcm_f32le,pcm_f64le,pcm_u8,pcm_s8,pcm_mulaw,pcm_alaw"
)
WALLS = (
    *("-max_alloc", str(512 * 1024**2), "-protocol_whitelist", "file", "-codec_whitelist", CODECS),
    *("-max_streams", "64", "-probesize", "10000000", "-analyzeduration", "20000000", "-threads", "2"),
)  # fmt: skip
ENVIRONMENT = {
    "PATH": os.defpath,
    "LC_ALL": "C",
    "HOME": "/nonexistent",
}  # FFREPORT would write files, a proxy would call

# CPU seconds, the largest file in blocks of 512 bytes (some shells count 1024, and -fs still holds), memory in KiB.
# `exec` makes the shell become FFmpeg, so that killing the child kills FFmpeg.
# A machine whose own limits are narrower keeps those, and what the shell says of it is not FFmpeg's.
LIMITED = (
    '{ ulimit -c 0; ulimit -t "$1"; ulimit -f "$2"; ulimit -n 64; ulimit -v "$3"; } 2>/dev/null; shift 3; exec "$@"'
)
MEMORY_KIB = str(4 * 1024**2) if sys.platform == "linux" else "unlimited"  # macOS has no limit on memory

LOOK_SECONDS = 30  # the longest that FFmpeg may look at a file before it decodes
REPORT_BYTES = 1024**2  # kept of its report on the file, which comes first: an audiobook has a thousand chapters
WORDS_BYTES = 64 * 1024  # kept of what it says at the end
BEAT_SECONDS = 0.5
PIECE_BYTES = 1024**2
MINUTE_BYTES = 60 * BYTES_A_SECOND


@dataclass(frozen=True)
class Probe:
    """What FFmpeg says of a recording, in its own names: container "mov,mp4,m4a,3gp,3g2,mj2", codec "aac".

    `duration` in seconds as the file declares it, which may be a lie; None when it declares none. FFmpeg's estimate by
    size and bit rate is no declaration: for an AAC that begins with silence it is ten times the truth.
    """

    container: str
    codec: str
    sample_rate: int
    channels: int
    duration: float | None
    has_video: bool


def ffmpeg_path() -> str:
    """The absolute path of the machine's FFmpeg, else of the one that imageio-ffmpeg carries. Raises FFmpegMissing."""
    found = shutil.which("ffmpeg")
    if found:
        return str(Path(found).absolute())
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
    on_probe: Callable[[Probe], None],
    on_progress: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> float:
    """Decode a recording to headerless 16 kHz mono s16le in `target`, and return the recording's seconds.

    `name` is what its owner calls it; of the decoded sound a second holds `tempo` of the recording's, at its pitch.
    `container` is RAW for what is known to be 16 kHz mono s16le already, which is taken as it is; FFmpeg is asked only
    to change its tempo. Of anything else FFmpeg finds out what it is, and never takes it for RAW.
    `target` appears whole or not at all. `on_probe` hears once what the recording is, within a second of FFmpeg's
    knowing it. `on_progress` gets the seconds decoded so far at least every second, even when FFmpeg is silent. What
    they raise passes through. When `should_stop` says so, LeaseLost is raised.

    FFmpeg is started once for both: a start costs up to a tenth of a second. Its report of the input is read, as
    ffprobe cannot be walled in: it stops at the first stream whose decoder is not on the list, thus at every film and
    every cover picture.

    Raises RecordingMissing, EmptyFile, NotMedia, NoAudio, TooLong, DamagedFile, DecodingTimedOut, DiskFull,
    FFmpegMissing.
    """
    _check(source)
    if container == RAW and tempo == 1:
        return _take(source, target, max_seconds, on_probe, on_progress, should_stop)
    claim = _claim(source)  # now: whoever deletes the recording does not wait for us
    with _draft(target) as draft:
        watch = _Watch(
            lambda report: on_probe(_parse(report, claim)),
            lambda decoded: on_progress(tempo * decoded),
            should_stop,
        )
        arguments = _decoding(source, draft, max_seconds, tempo, container)
        ended = _run(arguments, _decoding_limits(max_seconds, tempo), watch)
        if ended.returncode != 0:
            raise _undecodable(ended, name, max_seconds)
        return _keep(draft, target, max_seconds, tempo)


def _take(
    source: Path,
    target: Path,
    max_seconds: int,
    on_probe: Callable[[Probe], None],
    on_progress: Callable[[float], None],
    should_stop: Callable[[], bool],
) -> float:
    """Copy sound that needs no decoding, whole samples of it, and return its seconds. Raises what `decode` raises."""
    size = source.stat().st_size // BYTES_A_SAMPLE * BYTES_A_SAMPLE
    if size > (max_seconds + 1) * BYTES_A_SECOND:
        raise _too_long(max_seconds)
    on_probe(Probe(RAW, "pcm_s16le", SAMPLE_RATE, 1, size / BYTES_A_SECOND, has_video=False))
    taken = 0
    with _draft(target) as draft:
        with source.open("rb") as file, draft.open("wb") as copy:
            while piece := file.read(min(PIECE_BYTES, size - taken)):
                if should_stop():
                    raise errors.LeaseLost
                copy.write(piece)
                taken += len(piece)
                on_progress(taken / BYTES_A_SECOND)
        return _keep(draft, target, max_seconds, 1.0)


def _keep(draft: Path, target: Path, max_seconds: int, tempo: float) -> float:
    """Give a finished draft its name and return the recording's seconds."""
    try:
        seconds = tempo * draft.stat().st_size / BYTES_A_SECOND
        if seconds == 0:
            raise errors.NoAudio
        if seconds > max_seconds:
            raise _too_long(max_seconds)
        draft.replace(target)
    except FileNotFoundError as error:
        # Only another attempt at the same work removes a draft, and it began because this one's lease had run out.
        raise errors.LeaseLost from error
    return seconds


def is_truncated(declared: float | None, decoded: float) -> bool:
    """Whether a file breaks off: FFmpeg calls a half-uploaded one a success, so the seconds are compared.

    By half a second the sound of any file may be shorter: by a picture that lasts longer, or by what its encoder added.
    """
    return declared is not None and decoded < min(0.95 * declared, declared - 0.5)


@timed("measuring loudness")
def peaks(pcm: Path, *, count: int = 240) -> list[int]:
    """Loudness, 0-100 of the loudest, of `count` equal parts of 16 kHz mono s16le, for the player's wave.

    The file is read piece by piece: a day of sound costs no more memory than a minute.
    """
    samples = pcm.stat().st_size // BYTES_A_SAMPLE
    edges = [BYTES_A_SAMPLE * (samples * index // count) for index in range(count + 1)]
    with pcm.open("rb") as file:
        heights = [_height(file.read, end - start) for start, end in zip(edges, edges[1:], strict=False)]
    loudest = max(heights, default=0)
    return [round(100 * height / loudest) if loudest else 0 for height in heights]


def _height(read: Callable[[int], bytes], size: int) -> int:
    """The highest absolute sample in the next `size` bytes."""
    height = 0
    while size > 0:
        piece = read(min(size, PIECE_BYTES))
        if not piece:
            break
        size -= len(piece)
        height = max(height, AudioSegment(piece, sample_width=BYTES_A_SAMPLE, frame_rate=SAMPLE_RATE, channels=1).max)
    return height


def sounding(pcm: Path, *, threshold: float, shortest: float) -> tuple[float, float]:
    """Where sound begins and ends in 16 kHz mono s16le, in seconds, without the silence at both ends.

    Silence is what stays below `threshold` dBFS for at least `shortest` seconds. Heard minute by minute from each end;
    where there is nothing but silence both are 0.
    """
    size = pcm.stat().st_size // BYTES_A_SAMPLE * BYTES_A_SAMPLE
    head = _silence(_minutes(pcm, range(0, size, MINUTE_BYTES), size), threshold)
    if head >= size / BYTES_A_SECOND:
        return 0.0, 0.0
    backwards = (minute.reverse() for minute in _minutes(pcm, reversed(range(0, size, MINUTE_BYTES)), size))
    tail = _silence(backwards, threshold)
    whole = size / BYTES_A_SECOND
    return head if head >= shortest else 0.0, whole - tail if tail >= shortest else whole


def _minutes(pcm: Path, places: Iterable[int], size: int) -> Iterator[AudioSegment]:
    with pcm.open("rb") as file:
        for place in places:
            file.seek(place)
            piece = file.read(min(MINUTE_BYTES, size - place))
            yield AudioSegment(piece, sample_width=BYTES_A_SAMPLE, frame_rate=SAMPLE_RATE, channels=1)


def _silence(minutes: Iterable[AudioSegment], threshold: float) -> float:
    """The seconds of silence before the first sound."""
    seconds = 0.0
    for minute in minutes:
        silent = min(float(detect_leading_silence(minute, threshold)) / 1000, float(minute.duration_seconds))
        seconds += silent
        if silent < minute.duration_seconds - 0.01:  # it looks at ten milliseconds at a time
            return seconds
    return seconds


# ------------------------------------------------------------------ what FFmpeg is told


def _most_seconds(max_seconds: int, tempo: float) -> int:
    """Of decoded sound: a second more than allowed, so that what is too long is seen to be, and never cut."""
    return math.ceil((max_seconds + 1) / tempo)


def _decoding(source: Path, draft: Path, max_seconds: int, tempo: float, container: str) -> list[str]:
    seconds = _most_seconds(max_seconds, tempo)
    # RAW is never found out, only told: any file at all could be it.
    told = ("-f", RAW, "-ar", str(SAMPLE_RATE), "-ac", "1") if container == RAW else ()
    return [
        *(ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"),
        *("-progress", "pipe:1", "-stats_period", str(BEAT_SECONDS)),
        *(*WALLS, "-format_whitelist", RAW if told else FORMATS, *told),
        *("-vn", "-sn", "-dn", "-i", f"file:{source.absolute()}", "-map", "0:a:0", "-vn", "-sn", "-dn"),
        *(
            "-t",
            str(seconds),
            "-fs",
            str(seconds * BYTES_A_SECOND + 4096),
            "-map_metadata",
            "-1",
            "-map_chapters",
            "-1",
        ),
        *(() if tempo == 1 else ("-filter:a", f"atempo={tempo:g}")),
        *("-ac", "1", "-ar", str(SAMPLE_RATE), "-c:a", "pcm_s16le", "-f", "s16le", "-y", f"file:{draft.absolute()}"),
    ]


@dataclass(frozen=True)
class _Limits:
    """What a run of FFmpeg may take: seconds on the clock, bytes of its file."""

    seconds: float
    file_bytes: int

    def around(self, arguments: Sequence[str]) -> list[str]:
        """The arguments with the limits before them. Two threads may use twice the clock's seconds."""
        limits = (int(2 * self.seconds), self.file_bytes // 512 + 1, MEMORY_KIB)
        return [*_dying_with_us(), "/bin/sh", "-c", LIMITED, "sh", *map(str, limits), *arguments]


@cache
def _dying_with_us() -> tuple[str, ...]:
    """What has the kernel kill a program when the thread that started it is gone; nothing where there is no such thing.

    A Mac's FFmpeg outlives its killed worker until its limits end it.
    """
    program = shutil.which("setpriv")
    words = () if program is None else (str(Path(program).absolute()), "--pdeathsig", "KILL")
    if not words or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        return ()  # BusyBox's knows no such option
    return words


def _decoding_limits(max_seconds: int, tempo: float) -> _Limits:
    """A minute, and an hour for the longest day: the slowest machine decodes far faster than 24 times the real time."""
    return _Limits(60 + max_seconds / 24, (_most_seconds(max_seconds, tempo) + 1) * BYTES_A_SECOND)


# ------------------------------------------------------------------ running it


@dataclass(frozen=True)
class _Ended:
    returncode: int
    report: str  # the beginning of what it said
    words: str  # the end of it


class _Watch:
    """Tells the owner of a run what is decoded and how far it is, and the run whether it is still wanted."""

    def __init__(
        self,
        on_report: Callable[[str], None],
        on_progress: Callable[[float], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.on_report = on_report
        self.on_progress = on_progress
        self.should_stop = should_stop
        self.has_looked = False
        self.seconds = 0.0

    def beat(self, output: bytes, report: bytes) -> None:
        """Raises LeaseLost when the run is no longer wanted."""
        if self.should_stop():
            raise errors.LeaseLost
        if output and not self.has_looked:  # it decodes, thus its report is whole
            self.has_looked = True
            self.on_report(report.decode(errors="replace"))
        times = re.findall(rb"^out_time_us=(\d+)$", output, re.MULTILINE)
        if times:
            self.seconds = int(times[-1]) / 1e6
        self.on_progress(self.seconds)


@dataclass
class _Pipes:
    """Both pipes of a running program: the end of each is kept, and of its words also the beginning."""

    process: subprocess.Popen[bytes]
    output: bytearray = field(default_factory=bytearray)
    words: bytearray = field(default_factory=bytearray)
    report: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        assert self.process.stdout is not None  # noqa: S101  # both are pipes
        assert self.process.stderr is not None  # noqa: S101
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.process.stdout, selectors.EVENT_READ, self.output)
        self._selector.register(self.process.stderr, selectors.EVENT_READ, self.words)

    def read(self, seconds: float) -> bool:
        """Read what comes within `seconds`; return False when both pipes are closed."""
        for key, _ in self._selector.select(seconds):
            piece, kept = os.read(key.fd, 65536), key.data
            kept += piece
            del kept[:-WORDS_BYTES]
            if kept is self.words:
                self.report += piece[: REPORT_BYTES - len(self.report)]
            if not piece:
                self._selector.unregister(key.fileobj)
        return bool(self._selector.get_map())

    def close(self) -> None:
        self._selector.close()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def _run(arguments: Sequence[str], limits: _Limits, watch: _Watch) -> _Ended:
    """Run FFmpeg to its end within limits; it is killed and waited for on every way out.

    Raises DecodingTimedOut, FFmpegMissing, and what the watch raises.
    """
    process = processes.start(
        limits.around(arguments),
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    pipes = _Pipes(process)
    try:
        _follow(pipes, limits.seconds, watch)
        returncode = process.wait(limits.seconds)
    except subprocess.TimeoutExpired as error:
        raise errors.DecodingTimedOut(seconds=round(error.timeout)) from error
    finally:
        process.kill()
        process.wait()
        pipes.close()
    if returncode in (126, 127):  # the shell's word for a program that it cannot start
        raise errors.FFmpegMissing
    return _Ended(returncode, pipes.report.decode(errors="replace"), pipes.words.decode(errors="replace"))


def _follow(pipes: _Pipes, seconds: float, watch: _Watch) -> None:
    """Read the pipes until the program closes them. Raises TimeoutExpired, and what the watch raises."""
    began = last_beat = time.monotonic()
    is_open = True
    while is_open:
        is_open = pipes.read(BEAT_SECONDS)
        now = time.monotonic()
        longest = seconds if pipes.output else min(seconds, LOOK_SECONDS)
        if now - began > longest:
            raise subprocess.TimeoutExpired(pipes.process.args, longest)
        if now - last_beat >= BEAT_SECONDS or not is_open:
            watch.beat(bytes(pipes.output), bytes(pipes.report))
            last_beat = now


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A name beside `target` to write to, gone afterwards; what killed attempts left behind goes first."""
    for leftover in target.parent.glob(f"{target.name}.*.part"):
        leftover.unlink(missing_ok=True)
    draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


# ------------------------------------------------------------------ what it said


def _check(path: Path) -> None:
    if not path.is_file():
        raise errors.RecordingMissing
    if path.stat().st_size == 0:
        raise errors.EmptyFile


def _claim(path: Path) -> float:
    """How many times as many bytes as there are a RIFF file (WAV, AVI) says that it has; 1 when it does not say.

    FFmpeg goes by those that are there, so half of a WAV would seem whole.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if not head.startswith(b"RIFF") or len(head) < 8:
        return 1.0
    size = int.from_bytes(head[4:], "little") + 8
    is_known = size < 2**31 - 2**20  # what is recorded into a pipe claims the most that it can
    return max(1.0, size / path.stat().st_size) if is_known else 1.0


def _parse(report: str, claim: float) -> Probe:
    """Read the lines that FFmpeg prints under `Input #0`; whatever is not found in them stays empty."""
    is_estimated = "Estimating duration from bitrate" in report and claim == 1
    container, report = _input(report) or ("", "")
    duration = None if is_estimated else _duration(report)
    streams = re.findall(r"^\s+Stream #0:\d+(?:\[\w+\])?(?:\([^)]*\))?: (Audio|Video): (.*)$", report, re.MULTILINE)
    sounds = [words for kind, words in streams if kind == "Audio"]
    described = re.match(r"(\w+).*?(?:, (\d+) Hz, ([^,]+)|$)", sounds[0]) if sounds else None
    codec, sample_rate, layout = described.groups() if described else ("", None, None)
    return Probe(
        container=container,
        codec=codec,
        sample_rate=int(sample_rate or 0),
        channels=_channels(layout or ""),
        duration=duration and round(claim * duration, 2),
        has_video=any(kind == "Video" and "(attached pic)" not in words for kind, words in streams),
    )


def _input(report: str) -> tuple[str, str] | None:
    """The container that FFmpeg found, and the lines on what is in it; None when it could not open the file."""
    plain = re.sub(r"^\[info\] ", "", report, flags=re.MULTILINE)
    found = re.search(
        r"^Input #0, (.+), from '(.*?)(?=^Stream mapping:|^Output #0|\Z)", plain, re.MULTILINE | re.DOTALL
    )
    return (found[1], found[2]) if found else None


def _duration(report: str) -> float | None:
    found = re.search(r"^\s+Duration: (\d+):(\d\d):(\d\d\.\d\d)", report, re.MULTILINE)
    return round(int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]), 2) if found else None


NAMED_LAYOUTS = {"mono": 1, "stereo": 2, "downmix": 2, "quad": 4, "hexagonal": 6, "cube": 8, "octagonal": 8}


def _channels(layout: str) -> int:
    """How many channels FFmpeg means by `stereo`, `5.1(side)` or `3 channels`; 0 when it does not say."""
    word = layout.split("(")[0].strip()
    counted = re.fullmatch(r"(\d+) channels?", word)
    if counted:
        return int(counted[1])
    if re.fullmatch(r"\d+(\.\d+)+", word):
        return sum(map(int, word.split(".")))
    return NAMED_LAYOUTS.get(word, 0)


# What FFmpeg says of anything that it cannot open, and of a file that only looks a little like one of its formats.
FOREIGN = re.compile(r"Format not on whitelist|detected only with low score|Not detecting ")
EMPTY_WORDS = re.compile(
    r"^\s*(file:|Error opening |Error parsing |Last message repeated|To ignore this"
    r"|Task finished with error|Terminating thread|Nothing was written)"
)


def _unreadable(report: str, name: str) -> errors.Problem:
    """The problem of a file that FFmpeg could not open."""
    words = _messages(report)
    if FOREIGN.search(report) or not words:
        return errors.NotMedia(name=name)
    return errors.DamagedFile(detail=words[-1])


def _too_long(max_seconds: int) -> errors.TooLong:
    return errors.TooLong(hours=f"{max_seconds / 3600:g}")


def _undecodable(ended: _Ended, name: str, max_seconds: int) -> errors.Problem:
    """The problem of a run that failed."""
    complaints = "\n".join(_complaints(ended.words))  # a recording's title may say anything
    if "matches no streams" in complaints:
        return errors.NoAudio()
    if disk.reports_full_disk(complaints):
        return errors.DiskFull()
    # This machine is stopping. A file may bring about the same 255: that is a -1 from any of FFmpeg's functions.
    if ended.returncode == 255 and "received signal" in ended.words:
        return errors.Problem(detail="FFmpeg was told to stop")
    if ended.returncode == -signal.SIGXFSZ:  # one packet may be unpacked to more than all that is allowed
        return _too_long(max_seconds)
    if ended.returncode == -signal.SIGKILL:  # not by us: Linux out of memory, for our limits come later than the clock
        return errors.OutOfMemory()
    if ended.returncode < 0:
        return errors.DamagedFile(detail=f"FFmpeg crashed on it ({signal.Signals(-ended.returncode).name})")
    if _input(ended.report) is None:
        return _unreadable(ended.words, name)
    words = _messages(ended.words) or [line.rpartition(": ")[2] for line in _complaints(ended.words)]
    return errors.DamagedFile(detail=words[-1] if words else "FFmpeg gave no reason")


def _messages(words: str) -> list[str]:
    """FFmpeg's sentences, one line each and short, without its addresses, our paths and our lists."""
    lines = [
        re.sub(r"file:.*?(?=: |\.?$)|(?<=whitelist) '.*", "", line).strip(" .:")
        for line in _complaints(words)
        if not EMPTY_WORDS.match(line)
    ]
    return [line[:200] for line in lines if line]


def _complaints(words: str) -> list[str]:
    """The lines that say what is wrong, without FFmpeg's addresses and levels; a line's continuation has none.

    What begins with a space continues the recording's own title or comment.
    """
    lines = [re.sub(r"^(\[[^\]]* @ \w+\] )+", "", line) for line in words.splitlines()]
    wrong = [line for line in lines if line and not line.startswith(("[info] ", "[warning] ", " "))]
    return [re.sub(r"^\[(error|fatal|panic)\] ", "", line) for line in wrong]
