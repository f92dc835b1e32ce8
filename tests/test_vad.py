"""Finding speech: Silero's network over a recording in pieces, and the child process that runs it."""

import json
import signal
import subprocess
import sys
import wave
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faster_whisper.vad import get_speech_timestamps
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import noises
from tests.server import NANO
from transcription import processes
from transcription.whisper import vad
from transcription.whisper.cutting import Span, cut
from transcription.whisper.pcm import SAMPLE_RATE

pytestmark = pytest.mark.heavy

RATE = SAMPLE_RATE
WINDOW_SECONDS = vad.WINDOW / RATE
NEAR = 0.2  # seconds within which a place was found: Silero is sure a little after speech begins

Samples = NDArray[np.int16]


def said(name: str) -> Samples:
    """A sentence of `tests/data/nano`, which begins and ends with speech."""
    with wave.open(str(NANO / "nano" / name)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.int16)


def noise(seconds: float) -> Samples:
    return (np.random.default_rng(9).standard_normal(round(seconds * RATE)) * 1000).astype(np.int16)


def write(path: Path, *parts: Samples) -> Path:
    """A PCM file of these parts, one after the other."""
    path.write_bytes(np.concatenate(parts).astype("<i2").tobytes())
    return path


def quiet(path: Path, seconds: int) -> Path:
    """A PCM file of silence that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(2 * RATE * seconds)
    return path


def conversation(seconds: float) -> tuple[list[Samples], list[Span]]:
    """Sentences with pauses of half a second to ten, for about so long, and where each is."""
    rng = np.random.default_rng(8)
    bears, mice = said("bears.wav"), said("mice.wav")
    parts, places, now = [], [], 0
    while now < seconds * RATE:
        pause = silence(rng.choice([0.6, 1.2, 3.0, 10.0]))
        sentence = (bears, mice)[rng.integers(2)]
        parts += [pause, sentence]
        now += len(pause) + len(sentence)
        places.append(((now - len(sentence)) / RATE, now / RATE))
    return parts, places


def found_in(pcm: Path, **options: int) -> list[Span]:
    *_, last = vad.find(pcm, **options)
    assert last["event"] == "speech"
    return [tuple(stretch) for stretch in last["stretches"]]


def assert_near(found: list[Span], places: list[Span], tolerance: float = NEAR) -> None:
    assert np.array(found) == pytest.approx(np.array(places), abs=tolerance)


# ------------------------------------------------------------------ what is found


def test_speech_is_found_where_it_is(tmp_path: Path) -> None:
    parts, places = conversation(90)
    assert_near(found_in(write(tmp_path / "talk.pcm", *parts)), places)


@pytest.mark.parametrize("nothing", [silence(70), noise(70), silence(0.01), silence(0)])
def test_in_silence_and_noise_nothing_is_found(tmp_path: Path, nothing: Samples) -> None:
    assert found_in(write(tmp_path / "nothing.pcm", nothing)) == []


def test_speech_in_noise_is_found(tmp_path: Path) -> None:
    bears = said("bears.wav")
    hiss = noise(5)[: 5 * RATE] // 8
    pcm = write(tmp_path / "hiss.pcm", hiss, bears + hiss[: len(bears)], hiss)
    assert_near(found_in(pcm), [(5.0, 5.0 + len(bears) / RATE)], tolerance=0.4)


@pytest.mark.parametrize("kind", [*noises.KINDS])
def test_no_sound_is_speech_beyond_doubt_if_nobody_speaks(tmp_path: Path, kind: str) -> None:
    """Of some of them Silero alone says the opposite, of others the second network."""
    sounds = [noises.make(kind, seed, seconds=7, level=level) for seed, level in ((1, -20), (2, -45))]
    pcm = write(tmp_path / "nobody.pcm", *sounds)
    *_, last = vad.find(pcm)
    assert last["stretches"] == last["doubtful"]
    assert sum(end - start for start, end in last["stretches"]) < 8


@pytest.mark.parametrize("level", [-20, -50, -60, -66])
def test_speech_is_found_at_any_level(tmp_path: Path, level: float) -> None:
    voice = said("bears.wav").astype(np.float64) / 32768
    voice *= 10 ** (level / 20) / np.sqrt(np.mean(voice**2))
    quiet_voice = np.round(32768 * voice).astype(np.int16)
    pcm = write(tmp_path / "quiet.pcm", silence(5), quiet_voice, silence(5))
    assert_near(found_in(pcm), [(5.0, 5.0 + len(voice) / RATE)], tolerance=0.3)


def test_a_quiet_voice_after_a_loud_one_is_found(tmp_path: Path) -> None:
    bears = said("bears.wav")
    pcm = write(tmp_path / "both.pcm", bears, silence(30), bears // 200, silence(3))
    length = len(bears) / RATE
    assert_near(found_in(pcm), [(0.0, length), (length + 30, 2 * length + 30)], tolerance=0.3)


def test_gains_raise_what_is_quiet_and_lower_nothing(tmp_path: Path) -> None:
    pcm = write(tmp_path / "levels.pcm", noise(60), noise(60) // 100, silence(60))
    gain = vad.gains(pcm)
    assert len(gain) >= pcm.stat().st_size / 2 / vad.WINDOW
    at = {seconds: gain[round(seconds / WINDOW_SECONDS)] for seconds in (20, 90, 150)}
    assert at[20] == pytest.approx(vad.LOUDNESS / (1000 / 32768), rel=0.1)
    assert at[90] == pytest.approx(100 * at[20], rel=0.1)
    assert at[150] == pytest.approx(vad.MOST_GAIN)
    assert gain.min() >= 1


def test_speech_begins_where_it_does_after_music(tmp_path: Path) -> None:
    """Silero alone is late there."""
    music = noises.make("piano", 3, seconds=20, level=-22)
    bears = said("bears.wav")
    pcm = write(tmp_path / "after.pcm", music, bears, silence(3))
    (start, end), *others = found_in(pcm)
    assert others == []
    assert start == pytest.approx(20.0, abs=0.4)
    assert end == pytest.approx(20.0 + len(bears) / RATE, abs=0.3)


def heard(probabilities: list[float], **found: list[Span]) -> tuple[list[Span], list[Span]]:
    """The stretches and those in doubt, of windows that last a tenth of a second each, as near as can be."""
    of_windows = np.repeat(np.array(probabilities, np.float32), 3)
    return vad.weighed(of_windows, vad.Found(**found))


def test_what_one_network_hears_is_in_doubt() -> None:
    second = 3 * WINDOW_SECONDS * 10
    sure, silent = [0.9] * 10, [0.0] * 10
    assert heard(silent + sure + silent, speech=[(second, 2 * second)])[1] == []
    assert heard(silent + sure + silent)[0] == heard(silent + sure + silent)[1] != []
    faint = heard(silent + [0.2] * 10 + silent, speech=[(second, 2 * second)])
    assert faint[0] == faint[1] == [(pytest.approx(second, abs=0.04), pytest.approx(2 * second, abs=0.04))]
    assert heard(silent + [0.05] * 10 + silent, speech=[(second, 2 * second)]) == ([], [])


def test_what_may_be_music_is_speech_only_if_silero_is_sure() -> None:
    silent, music = [0.0] * 10, [(0.0, 3.0)]
    assert heard([*silent, *[0.7] * 10, *silent], music=music) == ([], [])
    assert heard([*silent, *[0.7] * 10, *silent], singing=music) == ([], [])
    sure = heard([*silent, *[0.95] * 10, *silent], music=music)
    assert sure[0] == sure[1] != []
    sung = heard([*silent, *[0.7] * 10, *silent], singing=music, speech=[(1.0, 1.9)])
    assert sung[0] == sung[1] != []
    spoken = heard([*silent, *[0.8] * 10, *silent], music=music, speech=[(1.0, 1.9)])
    assert (len(spoken[0]), spoken[1]) == (1, [])


def test_where_pieces_begin_changes_nothing(tmp_path: Path) -> None:
    """Pieces of one second to sixty begin in the middle of words; one of five minutes holds everything."""
    parts, _ = conversation(150)
    pcm = write(tmp_path / "talk.pcm", *parts)
    whole = found_in(pcm, piece_seconds=300)
    assert len(whole) > 20
    for seconds in (1, 7, 20, 60):
        assert_near(found_in(pcm, piece_seconds=seconds), whole, tolerance=0.001)


def test_the_network_does_not_notice_where_pieces_begin(tmp_path: Path) -> None:
    parts, _ = conversation(30)
    pcm = write(tmp_path / "talk.pcm", *parts)
    (whole,) = vad.listen(pcm, windows=10000)
    assert len(whole) > 900
    for windows in (1, 31, 500):
        assert np.concatenate(list(vad.listen(pcm, windows=windows))) == pytest.approx(whole, abs=1e-4)


def test_speech_that_is_cut_off_ends_with_the_recording(tmp_path: Path) -> None:
    """Not with its last window, half of which is not there."""
    assert found_in(write(tmp_path / "cut.pcm", said("bears.wav")[:RATE])) == [(pytest.approx(0.0, abs=NEAR), 1.0)]


def test_without_pauses_and_over_many_pieces_speech_is_one_stretch(tmp_path: Path) -> None:
    pcm = write(tmp_path / "endless.pcm", *[said("bears.wav"), said("mice.wav")] * 20)
    length = pcm.stat().st_size / 2 / RATE
    assert_near(found_in(pcm, piece_seconds=5), [(0.0, length)])


def test_progress_is_told_after_each_piece_and_ends_with_the_recording(tmp_path: Path) -> None:
    pcm = write(tmp_path / "talk.pcm", silence(2.5))
    events = list(vad.find(pcm, piece_seconds=1))
    piece = RATE // vad.WINDOW * WINDOW_SECONDS
    assert events == [
        *({"event": "progress", "seconds": pytest.approx(count * piece)} for count in (1, 2)),
        {"event": "progress", "seconds": 2.5},
        {"event": "speech", "stretches": [], "doubtful": []},
    ]


def test_what_the_sections_keep_is_what_faster_whisper_keeps(tmp_path: Path) -> None:
    parts, _ = conversation(150)
    pcm = write(tmp_path / "talk.pcm", *parts)
    theirs = get_speech_timestamps(np.fromfile(pcm, "<i2").astype(np.float32) / 32768.0)
    (section,) = cut(found_in(pcm), pcm.stat().st_size / 2 / RATE, sections=1)
    assert len(section.spans) > 5
    assert_near(list(section.spans), [(s["start"] / RATE, s["end"] / RATE) for s in theirs], tolerance=0.001)


# ------------------------------------------------------------------ the thresholds

SPEECH, MAYBE, SILENCE = 0.9, 0.4, 0.1


def windows(*runs: tuple[float, int]) -> list[tuple[int, int]]:
    """The stretches, in windows, of runs of a probability."""
    found = vad.stretches([probability for probability, length in runs for _ in range(length)])
    return [(round(start / WINDOW_SECONDS), round(end / WINDOW_SECONDS)) for start, end in found]


def test_a_silence_shorter_than_a_breath_ends_nothing() -> None:
    assert windows((SPEECH, 5), (SILENCE, 10), (SPEECH, 5)) == [(0, 20)]
    assert windows((SPEECH, 5), (SILENCE, 11), (SPEECH, 5)) == [(0, 5), (16, 21)]


def test_what_is_neither_speech_nor_silence_goes_on_with_what_was() -> None:
    assert windows((MAYBE, 30)) == []
    assert windows((SPEECH, 5), (MAYBE, 30), (SPEECH, 5)) == [(0, 40)]
    assert windows((SPEECH, 5), (SILENCE, 1), (MAYBE, 30), (SILENCE, 1)) == [(0, 5)]


def test_speech_until_the_end_ends_with_the_recording() -> None:
    assert windows((SILENCE, 5), (SPEECH, 5)) == [(5, 10)]
    assert windows((SILENCE, 5), (SPEECH, 5), (SILENCE, 3)) == [(5, 10)]


@given(st.lists(st.sampled_from([SPEECH, MAYBE, SILENCE]), max_size=300))
def test_stretches_are_in_order_and_hold_all_that_is_surely_speech(probabilities: list[float]) -> None:
    found = windows(*((probability, 1) for probability in probabilities))
    edges = [edge for stretch in found for edge in stretch]
    assert edges == sorted(set(edges))
    assert all(after - before > 10 for (_, before), (after, _) in zip(found, found[1:], strict=False))
    held = {window for start, end in found for window in range(start, end)}
    assert held <= set(range(len(probabilities)))
    assert held >= {window for window, probability in enumerate(probabilities) if probability == SPEECH}


# ------------------------------------------------------------------ the child process

PROGRAM = [sys.executable, "-m", "transcription.whisper.vad"]


class Child:
    """The program as a worker starts it."""

    def __init__(self) -> None:
        self.process = processes.start(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, **command: object) -> None:
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def hear_until(self, event: str, recording: str) -> list[dict]:
        """All events up to this one."""
        heard = [self.hear()]
        while (heard[-1]["event"], heard[-1]["id"]) != (event, recording):
            heard.append(self.hear())
        return heard

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.stop()


def test_the_child_tells_progress_and_then_where_speech_is(child: Child, tmp_path: Path) -> None:
    parts, places = conversation(130)
    pcm = write(tmp_path / "talk.pcm", *parts)
    child.tell(do="find", id="talk", pcm=str(pcm))
    *progress, speech = child.hear_until("speech", "talk")
    assert len(progress) > 5
    assert {event["event"] for event in progress} == {"progress"}
    assert progress[-1]["seconds"] == pcm.stat().st_size / 2 / RATE
    assert_near(speech["stretches"], places)


def test_a_recording_that_is_gone_is_an_error_and_the_next_one_is_heard(child: Child, tmp_path: Path) -> None:
    child.tell(do="find", id="gone", pcm=str(tmp_path / "gone.pcm"))
    (error,) = child.hear_until("error", "gone")
    assert error["detail"].startswith("FileNotFoundError")
    child.tell(do="find", id="here", pcm=str(write(tmp_path / "here.pcm", silence(1), said("mice.wav"))))
    assert len(child.hear_until("speech", "here")[-1]["stretches"]) == 1


def test_a_voice_message_does_not_wait_for_a_lecture(child: Child, tmp_path: Path) -> None:
    lecture, message = quiet(tmp_path / "lecture.pcm", 1200), quiet(tmp_path / "message.pcm", 5)
    child.tell(do="find", id="lecture", pcm=str(lecture))
    child.hear_until("progress", "lecture")
    child.tell(do="find", id="message", pcm=str(message))
    before = child.hear_until("speech", "message")
    assert "speech" not in [event["event"] for event in before if event["id"] == "lecture"]
    child.hear_until("speech", "lecture")


def test_a_recording_that_is_closed_is_forgotten(child: Child, tmp_path: Path) -> None:
    child.tell(do="find", id="cancelled", pcm=str(quiet(tmp_path / "lecture.pcm", 3600)))
    child.hear_until("progress", "cancelled")
    child.tell(do="close", id="cancelled")
    assert "speech" not in [event["event"] for event in child.hear_until("closed", "cancelled")]
    child.tell(do="find", id="next", pcm=str(quiet(tmp_path / "message.pcm", 1)))
    assert {event["id"] for event in child.hear_until("speech", "next")} == {"next"}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a Mac does not tell another process's memory there")
def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    parts, _ = conversation(120)
    two_minutes = np.concatenate(parts)
    pcm = write(tmp_path / "half-an-hour.pcm", *[two_minutes] * 15)
    child = Child()
    child.tell(do="find", id="long", pcm=str(pcm))
    child.hear_until("speech", "long")
    status = Path(f"/proc/{child.process.pid}/status").read_text()
    child.stop()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert pcm.stat().st_size > 50e6
    assert peak < 250 * 1024


def test_what_the_network_gave_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its small arrays would lie between its large ones, and after an hour and a half memory was half a gigabyte."""
    given: list[weakref.ref] = []

    def listen(pcm: Path, *, windows: int, hear: object) -> Iterator[NDArray[np.float32]]:
        for _ in range(3):
            piece = np.zeros(windows, np.float32)
            given.append(weakref.ref(piece))
            yield piece

    monkeypatch.setattr(vad, "listen", listen)
    for _ in vad.find(quiet(tmp_path / "quiet.pcm", 60), piece_seconds=20):
        assert [piece() for piece in given[:-1]] == [None] * (len(given) - 1)
    assert len(given) == 3


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """It holds the parent's standard output open: as long as that has not ended, somebody lives."""
    pcm = quiet(tmp_path / "lecture.pcm", 36000)
    program = f"""
import subprocess, time
child = subprocess.Popen({PROGRAM!r}, stdin=subprocess.PIPE)
child.stdin.write(b'{json.dumps({"do": "find", "id": "a", "pcm": str(pcm)})}\\n')
child.stdin.flush()
time.sleep(60)
"""
    parent = processes.start([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert b"progress" in parent.stdout.readline()
    parent.send_signal(signal.SIGKILL)
    rest, _ = parent.communicate(timeout=10)
    assert b"speech" not in rest


def test_ctrl_c_and_what_libraries_print_do_not_reach_the_events(tmp_path: Path) -> None:
    program = """
from transcription.whisper import json_lines
parent = json_lines.Parent()
print("a library's words")
parent.say(parent.commands.get())
"""
    child = processes.start(
        [sys.executable, "-u", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    words = child.stderr.readline()
    child.send_signal(signal.SIGINT)
    child.stdin.write(b'{"do": "answer"}\n')
    child.stdin.flush()
    heard = child.stdout.readline()
    child.communicate(timeout=10)
    assert (words.strip(), json.loads(heard)) == (b"a library's words", {"do": "answer"})


def test_a_parent_that_speaks_nonsense_loses_its_child() -> None:
    child = processes.start(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child.stdin.write(b"hello\n")
    child.stdin.flush()
    assert child.wait(timeout=10) == 0
    child.stdin.close()
    child.stdout.close()
