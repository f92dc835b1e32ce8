"""Decodes a recording: which of its tracks, and which of the track's channels.

Of several tracks the one that a player plays is decoded, unless nobody speaks in it or it cannot be read. Of several
channels the mix is decoded, each apart, or one of them. Most recordings take one run of FFmpeg; another is needed where
its report shows that the first track was not the right one, and where channels cancel each other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transcription import errors
from transcription.sound import audio, channels, tracks
from transcription.sound.audio import Decoded, Probe, Track
from transcription.sound.channels import Window
from transcription.sound.speech import Heard, SpeechFinder
from transcription.whisper import cutting
from transcription.whisper.cutting import Span
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.pcm import BYTES_A_SAMPLE, BYTES_A_SECOND

MOST_TRIED = 5  # tracks, until one has speech
SOUND_WARNINGS = ("several_tracks", "channels_differ", "one_channel")
KEPT_SPEECH = 0.9  # the least share of the mix's speech that another choice of channels must have


class Speech:
    """The speech of one recording's files, each of which is listened to once."""

    def __init__(self, finder: SpeechFinder, on_beat: Callable[[float], None]) -> None:
        self._finder = finder
        self._on_beat = on_beat
        self._heard: dict[Path, Heard] = {}

    def listen(self, pcm: Path) -> Heard:
        """The speech in a file, in seconds of the decoded sound. Raises what `SpeechFinder.find` raises."""
        if pcm not in self._heard:
            self._heard[pcm] = self._finder.find(pcm, on_beat=self._on_beat)
        return self._heard[pcm]

    def find(self, pcm: Path) -> list[Span]:
        """The spans that have speech for certain."""
        heard = self.listen(pcm)
        return [stretch for stretch in heard.stretches if stretch not in heard.doubtful]

    def seconds(self, pcm: Path) -> float:
        return sum(end - start for start, end in self.find(pcm))

    def forget(self, pcm: Path) -> None:
        """Have a file that is written anew listened to again."""
        self._heard.pop(pcm, None)

    def move(self, pcm: Path, to: Path) -> None:
        """Note that a file was renamed."""
        self._heard[to] = self._heard.pop(pcm)


@dataclass(frozen=True)
class Sound:
    """A decoded recording."""

    decoded: Decoded  # where it lies in the recording
    track: int  # the decoded one, from 1
    tracks: int
    whole: Path  # the mix, or the only channel: what the player's wave form shows
    pcms: dict[int, Path]  # what is transcribed, by the channel's number, from 1; 0 for the mix
    warnings: tuple[str, ...] = ()


class _OtherTrack(Exception):
    """The track that is being decoded is not the one to begin with."""


@dataclass
class Decoding:
    """The decoding of one recording. `pcm_of` names the file of each channel; 0 stands for all channels."""

    source: Path
    pcm_of: Callable[[int], Path]
    options: TranscriptionOptions
    speech: Speech
    name: str
    max_seconds: int
    on_probe: Callable[[Probe], None]
    on_progress: Callable[[float], None]
    should_stop: Callable[[], bool]
    container: str = ""
    known_track: int | None = None  # that an earlier attempt chose

    def __post_init__(self) -> None:
        self._tracks: tuple[Track, ...] = ()
        self._probe: Probe | None = None
        self._whole = self.pcm_of(self.options.channels if isinstance(self.options.channels, int) else 0)

    def run(self) -> Sound:
        """Decode the recording. Raises what `audio.decode` raises, NoSuchTrack, NoSuchChannel, TooManyChannels."""
        whole, wanted = self._whole, self.options.channels
        with _temporary(whole, "levels") as levels:
            decoded, track = self._decode_likeliest(levels)
            count = 1 if self._probe is None else self._probe.channels
            windows = channels.measure(levels, count, whole, tempo=self.options.up_speed) if levels.exists() else []
        warnings = decoded.warnings
        if len(self._tracks) > 1 and self.options.track is None:
            warnings.append("several_tracks")
        pcms = {wanted if isinstance(wanted, int) else 0: whole}
        if wanted == "separate" and count > 1 and not channels.are_same(windows):
            pcms = self._decode_apart(track, count)
        elif not isinstance(wanted, int) and count > 1:
            self._hear_cancelled(windows, track)
        if wanted == "separate" and 0 in pcms:
            warnings.append("one_channel")
        elif wanted is None and count == 2 and channels.differ(windows, self._spoken(windows)):
            warnings.append("channels_differ")
        return Sound(decoded, track, max(1, len(self._tracks)), whole, pcms, tuple(warnings))

    # -------------------------------------------------------------- tracks

    def _decode_likeliest(self, levels: Path) -> tuple[Decoded, int]:
        """Decode the tracks in turn until one has speech, else the first that can be read.

        Return where its sound lies, and its number.
        """
        read: dict[int, Decoded] = {}  # the tracks that could be read
        failures: dict[int, errors.Problem] = {}
        left = [self.known_track or (self.options.track if isinstance(self.options.track, int) else 1)]
        track = 0
        while left and len(read) < MOST_TRIED:
            track = left[0]
            try:
                read[track] = self._decode(track, levels)
            except (errors.DamagedFile, errors.NoAudio, errors.UnsupportedCodec) as problem:
                failures[track] = problem
            except _OtherTrack:
                pass  # now the tracks are known
            left = [number for number in self._order() if number not in read and number not in failures]
            is_only = not left and len(read) == 1
            if track in read and (is_only or self.speech.find(self._whole)):
                return read[track], track
        if not read:
            raise next(iter(failures.values()))
        first = next(iter(read))
        return self._decode(first, levels), first

    def _order(self) -> list[int]:
        """The numbers of the tracks that may be decoded, the likeliest first. Raises NoSuchTrack."""
        return [self.known_track] if self.known_track else tracks.in_order(self._tracks, self.options.track)

    def _decode(self, track: int, levels: Path) -> Decoded:
        """Decode one track. Raises _OtherTrack if it turns out to be none that is to be tried first."""
        is_first, wanted = not self._tracks, self.options.channels

        def on_tracks(found: tuple[Track, ...]) -> None:
            self._tracks = found
            if is_first and found and self._order()[0] != track:
                raise _OtherTrack

        def on_probe(probe: Probe) -> None:
            _check_channels(probe.channels, wanted)
            self._probe = probe
            self.on_probe(probe)

        def decode(pan: str) -> Decoded:
            return self._run(self._whole, track, pan, levels=levels, on_tracks=on_tracks, on_probe=on_probe)

        try:
            return decode(channels.alone(wanted) if isinstance(wanted, int) else "")
        except errors.DamagedFile:
            count = next((one.channels for one in self._tracks if one.number == track), 0)
            _check_channels(count, wanted)
            if isinstance(wanted, int) or count < 3:
                raise
            return decode(channels.plain_mix(count))  # FFmpeg has no mix for some layouts

    def _run(
        self,
        target: Path,
        track: int,
        pan: str,
        *,
        others: Mapping[Path, str] | None = None,
        levels: Path | None = None,
        on_tracks: Callable[[tuple[Track, ...]], None] = lambda _: None,
        on_probe: Callable[[Probe], None] = lambda _: None,
    ) -> Decoded:
        self.speech.forget(target)
        return audio.decode(
            self.source,
            target,
            name=self.name,
            container=self.container,
            max_seconds=self.max_seconds,
            tempo=self.options.up_speed,
            track=track,
            channels=pan,
            others=others,
            levels=levels,
            on_tracks=on_tracks,
            on_probe=on_probe,
            on_progress=self.on_progress,
            should_stop=self.should_stop,
        )

    # -------------------------------------------------------------- channels

    def _hear_cancelled(self, windows: Sequence[Window], track: int) -> None:
        """Where the mix loses a channel, decode what loses less, and keep it unless that has less speech."""
        layout = next((one.layout for one in self._tracks if one.number == track), "")
        pan = channels.choose(windows, low=channels.low_frequencies(layout))
        if not pan:
            return
        mix = self._whole
        with _temporary(mix, "other") as other:
            self._run(other, track, pan)
            if self.speech.seconds(other) >= KEPT_SPEECH * self.speech.seconds(mix):
                other.replace(mix)
                self.speech.move(other, mix)

    def _decode_apart(self, track: int, count: int) -> dict[int, Path]:
        pcms = {number: self.pcm_of(number) for number in range(1, count + 1)}
        others = {path: channels.alone(number) for number, path in pcms.items() if number > 1}
        self._run(pcms[1], track, channels.alone(1), others=others)
        return pcms

    def _spoken(self, windows: Sequence[Window]) -> list[Span]:
        """The spans of the windows in which somebody speaks, or all of them where speech is not looked for."""
        tempo, options = self.options.up_speed, self.options
        if cutting.is_uncut(sections=options.sections, vad_filter=options.vad_filter):
            return [(0.0, channels.WINDOW * len(windows))]
        return [(tempo * start, tempo * end) for start, end in self.speech.find(self._whole)]


def _check_channels(count: int, wanted: str | int | None) -> None:
    """Raises NoSuchChannel, TooManyChannels. A count of 0 is not known."""
    if isinstance(wanted, int) and 0 < count < wanted:
        raise errors.NoSuchChannel(wanted=wanted, count=count)
    if wanted == "separate" and count > channels.MOST:
        raise errors.TooManyChannels(count=count, most=channels.MOST)


def bytes_needed(probe: Probe, seconds: float, options: TranscriptionOptions) -> float:
    """The size of the files of `seconds` of decoded sound, at most."""
    apart = probe.channels if options.channels == "separate" else 0
    levels = BYTES_A_SAMPLE * audio.LEVELS_RATE * probe.channels
    return seconds * ((1 + apart) * BYTES_A_SECOND + levels)


@contextmanager
def _temporary(pcm: Path, name: str) -> Iterator[Path]:
    """The name of a file beside decoded sound, removed afterwards. A killed worker's goes with the sound."""
    path = pcm.with_name(f"{pcm.name}-{name}")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
