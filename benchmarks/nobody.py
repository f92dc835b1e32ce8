"""Measures words where nobody speaks, and voices that are lost.

    python -m benchmarks.nobody [--model base] [--models FOLDER] [--noises 200] [--voices 200] [--seed 0]
        [--json FILE]

Noises are made (`tests/noises.py`), of 2 to 60 s, and posted with and without `language` and a prompt of names. Voices
are Debian's telephone prompts, Russian and English, made quiet, far, noisy or clipped. What faster-whisper by itself
makes of the same samples, with its own defaults, is beside what we make of them. Exits with 1 if a noise has text or a
language, or if a voice has no text that the library has right.
"""

import argparse
import json
import re
import sys
import tempfile
import wave
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel
from numpy.typing import NDArray

from benchmarks.machine import machine
from tests import noises, speech
from tests.server import MODELS, Server

RATE = noises.RATE
PROMPT = "Иванов, Петрова, Кузнецов, Stenograf, Смирнова"
# How each noise is asked for, in turn.
ASKED = ({}, {"language": "ru"}, {"initial_prompt": PROMPT}, {"language": "en", "initial_prompt": PROMPT})
SECONDS = (2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 31, 45, 60)
LEVELS = (-15, -25, -40, -55)  # dBFS
RIGHT = 0.25  # the highest error rate of a text that is right

Sound = NDArray[np.float64]  # (samples,)


@dataclass(frozen=True)
class Clip:
    """A clip that was posted, and what came of it."""

    kind: str
    name: str
    seconds: float
    text: str
    language: str
    warnings: tuple[str, ...]
    said: str = ""
    by_itself: str = ""  # what faster-whisper makes of it

    @property
    def is_lost(self) -> bool:
        return not self.text and is_right(self.by_itself, self.said)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure words where nobody speaks, and voices that are lost.")
    parser.add_argument("--model", default="base")
    parser.add_argument("--models", type=Path, default=MODELS, help="the folder that it lies in")
    parser.add_argument("--noises", type=int, default=200)
    parser.add_argument("--voices", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="another one makes other noises")
    parser.add_argument("--json", type=Path, help="where what came of each clip is written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stenograf-nobody-") as folder:
        server = Server(Path(folder) / "data", arguments.models, DEFAULT_MODEL=arguments.model)
        server.start()
        try:
            of_noise = list(post_noises(server, Path(folder), arguments.noises, arguments.seed))
            of_voices = list(post_voices(server, Path(folder), arguments.voices))
        finally:
            server.stop()
    library = WhisperModel(str(arguments.models / f"faster-whisper-{arguments.model}"), "cpu", compute_type="int8")
    of_voices = [compared(clip, library) for clip in of_voices]
    if arguments.json:
        clips = [asdict(clip) for clip in (*of_noise, *of_voices)]
        arguments.json.write_text(json.dumps(clips, ensure_ascii=False, indent=1))
    print(f"{machine()}; model {arguments.model}")
    show_noises(of_noise)
    show_voices(of_voices)
    sys.exit(any(clip.text or clip.language for clip in of_noise) or any(clip.is_lost for clip in of_voices))


def post_noises(server: Server, folder: Path, count: int, seed: int) -> Iterator[Clip]:
    kinds = list(noises.KINDS)
    for number in range(count):
        kind, seconds = kinds[number % len(kinds)], SECONDS[number % len(SECONDS)]
        asked = ASKED[(number // len(kinds) + number) % len(ASKED)]
        sound = noises.make(kind, seed + number, seconds, LEVELS[number % len(LEVELS)])
        job = server.transcribe(write(folder / "noise.wav", sound), **asked)
        assert job["status"] == "done", job
        name = ", ".join(f"{key}={value}" for key, value in asked.items())
        yield Clip(kind, name, seconds, job["text"], job["language"], tuple(job["warnings"]))


def post_voices(server: Server, folder: Path, count: int) -> Iterator[Clip]:
    prompts = [(language, name) for language in ("ru", "en") for name in sample(language, -(-count // 2))]
    kinds = list(HARM)
    for number, (language, name) in enumerate(prompts[:count]):
        kind = kinds[number % len(kinds)]
        sound = harmed(kind, language, name)
        asked = {"language": language} if number // len(kinds) % 2 else {}
        job = server.transcribe(write(folder / "voice.wav", sound), **asked)
        assert job["status"] == "done", job
        said = speech.text(language, name)
        warnings = tuple(job["warnings"])
        asked_name = f"{language}/{name}" + (", language" if asked else "")
        yield Clip(kind, asked_name, len(sound) / RATE, job["text"], job["language"], warnings, said)


def compared(clip: Clip, library: WhisperModel) -> Clip:
    """The same clip with what the library makes of it."""
    place, _, asked = clip.name.partition(",")
    language, _, name = place.partition("/")
    samples = harmed(clip.kind, language, name).astype(np.float32) / 32768
    segments, _ = library.transcribe(samples, language=language if asked else None)
    return Clip(**{**asdict(clip), "by_itself": "".join(segment.text for segment in segments).strip()})


# ------------------------------------------------------------------ voices


def sample(language: str, count: int) -> list[str]:
    """Prompts, sentences and others in turn: of the others many are a single word. None has a number in digits."""
    names = [name for name in speech.names(language) if not re.search(r"[\d\[\]<>(){}…]", speech.text(language, name))]
    sentences = set(speech.sentences(language))
    drawn = [str(name) for name in np.random.default_rng(7).permutation(names)]
    long = [name for name in drawn if name in sentences]
    short = [name for name in drawn if name not in sentences]
    return [name for pair in zip(long, short, strict=False) for name in pair][:count]


def harmed(kind: str, language: str, name: str) -> NDArray[np.int16]:
    voice = np.frombuffer(speech.pcm(language, name), "<i2") / 32768
    rng = np.random.default_rng([len(voice), *name.encode()])
    sound = HARM[kind](rng, voice)
    return np.clip(np.round(sound * 32768 + rng.uniform(-0.5, 0.5, len(sound))), -32768, 32767).astype(np.int16)


def _level(sound: Sound, level: float) -> Sound:
    return sound * 10 ** (level / 20) / (np.sqrt(np.mean(sound**2)) + 1e-12)


def _far(rng: np.random.Generator, voice: Sound) -> Sound:
    """From the other end of a room: reverberation, less treble, a little noise."""
    samples = np.arange(RATE * 6 // 10)
    room = rng.standard_normal(len(samples)) * np.exp(-10 * samples / RATE)
    room[0] = 1.5
    sound = np.convolve(voice, room)
    spectrum = np.fft.rfft(sound) / (1 + (np.fft.rfftfreq(len(sound), 1 / RATE) / 2500) ** 2)
    return _level(np.fft.irfft(spectrum, len(sound)), -38) + _level(rng.standard_normal(len(sound)), -60)


def _telephone(rng: np.random.Generator, voice: Sound) -> Sound:
    spectrum, frequencies = np.fft.rfft(voice), np.fft.rfftfreq(len(voice), 1 / RATE)
    spectrum[(frequencies < 300) | (frequencies > 3400)] = 0
    return _level(np.fft.irfft(spectrum, len(voice)), -30)


def _beside(kind: str, voice_level: float, noise_level: float) -> Callable[[np.random.Generator, Sound], Sound]:
    def mix(rng: np.random.Generator, voice: Sound) -> Sound:
        noise = noises.make(kind, int(rng.integers(1000)), len(voice) / RATE, noise_level) / 32768
        return _level(voice, voice_level) + noise[: len(voice)]

    return mix


HARM: dict[str, Callable[[np.random.Generator, Sound], Sound]] = {
    "-50 dBFS": lambda rng, voice: _level(voice, -50),
    "-60 dBFS": lambda rng, voice: _level(voice, -60),
    "far": _far,
    "clipped": lambda rng, voice: np.clip(_level(voice, -2), -0.5, 0.5),
    "telephone": _telephone,
    "white noise, 5 dB below": _beside("white", -26, -31),
    "pink noise, 3 dB below": _beside("pink", -30, -33),
    "hum, 5 dB below": _beside("hum", -35, -40),
    "band, 10 dB below": _beside("band, violin", -25, -35),
    "as it is": lambda rng, voice: voice,
}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("ё", "е"))


def is_right(text: str, said: str) -> bool:
    heard, true = words(text), words(said)
    return bool(true) and _distance(heard, true) <= RIGHT * len(true)


def _distance(first: Sequence[str], second: Sequence[str]) -> int:
    """How many words must be changed, added or left out (Levenshtein)."""
    row = list(range(len(second) + 1))
    for count, word in enumerate(first, start=1):
        before, row[0] = row[0], count
        for place, other in enumerate(second, start=1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != other))
    return row[-1]


# ------------------------------------------------------------------ files and tables


def write(path: Path, sound: NDArray[np.int16]) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(sound.astype("<i2").tobytes())
    return path


def by_kind(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[clip.kind].append(clip)
    return groups


def show_noises(clips: Sequence[Clip]) -> None:
    print("\n| nobody speaks | clips | with text | with a language | with `no_speech` |\n|---|--:|--:|--:|--:|")
    for kind, group in {**by_kind(clips), "**all**": list(clips)}.items():
        texts, languages = sum(bool(clip.text) for clip in group), sum(bool(clip.language) for clip in group)
        told = sum("no_speech" in clip.warnings for clip in group)
        print(f"| {kind} | {len(group)} | {texts} | {languages} | {told} |")
    for clip in clips:
        if clip.text or clip.language:
            print(f"\n{clip.kind}, {clip.seconds} s, {clip.name}: {clip.language} {clip.text!r}", end="")
    print()


def show_voices(clips: Sequence[Clip]) -> None:
    print("\n| voices | clips | right by the library itself | of these right here | of these without text here |")
    print("|---|--:|--:|--:|--:|")
    for kind, group in {**by_kind(clips), "**all**": list(clips)}.items():
        right = [clip for clip in group if is_right(clip.by_itself, clip.said)]
        ours, lost = sum(is_right(clip.text, clip.said) for clip in right), sum(clip.is_lost for clip in right)
        print(f"| {kind} | {len(group)} | {len(right)} | {ours} | {lost} |")
    for clip in clips:
        if is_right(clip.by_itself, clip.said) and not is_right(clip.text, clip.said):
            print(f"\n{clip.kind}, {clip.name}: said {clip.said!r}, {clip.text!r}", end="")
    print()


if __name__ == "__main__":
    main()
