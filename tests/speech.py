"""Real voices: telephone prompts of Debian packages, with their texts. Neither is in the repository."""

import gzip
import random
import re
import subprocess
import wave
from pathlib import Path

from transcription.sound import audio

SOUNDS = Path("/usr/share/asterisk/sounds")
VOICES = {"ru": "ru_RU_f_IvrvoiceRU", "en": "en_US_f_Allison"}
# Prompts of 4 to 8 s that real `base` hears word for word.
HEARD = {
    "ru": ["pbx-invalid", "queue-youarenext", "tt-allbusy", "confbridge-lock-no-join"],
    "en": ["agent-alreadyon", "confbridge-pin", "demo-thanks", "followme/status"],
}
DIGITS = {
    "ru": ["ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять"],
    "en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
}
AS_DIGIT = {word: str(digit) for words in DIGITS.values() for digit, word in enumerate(words)}


def is_here() -> bool:
    return all((SOUNDS / voice).is_dir() and _texts(language).exists() for language, voice in VOICES.items())


def _texts(language: str) -> Path:
    return Path(f"/usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz")


def sentences(language: str) -> list[str]:
    """The names of prompts that say a sentence of five words or more, in the order of the package."""
    found = []
    with gzip.open(_texts(language), "rt", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, said = line.partition(":")
            is_whole = not set("[]<>(){}0123456789…") & set(said) and "..." not in said
            if is_whole and len(said.split()) >= 5 and (SOUNDS / VOICES[language] / f"{name}.g722").exists():
                found.append(name)
    return found


def names(language: str) -> list[str]:
    """The names of all prompts, words and sentences, in the order of the package."""
    with gzip.open(_texts(language), "rt", encoding="utf-8", errors="replace") as lines:
        listed = [line.partition(":")[0] for line in lines if line.partition(":")[2].strip()]
    return [name for name in listed if (SOUNDS / VOICES[language] / f"{name}.g722").exists()]


def join(language: str, path: Path, *, seconds: float, seed: int = 1) -> list[str]:
    """Write prompts with pauses of 0.4 to 3 s between them as one WAV file; return what is said in it."""
    rng = random.Random(seed)
    names = rng.sample(sentences(language), k=60)
    said = []
    with wave.open(str(path), "wb") as joined:
        joined.setparams((1, 2, 16000, 0, "NONE", ""))
        for name in names:
            if joined.tell() >= seconds * 16000:
                break
            joined.writeframes(bytes(2 * int(16000 * rng.uniform(0.4, 3.0))))
            joined.writeframes(pcm(language, name))
            said.append(text(language, name))
    return said


def pcm(language: str, name: str) -> bytes:
    """A prompt as 16 kHz mono s16le."""
    source = SOUNDS / VOICES[language] / f"{name}.g722"
    program = [audio.ffmpeg_path(), "-nostdin", "-loglevel", "error", "-f", "g722", "-i", str(source)]
    command = [*program, "-f", "s16le", "-ac", "1", "-ar", "16000", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


def text(language: str, name: str) -> str:
    """What is said in a prompt."""
    with gzip.open(_texts(language), "rt", encoding="utf-8", errors="replace") as lines:
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def write(language: str, name: str, path: Path) -> None:
    """Write a prompt as a WAV file; G.722 in a bare file is nothing that a person would upload."""
    source = SOUNDS / VOICES[language] / f"{name}.g722"
    program = [audio.ffmpeg_path(), "-nostdin", "-loglevel", "error", "-f", "g722", "-i", str(source), str(path)]
    subprocess.run(program, check=True)


def wrong_words(said: str, heard: str) -> float:
    """Word error rate: the edits from what is said to what was heard, over the words that are said."""
    expected, words = _words(said), _words(heard)
    row = list(range(len(words) + 1))
    for index, word in enumerate(expected, 1):
        before, row[0] = row[0], index
        for place, other in enumerate(words, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != other))
    return row[-1] / len(expected)


def _words(text: str) -> list[str]:
    """Without case, punctuation and the difference between a number's word and its digit."""
    return [AS_DIGIT.get(word, word) for word in re.findall(r"\w+", text.lower().replace("ё", "е"))]
