"""Makes sounds in which nobody speaks, from a seed: noise, hum, tones, music, breath, keyboards, rain, silence."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RATE = 16000
MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)  # semitones
# The first three formants of five vowels, in Hz (Peterson and Barney 1952).
VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))

Rng = np.random.Generator
Sound = NDArray[np.float64]  # (samples,)
UNSCALED = ("dither", "zero", "clipped")  # kinds whose level is what makes them


def make(kind: str, seed: int, seconds: float, level: float) -> NDArray[np.int16]:
    """A sound of a kind, with an RMS of `level` dBFS."""
    rng = np.random.default_rng([seed, *kind.encode()])
    sound = KINDS[kind](rng, seconds)
    if kind not in UNSCALED:
        sound = sound * 10 ** (level / 20) / (np.sqrt(np.mean(sound**2)) + 1e-12)
        sound = sound + rng.uniform(-0.5, 0.5, len(sound)) / 32768
    return np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)


def _times(seconds: float) -> Sound:
    return np.arange(round(seconds * RATE)) / RATE


def _shaped(rng: Rng, seconds: float, power: float) -> Sound:
    """Noise whose spectrum falls with a power of the frequency."""
    samples = round(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum /= np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 20) ** power
    noise = np.fft.irfft(spectrum, samples)
    return noise / np.abs(noise).max()


def _band(sound: Sound, low: float, high: float) -> Sound:
    spectrum, frequencies = np.fft.rfft(sound), np.fft.rfftfreq(len(sound), 1 / RATE)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    return np.fft.irfft(spectrum, len(sound))


def _white(rng: Rng, seconds: float) -> Sound:
    return rng.standard_normal(round(seconds * RATE))


def _hum(rng: Rng, seconds: float) -> Sound:
    base, times = rng.choice([50, 60]), _times(seconds)
    hum = sum(rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * base * k * times + rng.uniform(0, 6)) for k in range(1, 10))
    return hum + 0.01 * rng.standard_normal(len(times))


def _tone(rng: Rng, seconds: float) -> Sound:
    return np.sin(2 * np.pi * rng.uniform(100, 3000) * _times(seconds))


def _sweep(rng: Rng, seconds: float) -> Sound:
    low, high = np.sort(rng.uniform(80, 4000, 2))
    times = _times(seconds)
    return np.sin(2 * np.pi * (low * times + (high - low) * times**2 / 2 / seconds))


def _dtmf(rng: Rng, seconds: float) -> Sound:
    sound = np.zeros(round(seconds * RATE))
    place = 0
    while place < len(sound):
        times = _times(rng.uniform(0.08, 0.3))
        rows, columns = rng.choice([697, 770, 852, 941]), rng.choice([1209, 1336, 1477])
        _add(sound, place, np.sin(2 * np.pi * rows * times) + np.sin(2 * np.pi * columns * times))
        place += len(times) + round(rng.uniform(0.05, 0.6) * RATE)
    return sound


def _ringing(rng: Rng, seconds: float) -> Sound:
    frequency, times = rng.choice([425, 440, 480]), _times(seconds)
    on, off = (0.35, 0.35) if rng.random() < 0.5 or seconds < 8 else (1.0, 4.0)
    return np.sin(2 * np.pi * frequency * times) * (times % (on + off) < on)


def _siren(rng: Rng, seconds: float) -> Sound:
    times = _times(seconds)
    phase = 2 * np.pi * np.cumsum(700 + 400 * np.sin(2 * np.pi * times * rng.uniform(0.2, 1))) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, 5))


def _modem(rng: Rng, seconds: float) -> Sound:
    samples = round(seconds * RATE)
    bits = np.repeat(rng.integers(0, 2, samples // 53 + 1), 53)[:samples]
    return np.sin(2 * np.pi * np.cumsum(np.where(bits, 2200, 1200)) / RATE)


def _add(sound: Sound, place: int, part: Sound) -> None:
    end = min(len(sound), place + len(part))
    sound[place:end] += part[: max(0, end - place)]


# ------------------------------------------------------------------ music


def _piano(rng: Rng, phase: Sound, times: Sound) -> Sound:
    partials = (np.sin(k * phase) / k**1.5 * np.exp(-times * (1.5 + 0.7 * k)) for k in range(1, 8))
    return sum(partials) * np.minimum(1, times / 0.005)


def _violin(rng: Rng, phase: Sound, times: Sound) -> Sound:
    return 0.6 * sum(np.sin(k * phase) / k for k in range(1, 20)) * _swell(times, 0.08)


def _flute(rng: Rng, phase: Sound, times: Sound) -> Sound:
    breath = 0.05 * rng.standard_normal(len(times))
    return (np.sin(phase) + 0.2 * np.sin(2 * phase) + breath) * _swell(times, 0.05)


def _organ(rng: Rng, phase: Sound, times: Sound) -> Sound:
    return sum(np.sin(k * phase) / k for k in (1, 2, 3, 4, 6, 8)) * _swell(times, 0.02)


def _pad(rng: Rng, phase: Sound, times: Sound) -> Sound:
    detuned = (np.sin(detune * k * phase) / k for k in range(1, 6) for detune in (0.996, 1, 1.004))
    return 0.3 * sum(detuned) * _swell(times, 0.4)


def _guitar(rng: Rng, phase: Sound, times: Sound) -> Sound:
    """A plucked string (Karplus and Strong 1983)."""
    period = max(2, round(2 * np.pi / (phase[1] - phase[0])))
    string, parts = rng.uniform(-1, 1, period), []
    for _ in range(len(times) // period + 1):
        parts.append(string)
        string = 0.498 * (string + np.roll(string, 1))
    return np.concatenate(parts)[: len(times)]


def _voice(rng: Rng, phase: Sound, times: Sound) -> Sound:
    """A vowel, sung."""
    formants, frequency = VOWELS[rng.integers(len(VOWELS))], (phase[-1] - phase[0]) / times[-1] / 2 / np.pi
    sung = 0.03 * np.sin(phase)
    for k in range(1, int(5000 / frequency)):
        gains = (
            gain * np.exp(-(((k * frequency - formant) / (80 + 0.05 * formant)) ** 2))
            for formant, gain in zip(formants, (1, 0.5, 0.25), strict=True)
        )
        sung = sung + sum(gains) * np.sin(k * phase)
    return sung / np.abs(sung).max() * _swell(times, 0.07)


def _swell(times: Sound, attack: float) -> Sound:
    return np.minimum(1, np.minimum(times, times[-1] - times) / attack)


def _melody(instrument: Callable[[Rng, Sound, Sound], Sound], voices: int = 1) -> Callable[[Rng, float], Sound]:
    """A wandering melody; violins and voices have vibrato."""
    lengths = (2.0, 3.0) if instrument is _pad else (0.15, 0.3, 0.3, 0.6, 1.2)
    vibrato = 0.006 if instrument in (_violin, _voice) else 0.0

    def play(rng: Rng, seconds: float) -> Sound:
        sound = np.zeros(round(seconds * RATE))
        place, degree, root = 0, 3, rng.uniform(110, 330)
        while place < len(sound):
            length = rng.choice(lengths)
            times = _times(1.1 * length)
            degree = int(np.clip(degree + rng.integers(-2, 3), 0, 7))
            for voice in range(voices):
                frequency = root * 2 ** (MAJOR[(degree + 2 * voice) % 8] / 12)
                wave = frequency * (1 + vibrato * np.sin(2 * np.pi * 5.5 * times))
                _add(sound, place, instrument(rng, 2 * np.pi * np.cumsum(wave) / RATE, times) / voices)
            place += round(length * RATE)
        return sound

    return play


def _drums(rng: Rng, seconds: float) -> Sound:
    sound, times = np.zeros(round(seconds * RATE)), _times(0.25)
    half_beat = 30 / rng.uniform(80, 140)
    for count in range(int(seconds / half_beat) + 1):
        place = round(count * half_beat * RATE)
        if count % 4 == 0:
            _add(sound, place, np.sin(2 * np.pi * (50 * times + 6 * (1 - np.exp(-20 * times)))) * np.exp(-14 * times))
        if count % 4 == 2:
            _add(sound, place, 0.6 * rng.standard_normal(len(times)) * np.exp(-18 * times))
        _add(sound, place, 0.15 * np.diff(rng.standard_normal(801)) * np.exp(-np.arange(800) / 200))
    return sound


def _band_with(lead: Callable[[Rng, Sound, Sound], Sound]) -> Callable[[Rng, float], Sound]:
    parts = ((0.5, _melody(lead)), (0.4, _melody(_pad, 3)), (0.5, _drums), (0.3, _melody(_guitar)))
    return lambda rng, seconds: sum(gain * play(rng, seconds) for gain, play in parts)


# ------------------------------------------------------------------ people, machines, weather


def _breath(rng: Rng, seconds: float) -> Sound:
    times, period = _times(seconds), rng.uniform(2, 5)
    envelope = np.maximum(0, np.sin(2 * np.pi * times / period)) ** 2
    envelope += 0.6 * np.maximum(0, np.sin(2 * np.pi * (times / period + 0.5)))
    return _band(rng.standard_normal(len(times)), 300, 3500) * envelope


def _keyboard(rng: Rng, seconds: float) -> Sound:
    sound = 0.002 * rng.standard_normal(round(seconds * RATE))
    place = 0
    while place < len(sound):
        length = int(rng.integers(200, 600))
        click = _band(rng.standard_normal(length), 800, 7000) * np.exp(-np.arange(length) / 80)
        _add(sound, place, rng.uniform(0.2, 1) * click)
        _add(sound, place + RATE // 14, 0.2 * rng.standard_normal(200) * np.exp(-np.arange(200) / 50))
        place += round(rng.exponential(0.18) * RATE) + 400
    return sound


def _knocks(rng: Rng, seconds: float) -> Sound:
    sound, samples = 0.002 * _shaped(rng, seconds, 1), np.arange(2000)
    place = 0
    while place < len(sound):
        knock = np.sin(samples * rng.uniform(0.03, 0.12)) + 0.3 * rng.standard_normal(2000)
        _add(sound, place, knock * np.exp(-samples / 400))
        place += round(rng.uniform(0.3, 1.5) * RATE)
    return sound


def _rain(rng: Rng, seconds: float) -> Sound:
    sound = 0.05 * _shaped(rng, seconds, 0.5)
    for place in rng.integers(0, len(sound), int(seconds * 150)):
        samples = np.arange(rng.integers(20, 200))
        _add(sound, int(place), rng.uniform(0, 0.4) * np.sin(samples * rng.uniform(0.5, 2.5)) * np.exp(-samples / 30))
    return sound


def _wind(rng: Rng, seconds: float) -> Sound:
    noise = _shaped(rng, seconds, 1)
    gusts = rng.uniform(0.05, 1, int(seconds) + 2)
    return noise * np.interp(np.arange(len(noise)), np.linspace(0, len(noise), len(gusts)), gusts)


def _engine(rng: Rng, seconds: float) -> Sound:
    times = _times(seconds)
    phase = 2 * np.pi * np.cumsum(rng.uniform(25, 60) * (1 + 0.1 * np.sin(0.2 * np.pi * times))) / RATE
    strokes = sum(np.sin(k * phase + rng.uniform(0, 6)) / k**0.7 for k in range(1, 25))
    return strokes / 6 + 0.05 * _shaped(rng, seconds, 0.5)


def _fan(rng: Rng, seconds: float) -> Sound:
    blades = 1 + 0.3 * np.sin(2 * np.pi * 8 * _times(seconds))
    return 0.5 * _shaped(rng, seconds, 1) + 0.08 * _band(_white(rng, seconds), 100, 600) * blades


def _birds(rng: Rng, seconds: float) -> Sound:
    sound = 0.003 * rng.standard_normal(round(seconds * RATE))
    place = 0
    while place < len(sound):
        times = _times(rng.uniform(0.05, 0.3))
        chirp = rng.uniform(2000, 6000) + rng.uniform(-4000, 4000) * times
        _add(sound, place, np.sin(2 * np.pi * np.cumsum(chirp) / RATE) * np.hanning(len(times)))
        place += round(rng.uniform(0.1, 1.2) * RATE)
    return sound


def _syllables(rng: Rng, seconds: float) -> Sound:
    """Noise that comes and goes as syllables do."""
    times, knots = _times(seconds), np.arange(0, seconds + 1, 0.12)
    return _band(_white(rng, seconds), 200, 4000) * np.interp(times, knots, rng.uniform(0, 1, len(knots)) ** 2)


def _dither(rng: Rng, seconds: float) -> Sound:
    return rng.integers(-1, 2, round(seconds * RATE)) / 32768


KINDS: dict[str, Callable[[Rng, float], Sound]] = {
    "white": _white,
    "pink": lambda rng, seconds: _shaped(rng, seconds, 0.5),
    "brown": lambda rng, seconds: _shaped(rng, seconds, 1.0),
    "clipped": lambda rng, seconds: np.clip(20 * _shaped(rng, seconds, 0.5), -0.98, 0.98),
    "hum": _hum,
    "tone": _tone,
    "sweep": _sweep,
    "dtmf": _dtmf,
    "ringing": _ringing,
    "siren": _siren,
    "modem": _modem,
    "piano": _melody(_piano, 2),
    "violin": _melody(_violin),
    "flute": _melody(_flute),
    "organ": _melody(_organ, 3),
    "pad": _melody(_pad, 3),
    "guitar": _melody(_guitar, 2),
    "sung vowels": _melody(_voice),
    "choir": _melody(_voice, 3),
    "drums": _drums,
    "band, violin": _band_with(_violin),
    "band, sung vowels": _band_with(_voice),
    "breath": _breath,
    "keyboard": _keyboard,
    "knocks": _knocks,
    "rain": _rain,
    "wind": _wind,
    "engine": _engine,
    "fan": _fan,
    "birds": _birds,
    "syllables": _syllables,
    "dither": _dither,
    "zero": lambda rng, seconds: np.zeros(round(seconds * RATE)),
}
