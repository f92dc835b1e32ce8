"""Which of a recording's channels are decoded: compares their energies and their correlation, in tenths of a second.

A mix loses what has opposite signs in two channels. Where the mix is much quieter than the loudest channel, the
difference of the channels or the loudest of them is decoded in its place.
"""

import audioop
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import StatisticsError, correlation, fmean, median, pstdev
from typing import BinaryIO

from transcription.sound.audio import LEVELS_RATE
from transcription.whisper.cutting import Span
from transcription.whisper.pcm import BYTES_A_SAMPLE, SAMPLE_RATE

MOST = 8  # channels that are decoded apart

WINDOW = 0.1  # seconds
BLOCK = 10  # windows
# In dB.
QUIETEST = 30  # below the loud windows, down to which a window counts
FAINTEST = -78  # of the loudest possible; nothing below it counts
ALONE = 12  # a channel that is so much louder than the other has a voice of its own
# What of the loudest channel may be missing in what is decoded: a voice in one of two channels is mixed at -6 dB, one
# in the rear of 5.1 at -17 dB.
LOST, LOST_OF_MANY = 7.5, 18
STEADY = 3  # a noise whose level varies by less is no voice
LEAST_SHARE = 0.01  # of the blocks; where the mix loses no more than this it stays
SAME = 0.97  # correlation of channels that have the same sound; a lossy codec takes some of it


@dataclass(frozen=True)
class Window:
    """The mean squares of the channels in a window, and of two channels the mean product."""

    energies: tuple[float, ...]
    product: float = 0.0
    mixed: float = 0.0  # the mean square of the mix

    @property
    def loudest(self) -> float:
        return max(self.energies)

    @property
    def difference(self) -> float:
        """The mean square of half the difference of two channels."""
        return max(0.0, (self.energies[0] + self.energies[1] - 2 * self.product) / 4)


# What is decoded of the channels, in the terms of FFmpeg's filter pan.
MIX, DIFFERENCE = "", "0.5*c0-0.5*c1"  # FFmpeg mixes by the layout


def alone(channel: int) -> str:
    return f"c{channel - 1}"


def plain_mix(channels: int) -> str:
    """All channels at equal weights, for a layout that FFmpeg cannot mix."""
    return "<" + "+".join(f"c{index}" for index in range(channels))


def measure(levels: Path, channels: int, mixed: Path, *, tempo: float = 1.0) -> list[Window]:
    """The windows of a recording. `levels` has all channels (`audio.decode`), `mixed` what is decoded of them."""
    with levels.open("rb") as file, mixed.open("rb") as mix:
        pieces = _pieces(file, round(WINDOW * LEVELS_RATE) * BYTES_A_SAMPLE * channels)
        mixes = _pieces(mix, round(WINDOW * SAMPLE_RATE / tempo) * BYTES_A_SAMPLE)
        return [_window(piece, channels, next(mixes, b"")) for piece in pieces]


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while len(piece := file.read(size)) == size:
        yield piece


def _window(piece: bytes, channels: int, mixed: bytes) -> Window:
    samples = array("h", piece)
    parts = [samples[index::channels].tobytes() for index in range(channels)]
    energies = tuple(float(audioop.rms(part, BYTES_A_SAMPLE)) ** 2 for part in parts)
    if channels == 2:
        product = audioop.findfactor(*parts) * energies[1] if min(energies) else 0.0
        product = math.copysign(min(abs(product), math.sqrt(energies[0] * energies[1])), product)
        return Window(energies, product, max(0.0, (energies[0] + energies[1] + 2 * product) / 4))
    return Window(energies, mixed=float(audioop.rms(mixed, BYTES_A_SAMPLE)) ** 2)


def active(windows: Sequence[Window]) -> list[Window]:
    """The windows in which something sounds."""
    loud = sorted(window.loudest for window in windows)
    if not loud:
        return []
    floor = max(loud[len(loud) * 95 // 100] / _ratio(QUIETEST), (2**15) ** 2 * _ratio(FAINTEST))
    return [window for window in windows if window.loudest >= floor]


def choose(windows: Sequence[Window], *, low: int | None = None) -> str:
    """What loses the least of the channels: the mix if it loses nothing, else the difference or the loudest channel.

    `low` is the number of the channel for low frequencies, which no mix has.
    """
    sounding = active([_without(window, low) for window in windows] if low else windows)
    if not sounding:
        return MIX
    count = len(sounding[0].energies)
    blocks = [sounding[start : start + BLOCK] for start in range(0, len(sounding), BLOCK)]
    losses = {MIX: _lost(blocks, [window.mixed for window in sounding])}
    if losses[MIX] <= LEAST_SHARE * len(blocks):
        return MIX
    if count == 2:
        losses[DIFFERENCE] = _lost(blocks, [window.difference for window in sounding])
    loudest = max(range(count), key=lambda index: fmean(_decibels(window.energies[index]) for window in sounding))
    losses[alone(loudest + 1)] = _lost(blocks, [window.energies[loudest] for window in sounding])
    return min(losses, key=losses.__getitem__)


def _without(window: Window, low: int) -> Window:
    energies = tuple(0.0 if number == low else energy for number, energy in enumerate(window.energies, start=1))
    return Window(energies, window.product, window.mixed)


def _lost(blocks: Sequence[Sequence[Window]], decoded: Iterable[float]) -> int:
    """The number of blocks of which most is lost in a sound with these mean squares."""
    rest = iter(decoded)
    lost = 0
    for block in blocks:
        most = _ratio(LOST if len(block[0].energies) == 2 else LOST_OF_MANY)
        lost += sum(next(rest) * most < window.loudest for window in block) > len(block) / 2
    return lost


def are_same(windows: Sequence[Window]) -> bool:
    """Whether two channels have the same sound, if not equally loud or with opposite signs."""
    sounding = [window for window in active(windows) if len(window.energies) == 2 and min(window.energies)]
    if not sounding or len(sounding) < 0.9 * len(active(windows)):
        return False
    first, second = (sum(window.energies[channel] for window in sounding) for channel in (0, 1))
    if abs(sum(window.product for window in sounding)) < SAME * math.sqrt(first * second):
        return False
    # In a call each channel may have a faint copy of the other: then one is louder now, and the other then.
    gains = [_decibels(window.energies[0]) - _decibels(window.energies[1]) for window in sounding]
    return sum(abs(gain - median(gains)) < STEADY for gain in gains) > 0.9 * len(gains)


def differ(windows: Sequence[Window], speech: Sequence[Span]) -> bool:
    """Whether two channels hold two voices, in turns or at once. `speech` are the spans in which somebody speaks.

    In a stereo recording of a room, however far its microphones are apart, both channels get louder and softer
    together. Of two people who speak into a microphone each, the levels have nothing to do with each other.
    """
    spans = [(round(start / WINDOW), round(end / WINDOW)) for start, end in speech]
    spoken = active([window for start, end in spans for window in windows[start:end]])
    if len(spoken) < 2 * BLOCK or len(spoken[0].energies) != 2:
        return False
    first, second = ([_decibels(window.energies[channel]) for window in spoken] for channel in (0, 1))
    pairs = list(zip(first, second, strict=True))
    of_first = sum(left - right > ALONE for left, right in pairs)
    of_second = sum(right - left > ALONE for left, right in pairs)
    if min(of_first, of_second) < 0.03 * len(spoken) or min(pstdev(first), pstdev(second)) < STEADY:
        return False
    try:
        return correlation(first, second) < 0.5
    except StatisticsError:
        return False


def low_frequencies(layout: str) -> int | None:
    """The number of the channel for low frequencies in a layout of FFmpeg's, such as `5.1(side)`; None without one."""
    front, _, low = layout.partition("(")[0].partition(".")
    return min(int(front), 3) + 1 if low.startswith("1") and front.isdecimal() else None


def _ratio(decibels: float) -> float:
    return float(10 ** (decibels / 10))


def _decibels(energy: float) -> float:
    return 10 * math.log10(max(1.0, energy))
