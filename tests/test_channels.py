"""What is decoded of the channels, from their energies and their correlation."""

import math
import random
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from transcription.sound import channels
from transcription.sound.audio import LEVELS_RATE
from transcription.sound.channels import Window
from transcription.whisper.pcm import SAMPLE_RATE

SECONDS = 12
Sound = list[float]


def voice(seed: int, *, phase: float = 0.0) -> Sound:
    """Syllables of noise with pauses between them, four a second; silent half of each three seconds."""
    rng = random.Random(seed)
    sound, smooth = [], 0.0
    for sample in range(SECONDS * LEVELS_RATE):
        at = sample / LEVELS_RATE
        smooth = 0.7 * smooth + rng.gauss(0, 0.1)
        is_talking = (at + phase) % 3 < 1.5
        sound.append(smooth * abs(math.sin(4 * math.pi * at)) if is_talking else rng.gauss(0, 1e-4))
    return sound


def noise(seed: int, loud: float) -> Sound:
    rng = random.Random(seed)
    return [rng.gauss(0, loud) for _ in range(SECONDS * LEVELS_RATE)]


def times(factor: float, sound: Sound) -> Sound:
    return [factor * sample for sample in sound]


def plus(one: Sound, other: Sound) -> Sound:
    return [sum(pair) for pair in zip(one, other, strict=True)]


def later(sound: Sound, seconds: float) -> Sound:
    samples = round(seconds * LEVELS_RATE)
    return [0.0] * samples + sound[: len(sound) - samples]


SILENCE = [0.0] * (SECONDS * LEVELS_RATE)
ANNA, IVAN = voice(1), voice(2, phase=1.5)
AT_ONCE = voice(3)


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., list[Window]]:
    def measure(*sounds: Sound, low: int | None = None) -> list[Window]:
        levels, mixed = tmp_path / "levels", tmp_path / "mixed"
        frames = [round(30_000 * max(-1, min(1, sample))) for frame in zip(*sounds, strict=True) for sample in frame]
        levels.write_bytes(array("h", frames).tobytes())
        heard = [sound for number, sound in enumerate(sounds, start=1) if number != low]
        mix = [round(30_000 * max(-1, min(1, sum(frame) / len(frame)))) for frame in zip(*heard, strict=True)]
        again = SAMPLE_RATE // LEVELS_RATE
        mixed.write_bytes(array("h", [sample for sample in mix for _ in range(again)]).tobytes())
        return channels.measure(levels, len(sounds), mixed)

    return measure


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (ANNA, ANNA),
        (ANNA, SILENCE),
        (SILENCE, ANNA),
        (ANNA, times(0.03, ANNA)),
        (ANNA, later(ANNA, 0.012)),
        (plus(ANNA, noise(4, 0.01)), plus(ANNA, noise(5, 0.01))),
        (ANNA, IVAN),
        (ANNA, AT_ONCE),
        (SILENCE, SILENCE),
        (times(0.003, ANNA), times(0.003, ANNA)),
    ],
)
def test_an_ordinary_recording_is_mixed(measured: Callable[..., list[Window]], left: Sound, right: Sound) -> None:
    assert channels.choose(measured(left, right)) == channels.MIX


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (ANNA, times(-1, ANNA)),
        (ANNA, times(-0.5, ANNA)),
        (plus(ANNA, noise(4, 0.003)), plus(times(-1, ANNA), noise(5, 0.003))),
        (times(0.01, ANNA), times(-0.01, ANNA)),
    ],
)
def test_channels_that_cancel_are_subtracted(measured: Callable[..., list[Window]], left: Sound, right: Sound) -> None:
    assert channels.choose(measured(left, right)) == channels.DIFFERENCE


def test_of_channels_that_cancel_now_and_add_up_then_the_louder_is_taken(
    measured: Callable[..., list[Window]],
) -> None:
    half = len(ANNA) // 2
    turned = ANNA[:half] + times(-1, ANNA[half:])

    assert channels.choose(measured(times(0.9, ANNA), turned)) == channels.alone(2)


def test_a_voice_in_two_of_six_channels_that_cancel_is_heard_in_one(measured: Callable[..., list[Window]]) -> None:
    rumble = noise(6, 0.3)
    windows = measured(ANNA, times(-1, ANNA), SILENCE, rumble, SILENCE, SILENCE, low=4)

    assert channels.choose(windows, low=4) in (channels.alone(1), channels.alone(2))


@pytest.mark.parametrize(
    ("layout", "low"),
    [("5.1(side)", 4), ("5.1", 4), ("7.1", 4), ("2.1", 3), ("stereo", None), ("4.0", None), ("6 channels", None)],
)
def test_the_channel_for_low_frequencies_is_known_by_the_layout(layout: str, low: int | None) -> None:
    assert channels.low_frequencies(layout) == low


@pytest.mark.parametrize(
    ("left", "right"),
    [(ANNA, IVAN), (plus(ANNA, times(0.05, IVAN)), plus(IVAN, times(0.05, ANNA))), (ANNA, times(0.4, IVAN))],
)
def test_two_voices_in_two_channels_differ(measured: Callable[..., list[Window]], left: Sound, right: Sound) -> None:
    assert channels.differ(measured(left, right), [(0.0, SECONDS)])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (ANNA, ANNA),
        (ANNA, SILENCE),
        (ANNA, noise(4, 0.05)),
        (ANNA, later(ANNA, 0.012)),
        (plus(ANNA, times(0.5, later(IVAN, 0.003))), plus(IVAN, times(0.5, later(ANNA, 0.003)))),  # a room, two seats
        (SILENCE, SILENCE),
    ],
)
def test_a_room_in_stereo_does_not_differ(measured: Callable[..., list[Window]], left: Sound, right: Sound) -> None:
    assert not channels.differ(measured(left, right), [(0.0, SECONDS)])


def test_where_nobody_speaks_nothing_differs(measured: Callable[..., list[Window]]) -> None:
    assert not channels.differ(measured(ANNA, IVAN), [])


def test_the_same_sound_is_known_however_loud(measured: Callable[..., list[Window]]) -> None:
    assert channels.are_same(measured(ANNA, times(0.5, ANNA)))
    assert channels.are_same(measured(ANNA, times(-1, ANNA)))
    assert not channels.are_same(measured(ANNA, IVAN))
    assert not channels.are_same(measured(plus(ANNA, times(0.1, IVAN)), plus(IVAN, times(0.1, ANNA))))
    assert not channels.are_same(measured(ANNA, SILENCE))
    assert not channels.are_same([])
