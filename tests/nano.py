"""Sentences that the nano model understands, and a voice to say them.

The model (tests/data/faster-whisper-nano) knows six patterns of sentences over some 150 words, Russian and English,
spoken by espeak-ng. So a test can make a recording of any length and know every word of it.
"""

import random
import shutil
import subprocess
from pathlib import Path

Pair = tuple[str, str]  # Russian, English

NUMBERS = (
    ("пять", "five"), ("шесть", "six"), ("семь", "seven"), ("восемь", "eight"), ("девять", "nine"), ("десять", "ten"),
    ("одиннадцать", "eleven"), ("двенадцать", "twelve"), ("двадцать", "twenty"), ("тридцать", "thirty"),
    ("сорок", "forty"), ("сто", "one hundred"),
)  # fmt: skip
HOURS = NUMBERS[:8]
DIGITS = (
    ("ноль", "zero"), ("один", "one"), ("два", "two"), ("три", "three"), ("четыре", "four"), ("пять", "five"),
    ("шесть", "six"), ("семь", "seven"), ("восемь", "eight"), ("девять", "nine"),
)  # fmt: skip
ANIMALS = (
    ("кошек", "cats"), ("собак", "dogs"), ("лошадей", "horses"), ("птиц", "birds"), ("коров", "cows"),
    ("медведей", "bears"), ("волков", "wolves"), ("мышей", "mice"),
)  # fmt: skip
VERBS = (
    ("спят", "sleep"), ("живут", "live"), ("играют", "play"), ("бегают", "run"), ("сидят", "sit"), ("поют", "sing"),
)  # fmt: skip
PLACES = (
    ("у реки", "by the river"), ("в лесу", "in the forest"), ("на улице", "in the street"), ("в доме", "in the house"),
    ("в саду", "in the garden"), ("на горе", "on the mountain"), ("под мостом", "under the bridge"),
    ("около школы", "near the school"),
)  # fmt: skip
WOMEN = (
    ("Анна", "Anna"), ("Мария", "Maria"), ("Ольга", "Olga"), ("Елена", "Elena"), ("Ирина", "Irina"), ("Вера", "Vera"),
)  # fmt: skip
CALLED = (  # the dative, whom one calls
    ("Анне", "Anna"), ("Марии", "Maria"), ("Ольге", "Olga"), ("Елене", "Elena"), ("Ивану", "Ivan"), ("Петру", "Peter"),
    ("Максиму", "Maxim"),
)  # fmt: skip
GOODS = (
    ("яблок", "apples"), ("книг", "books"), ("билетов", "tickets"), ("карандашей", "pencils"), ("тарелок", "plates"),
    ("телефонов", "phones"), ("килограммов сахара", "kilograms of sugar"), ("литров молока", "liters of milk"),
)  # fmt: skip
SHOPS = (
    ("в магазине", "in the shop"), ("на рынке", "at the market"), ("на вокзале", "at the station"),
    ("вчера", "yesterday"), ("сегодня утром", "this morning"),
)  # fmt: skip
DAYS = (
    ("в понедельник", "on Monday"), ("во вторник", "on Tuesday"), ("в среду", "on Wednesday"),
    ("в четверг", "on Thursday"), ("в пятницу", "on Friday"), ("в субботу", "on Saturday"),
    ("в воскресенье", "on Sunday"), ("завтра", "tomorrow"),
)  # fmt: skip
EVENTS = (
    ("Встреча начнётся", "The meeting starts"), ("Урок начнётся", "The lesson starts"),
    ("Фильм начнётся", "The movie starts"), ("Концерт начнётся", "The concert starts"),
    ("Поезд отправляется", "The train leaves"), ("Самолёт вылетает", "The plane departs"),
)  # fmt: skip
COLOURS = (
    ("Красный", "red"), ("Синий", "blue"), ("Зелёный", "green"), ("Белый", "white"), ("Чёрный", "black"),
    ("Жёлтый", "yellow"), ("Старый", "old"), ("Новый", "new"),
)  # fmt: skip
THINGS = (
    ("дом", "house"), ("стол", "table"), ("автомобиль", "car"), ("город", "city"), ("компьютер", "computer"),
    ("чемодан", "suitcase"), ("корабль", "ship"), ("мост", "bridge"),
)  # fmt: skip
QUALITIES = (
    ("большой", "big"), ("маленький", "small"), ("дорогой", "expensive"), ("красивый", "beautiful"),
    ("тяжёлый", "heavy"), ("быстрый", "fast"),
)  # fmt: skip

# Each place {n} takes a pair from the n-th list, its Russian half in the first sentence and its English in the second.
PATTERNS: tuple[tuple[str, str, tuple[tuple[Pair, ...], ...]], ...] = (
    ("{0} {1} {2} {3}.", "{0} {1} {2} {3}.", (NUMBERS, ANIMALS, VERBS, PLACES)),
    ("Позвоните {0} по номеру {1} {2} {3}.", "Call {0} at number {1} {2} {3}.", (CALLED, DIGITS, DIGITS, DIGITS)),
    ("{0} {1} в {2} часов.", "{0} {1} at {2} o'clock.", (EVENTS, DAYS, HOURS)),
    ("{0} {1} очень {2}.", "The {0} {1} is very {2}.", (COLOURS, THINGS, QUALITIES)),
    ("{0} купила {1} {2} {3}.", "{0} bought {1} {2} {3}.", (WOMEN, NUMBERS, GOODS, SHOPS)),
    ("{0} привезёт {1} {2} {3}.", "{0} will bring {1} {2} {3}.", (WOMEN, NUMBERS, GOODS, DAYS)),
)

# Voices that the model was not trained on: a man's and a woman's.
VOICES = ("+m5", "+f3")
LANGUAGES = {"ru": "ru", "en": "en-us"}

# Silence at both ends goes, as in what the model was trained on. The end is trimmed as the beginning of the reverse.
TRIMMED = "silenceremove=start_periods=1:start_threshold=-48dB:start_silence=0.01,areverse"
FORMATS = {
    ".wav": ("-ar", "16000", "-c:a", "pcm_s16le"),
    ".ogg": ("-ar", "48000", "-c:a", "libopus", "-b:a", "24k"),  # as Telegram's voice messages are
}


def sentence(rng: random.Random) -> Pair:
    """A sentence in Russian and the same in English."""
    russian, english, lists = rng.choice(PATTERNS)
    pairs = [rng.choice(words) for words in lists]
    return (
        _capitalised(russian.format(*(pair[0] for pair in pairs))),
        _capitalised(english.format(*(pair[1] for pair in pairs))),
    )


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def speak(text: str, language: str, path: Path, *, voice: str = "+m5", speed: int = 150, pitch: int = 50) -> Path:
    """Write `text` as speech, mono, WAV of 16 kHz or Opus by the name's ending; `speed` in words a minute."""
    espeak = ["espeak-ng", "--stdout", "-v", LANGUAGES[language] + voice, "-s", str(speed), "-p", str(pitch), text]
    spoken = subprocess.run(espeak, capture_output=True, check=True).stdout
    ffmpeg = [_program("ffmpeg"), "-v", "error", "-i", "pipe:0", "-af", f"{TRIMMED},{TRIMMED}", "-ac", "1"]
    subprocess.run([*ffmpeg, *FORMATS[path.suffix], "-fflags", "+bitexact", "-y", str(path)], input=spoken, check=True)
    return path


def recite(texts: list[str], language: str, path: Path, *, pause: float = 2.0, voice: str = "+m5") -> Path:
    """Write sentences as one recording with `pause` seconds of silence after each."""
    pieces = [
        speak(text, language, path.with_name(f"{path.stem}-{i}.wav"), voice=voice) for i, text in enumerate(texts)
    ]
    inputs = [word for piece in pieces for word in ("-i", str(piece))]
    padded = "".join(f"[{i}]apad=pad_dur={pause}[p{i}];" for i in range(len(pieces)))
    joined = padded + "".join(f"[p{i}]" for i in range(len(pieces))) + f"concat=n={len(pieces)}:v=0:a=1"
    command = [_program("ffmpeg"), "-v", "error", *inputs, "-filter_complex", joined, "-ac", "1"]
    subprocess.run([*command, *FORMATS[path.suffix], "-y", str(path)], check=True)
    for piece in pieces:
        piece.unlink()
    return path


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"these tests need {name}"
    return found
