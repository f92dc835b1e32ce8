"""Measures how far the cues' starts and ends are from the voices, in joined recordings with pauses at known places.

    python -m benchmarks.cues [--voices 12] [--seed 1] [--url URL --key KEY] [--models FOLDER]

Real voices (tests/speech.py) in each language are joined with pauses of 0.5 to 30 s, once with silence and once with
the noise of a room. The silence at both ends of a prompt is cut off first, so that the voices' places are known. Each
recording is transcribed with and without `word_timestamps` and `vad_filter`, and read as JSON and as SRT. The error of
a voice's start is the distance to the nearest start of a cue, that of its end to the nearest end; a cue that covers a
pause is wrong by the pause. Without `--url` the program starts a server of its own with real `base`. The exit status is
1 when an aim is missed.
"""

import argparse
import math
import os
import random
import statistics
import sys
import tempfile
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from benchmarks.answers import (
    Cue,
    Place,
    Request,
    connected,
    covered_pauses,
    errors_of,
    from_srt,
    native,
    overlap,
    percentile,
)
from benchmarks.machine import machine
from tests import speech
from tests.server import MODELS

RATE = 16_000
FRAME = RATE // 100
PAUSES = (0.5, 30.0)  # seconds, spread evenly over their logarithm
ROOM = 0.001  # the root mean square of the room's noise: -60 dB of the loudest possible
AIMS = {"median": 0.15, "p95": 0.5}  # seconds
COLUMNS = (
    "parameters", "read as", "start: median, s", "p95", "end: median, s", "p95", "pauses inside a cue",
    "cues in a pause", "wrong words",
)  # fmt: skip
WAYS: tuple[dict[str, str], ...] = (
    {},
    {"word_timestamps": "true"},
    {"vad_filter": "false"},
    {"word_timestamps": "true", "vad_filter": "false"},
)


@dataclass(frozen=True)
class Joined:
    """A recording, where its voices are, and what they say."""

    name: str
    path: Path
    seconds: float
    places: tuple[Place, ...]
    text: str


@dataclass
class Measured:
    """What was measured of one way, in one form."""

    starts: list[float]
    ends: list[float]
    wrong: list[float]  # word error rates
    covered: int = 0  # pauses inside a cue
    in_pauses: int = 0  # cues where nobody speaks


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how far cues are from the voices.")
    parser.add_argument("--voices", type=int, default=12, help="voices in each recording")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", default="", help="a server that runs already")
    parser.add_argument("--key", default="", help="your key there")
    parser.add_argument("--models", type=Path, default=MODELS, help="the folder that real base lies in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stenograf-cues-") as folder:
        recordings = list(make(Path(folder), arguments.voices, arguments.seed))
        with connected(arguments.url, arguments.key, arguments.models, Path(folder) / "data") as client:
            measured = {
                (name(way), form): found for way in WAYS for form, found in measure(client, recordings, way).items()
            }
    voices = sum(len(joined.places) for joined in recordings)
    seconds = sum(joined.seconds for joined in recordings)
    print(f"{machine()}, load average {os.getloadavg()[0]:.1f}, model base.")
    print(f"{voices} voices in {len(recordings)} recordings of {seconds / 60:.0f} minutes, seed {arguments.seed}:\n")
    print(f"| {' | '.join(COLUMNS)} |\n|---|---{'|--:' * (len(COLUMNS) - 2)}|")
    for (way, form), found in measured.items():
        figures = [f"{figure:.2f}" for values in (found.starts, found.ends) for figure in summary(values)]
        wrong = statistics.mean(found.wrong)
        print(f"| {way} | {form} | {' | '.join(figures)} | {found.covered} | {found.in_pauses} | {wrong:.1%} |")
    sys.exit(not all(is_met(found) for found in measured.values()))


def name(way: dict[str, str]) -> str:
    return " ".join(f"`{parameter}={value}`" for parameter, value in way.items()) or "defaults"


def summary(values: list[float]) -> tuple[float, float]:
    return statistics.median(values), percentile(values, 0.95)


def is_met(found: Measured) -> bool:
    return all(
        median < AIMS["median"] and p95 < AIMS["p95"] for median, p95 in map(summary, (found.starts, found.ends))
    )


def measure(client: httpx.Client, recordings: list[Joined], way: dict[str, str]) -> dict[str, Measured]:
    """What was measured in each form of the transcripts."""
    measured = {form: Measured([], [], []) for form in ("JSON", "SRT")}
    for joined in recordings:
        print(joined.name, name(way), file=sys.stderr)
        for form, cues in transcribe(client, joined, way).items():
            found = measured[form]
            found.wrong.append(speech.wrong_words(joined.text, " ".join(cue.text for cue in cues)))
            for place, (start, end) in zip(joined.places, errors_of(cues, joined.places), strict=True):
                found.starts.append(start)
                found.ends.append(end)
                if max(start, end) > AIMS["p95"]:
                    told = f"{place[0]:.2f}–{place[1]:.2f} starts {start:.2f} s off and ends {end:.2f} s off"
                    print(f"  {form}: the voice at {told}", file=sys.stderr)
            found.covered += covered_pauses(cues, joined.places)
            found.in_pauses += sum(overlap(cue, joined.places) == 0 for cue in cues)
    return measured


def transcribe(client: httpx.Client, joined: Joined, way: dict[str, str]) -> dict[str, list[Cue]]:
    answer = native(client, Request(joined.path.read_bytes(), joined.path.name.encode(), tuple(way.items())))
    assert not answer.error, answer.error
    srt = client.get(f"/api/v1/jobs/{answer.job}/transcript.srt").raise_for_status().text
    return {"JSON": list(answer.cues), "SRT": from_srt(srt)}


# ------------------------------------------------------------------ the recordings


def make(folder: Path, voices: int, seed: int) -> Iterator[Joined]:
    for language in speech.VOICES:
        for room in ("silence", "room"):
            rng = random.Random(f"{seed} {language} {room}")
            yield join(folder / f"{language}-{room}.wav", language, voices, rng, has_noise=room == "room")


def join(path: Path, language: str, voices: int, rng: random.Random, *, has_noise: bool) -> Joined:
    """Write voices with pauses between them and at both ends."""
    sounds, places, texts, length = [], [], [], 0
    for prompt in rng.sample(speech.sentences(language), k=voices):
        pause = np.zeros(int(RATE * pause_seconds(rng)))
        sound = np.frombuffer(speech.pcm(language, prompt), "<i2") / 32768
        start, end = place_of(sound)
        voice = sound[int(RATE * start) : int(RATE * end)]
        length += len(pause)
        places.append((length / RATE, (length + len(voice)) / RATE))
        length += len(voice)
        sounds += [pause, voice]
        texts.append(speech.text(language, prompt))
    samples = np.concatenate([*sounds, np.zeros(int(RATE * pause_seconds(rng)))])
    if has_noise:
        samples += np.random.default_rng(rng.getrandbits(32)).normal(0, ROOM, len(samples))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return Joined(path.stem, path, len(samples) / RATE, tuple(places), " ".join(texts))


def pause_seconds(rng: random.Random) -> float:
    shortest, longest = PAUSES
    return shortest * math.exp(math.log(longest / shortest) * rng.random())


def place_of(samples: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Place:
    """Where the voice begins and ends: the first and last 10 ms that are at most 35 dB below the loudest."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)  # (frames, samples)
    loudness = np.sqrt((frames**2).mean(axis=1))
    loud = np.flatnonzero(loudness > loudness.max() * 10 ** (-35 / 20))
    return float(loud[0]) * FRAME / RATE, float(loud[-1] + 1) * FRAME / RATE


if __name__ == "__main__":
    main()
