"""Which track and which channels of a recording are decoded, by the real FFmpeg and the real finder."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import nano
from transcription import errors
from transcription.sound import audio
from transcription.sound.decoding import Decoding, Sound, Speech
from transcription.sound.speech import SpeechFinder
from transcription.whisper.options import TranscriptionOptions

pytestmark = [pytest.mark.heavy, pytest.mark.needs("ffmpeg", "espeak-ng")]


@pytest.fixture(scope="module")
def finder() -> Iterator[SpeechFinder]:
    finder = SpeechFinder()
    yield finder
    finder.stop()


@pytest.fixture(scope="module")
def anna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.speak("Anna bought seven books yesterday.", "en", tmp_path_factory.mktemp("anna") / "anna.wav")


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ten") / "ten.wav"
    return nano.speak("Ten cats sleep in the house.", "en", path, voice="+f3")


def ffmpeg(*arguments: object) -> None:
    subprocess.run([audio.ffmpeg_path(), "-v", "error", "-y", *map(str, arguments)], check=True)


def film(path: Path, *sounds: Path, default: int = 0, languages: tuple[str, ...] = (), codec: str = "aac") -> Path:
    """A film of these sounds, of which the one with the number `default` is the default track."""
    inputs = [word for sound in sounds for word in ("-i", sound)]
    tracks: list[object] = []
    for index in range(len(sounds)):
        tracks += ["-map", f"{index + 1}:a", f"-disposition:a:{index}", "default" if index + 1 == default else "0"]
    for index, language in enumerate(languages):
        tracks += [f"-metadata:s:a:{index}", f"language={language}"]
    picture = ("-f", "lavfi", "-i", "color=red:size=32x32:rate=5:duration=2")
    ffmpeg(*picture, *inputs, "-map", "0:v", *tracks, "-c:v", "mjpeg", "-c:a", codec, path)
    return path


def silence(path: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "anullsrc=channel_layout=stereo:sample_rate=48000", "-t", 3, path)
    return path


def joined(path: Path, graph: str, *sounds: Path) -> Path:
    """A recording whose channels a graph of FFmpeg's makes of mono sounds."""
    inputs = [word for sound in sounds for word in ("-i", sound)]
    ffmpeg(*inputs, "-filter_complex", graph, path)
    return path


CALL = "[0:a]apad=pad_dur=2.5[x];[1:a]adelay=2500[y];[x][y]join=inputs=2:channel_layout=stereo"


class Result:
    """A decoded recording, with what was seen on the way."""

    def __init__(self, folder: Path, finder: SpeechFinder) -> None:
        self.folder, self.speech = folder, Speech(finder, lambda _: None)
        self.probes: list[audio.Probe] = []

    def of(self, source: Path, *, container: str = "", known_track: int | None = None, **asked: Any) -> Sound:
        return Decoding(
            source,
            lambda channel: self.folder / f"sound.pcm-{channel}",
            TranscriptionOptions(**asked),
            self.speech,
            name=source.name,
            max_seconds=60,
            container=container,
            known_track=known_track,
            on_probe=self.probes.append,
            on_progress=lambda _: None,
            should_stop=lambda: False,
        ).run()

    def spoken(self, sound: Sound) -> dict[int, float]:
        """How many seconds of speech each channel has."""
        return {channel: self.speech.seconds(pcm) for channel, pcm in sound.pcms.items()}


@pytest.fixture
def result(tmp_path: Path, finder: SpeechFinder) -> Result:
    folder = tmp_path / "decoded"
    folder.mkdir()
    return Result(folder, finder)


# ------------------------------------------------------------------ tracks


def test_the_track_that_a_player_plays_is_decoded(tmp_path: Path, result: Result, anna: Path, ten: Path) -> None:
    sound = result.of(film(tmp_path / "film.mkv", anna, ten, default=2, languages=("rus", "eng")))

    assert (sound.track, sound.tracks, sound.warnings) == (2, 2, ("several_tracks",))
    assert [track.language for track in result.probes[-1].tracks] == ["rus", "eng"]
    assert [track.is_default for track in result.probes[-1].tracks] == [False, True]


@pytest.mark.parametrize("wanted", [1, "ru", "rus"])
def test_a_track_is_had_by_its_number_and_by_its_language(
    tmp_path: Path, result: Result, anna: Path, ten: Path, wanted: int | str
) -> None:
    asked = result.of(film(tmp_path / "film.mkv", anna, ten, default=2, languages=("rus", "eng")), track=wanted)

    assert (asked.track, asked.tracks, asked.warnings) == (1, 2, ())


@pytest.mark.parametrize("wanted", [3, "de"])
def test_a_track_that_is_not_there_is_said_with_those_that_are(
    tmp_path: Path, result: Result, anna: Path, ten: Path, wanted: int | str
) -> None:
    path = film(tmp_path / "film.mkv", anna, ten, default=2, languages=("rus", "eng"))

    with pytest.raises(
        errors.NoSuchTrack, match=rf"no track {wanted}\. .*: 1 \(rus, aac, mono\); 2 \(eng, aac, mono\)"
    ):
        result.of(path, track=wanted)
    assert list(result.folder.iterdir()) == []


def test_a_default_track_without_speech_gives_way_to_one_that_has_it(
    tmp_path: Path, result: Result, anna: Path
) -> None:
    screen = film(tmp_path / "screen.mkv", silence(tmp_path / "silence.wav"), anna, default=1)

    sound = result.of(screen)

    assert (sound.track, sound.tracks) == (2, 2)
    assert result.probes[-1].channels == 1
    assert result.spoken(sound)[0] > 1
    assert result.of(screen, track=1).track == 1


def test_where_nobody_speaks_in_any_track_the_default_one_is_taken(tmp_path: Path, result: Result) -> None:
    hush = silence(tmp_path / "silence.wav")

    assert result.of(film(tmp_path / "film.mkv", hush, hush, hush, default=2)).track == 2


def test_a_track_that_cannot_be_read_gives_way(
    tmp_path: Path, result: Result, anna: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "film.mkv"
    ffmpeg(
        "-i", anna, "-map", "0", "-map", "0", "-c:a:0", "alac", "-c:a:1", "flac", "-disposition:a:0", "default", path
    )
    known = [word.replace(",alac,", ",") for word in audio.RESTRICTIONS]
    monkeypatch.setattr(audio, "RESTRICTIONS", tuple(known))

    assert result.of(path).track == 2
    with pytest.raises(errors.Problem):
        result.of(path, track=1)


def test_a_job_that_is_tried_again_keeps_its_track(tmp_path: Path, result: Result, anna: Path, ten: Path) -> None:
    assert result.of(film(tmp_path / "film.mkv", anna, ten, default=2), known_track=1).track == 1


def test_a_recording_of_one_track_takes_one_run(tmp_path: Path, result: Result, anna: Path) -> None:
    song = tmp_path / "song.mp3"
    picture = ("-f", "lavfi", "-i", "color=red:size=32x32:duration=1")
    ffmpeg("-i", anna, *picture, "-map", 0, "-map", 1, "-frames:v", 1, "-disposition:v", "attached_pic", song)

    sound = result.of(song)

    assert (sound.track, sound.tracks, sound.warnings, list(sound.pcms)) == (1, 1, (), [0])
    assert len(result.probes) == 1


def test_raw_sound_has_one_track_and_one_channel(tmp_path: Path, result: Result) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(32_000))

    assert (result.of(raw, container=audio.RAW).track, result.of(raw, container=audio.RAW).tracks) == (1, 1)
    with pytest.raises(errors.NoSuchTrack):
        result.of(raw, container=audio.RAW, track=2)
    with pytest.raises(errors.NoSuchChannel):
        result.of(raw, container=audio.RAW, channels=2)


# ------------------------------------------------------------------ channels


@pytest.mark.parametrize(
    "graph",
    [
        "[0:a]pan=stereo|c0=c0|c1=-1*c0",
        "[0:a]pan=stereo|c0=c0|c1=-0.7*c0",
        "[0:a]pan=stereo|c0=c0|c1=-1*c0,aecho=0.9:0.3:20:0.2",
        "[0:a]pan=5.1|FL=c0|FR=-1*c0",
        "[0:a]pan=5.1|FC=c0",
        "[0:a]pan=stereo|c1=0.03*c0",
        "[0:a]pan=stereo|c0=c0|c1=c0,adelay=0|12",
    ],
)
def test_a_voice_is_heard_however_its_channels_lie(tmp_path: Path, result: Result, anna: Path, graph: str) -> None:
    plain = result.spoken(result.of(anna))[0]

    sound = result.of(joined(tmp_path / "a.flac", graph, anna))

    assert sound.warnings == ()
    assert result.spoken(sound)[0] == pytest.approx(plain, abs=0.4)
    assert sorted(path.name for path in result.folder.iterdir()) == ["sound.pcm-0"]


def test_a_hum_that_cancels_is_left_to_cancel(tmp_path: Path, result: Result, anna: Path) -> None:
    hum = (
        "anoisesrc=amplitude=0.5:duration=4,aformat=sample_rates=16000,asplit[n][p];[p]volume=-1[m];[0:a]volume=0.3,asplit[a][b];"
        "[a][n]amix=normalize=0:duration=first[x];[b][m]amix=normalize=0:duration=first[y];"
        "[x]aformat=channel_layouts=mono[l];[y]aformat=channel_layouts=mono[r];[l][r]join=inputs=2:channel_layout=stereo"
    )

    sound = result.of(joined(tmp_path / "hum.flac", hum, anna))

    assert result.spoken(sound)[0] == pytest.approx(result.spoken(result.of(anna))[0], abs=0.5)


def test_two_people_are_decoded_apart(tmp_path: Path, result: Result, anna: Path, ten: Path) -> None:
    call = joined(tmp_path / "call.wav", CALL, anna, ten)

    mixed, apart = result.of(call), result.of(call, channels="separate")

    assert mixed.warnings == ("channels_differ",)
    assert result.of(call, channels="mix").warnings == ()
    assert (list(apart.pcms), apart.warnings) == ([1, 2], ())
    assert result.speech.find(apart.pcms[1])[-1][1] < 2.6
    assert result.speech.find(apart.pcms[2])[0][0] > 2.3


def test_one_channel_is_had_by_its_number(tmp_path: Path, result: Result, anna: Path, ten: Path) -> None:
    call = joined(tmp_path / "call.wav", CALL, anna, ten)

    sound = result.of(call, channels=2)

    assert (list(sound.pcms), sound.warnings) == ([2], ())
    assert result.speech.find(sound.pcms[2])[0][0] > 2.3
    with pytest.raises(errors.NoSuchChannel, match="no channel 3: the sound has 2"):
        result.of(call, channels=3)
    with pytest.raises(errors.NoSuchChannel, match="no channel 2: the sound has 1"):
        result.of(anna, channels=2)


@pytest.mark.parametrize("graph", ["[0:a]anull", "[0:a]pan=stereo|c0=c0|c1=c0", "[0:a]pan=stereo|c0=c0|c1=-0.5*c0"])
def test_the_same_sound_in_both_channels_is_decoded_once(
    tmp_path: Path, result: Result, anna: Path, graph: str
) -> None:
    sound = result.of(joined(tmp_path / "same.mp3", graph, anna), channels="separate")

    assert (list(sound.pcms), sound.warnings) == ([0], ("one_channel",))
    assert result.spoken(sound)[0] > 1


def test_channels_for_which_there_is_no_mix_are_mixed_alike(tmp_path: Path, result: Result, anna: Path) -> None:
    many = joined(
        tmp_path / "many.wav",
        "[0:a]asplit=10[a][b][c][d][e][f][g][h][i][j];[a][b][c][d][e][f][g][h][i][j]amerge=inputs=10",
        anna,
    )

    assert result.spoken(result.of(many))[0] > 1
    assert result.spoken(result.of(many, channels=8))[8] > 1
    with pytest.raises(errors.TooManyChannels, match="has 10 channels; at most 8"):
        result.of(many, channels="separate")
    with pytest.raises(errors.NoSuchChannel, match="no channel 11: the sound has 10"):
        result.of(many, channels=11)


def test_another_tempo_compares_the_same_channels(tmp_path: Path, result: Result, anna: Path) -> None:
    turned = joined(tmp_path / "a.flac", "[0:a]pan=stereo|c0=c0|c1=-1*c0", anna)

    sound = result.of(turned, up_speed=1.5)

    assert result.spoken(sound)[0] > 0.8
    assert sound.decoded.duration == pytest.approx(result.of(anna).decoded.duration, abs=0.1)
