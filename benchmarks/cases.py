"""Asks a server for small recordings that servers get wrong, and prints a table of what is right and what came.

    python -m benchmarks.cases FOLDER [--wild FOLDER] [--url URL --key KEY] [--models FOLDER] [--only WORD ...]
        [--endpoints native OpenAI /asr]

Each recording goes to the native API, OpenAI's endpoint and `/asr`. FOLDER has the recordings of `CASES`; the folder
of `--wild` real ones, of `WILD`, and meetings with who speaks when (`meetings.rttm`). Neither is in the repository.
Without `--url` the program starts a server of its own with real `base`. `--only` takes the cases whose file or kind is
named. The exit status is 1 when anything is wrong.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from benchmarks.answers import ENDPOINTS, Answer, Cue, Place, Request, connected, errors_of, overlap
from benchmarks.machine import machine
from tests.server import MODELS
from tests.speech import wrong_words

WRONG_WORDS = 0.25  # the share of words that `base` may get wrong in these voices
SHOWN = 90  # characters of a wrong text

TEXTS = {
    "EN": "I am sorry, that's not a valid extension. Please try again.",
    "EN2": "Please enter your personal identification number followed by the pound, or hash key.",
    "RU": "Извините, данный номер не существует. Пожалуйста, попробуйте ещё раз.",
    "RU2": "Пожалуйста, проверьте номер и наберите еще раз.",
    "JFK": "And so my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country.",
    "LEFT": "He began a confused complaint against the wizard, who had vanished behind the curtain on the left.",
    "RIGHT": "The horizon seems extremely distant.",
    "licence, English": "Permission is hereby granted, free of charge, to any person obtaining a copy of this software "
    "and associated documentation files to deal in the software without restriction, including without limitation the "
    "rights to use, copy, modify, merge, publish, distribute, sublicence, and/or sell copies of the software, and to "
    "permit persons to whom the software is furnished to do so, subject to the following conditions. The above "
    "copyright notice and this permission notice shall be included in all copies or substantial portions of the "
    "software.",
    "licence, German": "Jedem, der diese Software und die dazugehörigen Dokumentationsdateien erhält, wird hiermit "
    "unentgeltlich die Genehmigung erteilt, mit der Software uneingeschränkt zu verfahren. Dies umfasst insbesondere "
    "das Recht, die Software zu verwenden, zu vervielfältigen, zu modifizieren, zusammenzufügen, zu veröffentlichen, "
    "zu verteilen, unterzulizenzieren und/oder Kopien der Software zu verkaufen und diese Rechte unter folgenden "
    "Bedingungen anderen zu übertragen.",
}
NAMES = "Bartholomew Featherstonehaugh, Siobhan O'Shaughnessy, Nguyen Thi Minh Khai"
ASKS_WORDS = re.compile(r"word_timestamps=true|=word\b")
IN_CP1251 = "Запись разговора.mp3".encode("cp1251")


@dataclass(frozen=True)
class Voice:
    """What somebody says, and the place of the voice in seconds, where it is known."""

    name: str
    place: Place | None = None
    language: str = ""
    channel: int = 0


@dataclass(frozen=True)
class Case:
    """A recording, how it is sent, and what is right. `voices` is None where the text is not compared."""

    kind: str
    file: str
    voices: tuple[Voice, ...] | None
    parameters: str = ""  # as in a query: language=ru&channels=separate
    warning: str = ""  # a regular expression that one of the warnings matches
    error: str = ""  # a regular expression that the error matches
    contains: str = ""
    within: float = 0.3  # seconds by which a cue may miss its voice
    spoken: tuple[Place, ...] = ()  # where somebody speaks, in a recording whose words are not known
    filename: bytes | None = b""  # empty: the file's own; None: the part has none
    endpoints: tuple[str, ...] = tuple(ENDPOINTS)

    @property
    def filename_sent(self) -> bytes | None:
        return self.file.encode() if self.filename == b"" else self.filename

    @property
    def right(self) -> str:
        """What is right, for the table."""
        if self.error:
            return "an error that says why"
        texts = [f"“{self.contains}”"] if self.contains else []
        for voice in self.voices or ():
            at = f" {voice.place[0]:.1f}–{voice.place[1]:.1f}" if voice.place else ""
            channel = f" in channel {voice.channel}" if voice.channel else ""
            texts.append(f"{voice.name}{at}{channel} {voice.language}".rstrip())
        if self.spoken:
            texts.append("no words in the pauses")
        if self.voices == ():
            texts.append("no text")
        return ", ".join([*texts, *(["a warning"] if self.warning else [])])


EN, RU = Voice("EN", (0.08, 3.96)), Voice("RU", (0.0, 4.65))
PAUSES = (Voice("EN", (12.08, 15.96)), Voice("EN2", (31.18, 36.15)))
FILM = (Voice("EN", (6.08, 9.96)),)
CALL = (Voice("EN", (0.08, 3.96), channel=1), Voice("EN2", (4.67, 9.64), channel=2))
BOTH = (Voice("EN", (0.08, 3.96), language="en"), Voice("RU", (4.7, 9.35), language="ru"))
BOTH_APART = (Voice("RU", (0.0, 4.65), language="ru"), Voice("EN2", (10.75, 15.72), language="en"))

CASES = (
    Case("the file's own times", "delayed.mp4", FILM),
    Case("the file's own times", "delayed.mkv", FILM),
    Case("the file's own times", "delayed.mkv", FILM, "word_timestamps=true"),
    Case("the file's own times", "gap.webm", (EN, Voice("EN2", (14.59, 19.56)))),
    Case("the file's own times", "video-longer.mp4", (EN,)),
    Case("the file's own times", "xing-lies.mp3", (EN,)),
    Case("cues over a silence", "pauses-room.ogg", PAUSES),
    Case("cues over a silence", "pauses-room.ogg", PAUSES, "word_timestamps=true"),
    Case("cues over a silence", "pauses-room.ogg", PAUSES, "vad_filter=false"),
    Case("cues over a silence", "pauses.ogg", PAUSES),
    Case("cues over a silence", "pauses.ogg", PAUSES, "word_timestamps=true"),
    Case("cues over a silence", "pauses.ogg", PAUSES, "vad_filter=false"),
    Case("cues over a silence", "joined.mp3", (EN, Voice("EN2", (4.2, 9.25)))),
    Case("nobody speaks", "quiet-3.ogg", (), warning="no_speech"),
    Case("nobody speaks", "quiet-10.ogg", (), warning="no_speech"),
    Case("nobody speaks", "hum-6.ogg", (), "language=ru", warning="no_speech"),
    Case("nobody speaks", "white-8.ogg", (), "language=ru", warning="no_speech"),
    Case("nobody speaks", "white-8.ogg", (), f"initial_prompt={NAMES}", warning="no_speech"),
    Case("nobody speaks", "hum-6.ogg", (), f"initial_prompt={NAMES}", warning="no_speech"),
    Case("music", "music-40.ogg", (), warning="no_speech"),
    Case("music", "music-then-ru.ogg", (Voice("RU", (32.05, 36.65)), Voice("RU2", (36.7, 39.8)))),
    Case("channels that cancel", "antiphase.mp3", (EN,)),
    Case("which track", "two-languages.mkv", (EN,), warning="several_tracks"),
    Case("which track", "two-languages.mkv", (RU,), "track=1"),
    Case("which track", "two-languages.mkv", (RU,), "track=rus"),
    Case("which track", "two-languages.mkv", (EN,), "track=2"),
    Case("which track", "two-languages.mkv", None, "track=9", error="track_unknown|no track"),
    Case("which track", "silent-first-track.mkv", (EN,)),
    Case("sound that FFmpeg reads", "film-dts.mkv", (EN,)),
    Case("sound that FFmpeg reads", "s32be.caf", (EN,)),
    Case("sound that FFmpeg reads", "wav-g722.wav", (EN,)),
    Case("sound that FFmpeg reads", "voicemail.gsm", (EN,)),
    Case("sound that FFmpeg reads", "no-header.webm", None, error="beginning_missing|beginning of"),
    Case("two languages", "ru-pause-en.ogg", BOTH_APART, "multilingual=true"),
    Case("two languages", "en-then-ru.ogg", BOTH, "multilingual=true"),
    Case("a voice in each channel", "call-stereo.mp3", CALL, "channels=separate"),
    Case("a voice in each channel", "call-stereo.mp3", (EN,), "channels=1"),
    Case("a voice in each channel", "call-stereo.mp3", (Voice("EN2", (4.67, 9.64)),), "channels=2"),
    Case("a voice in each channel", "call-stereo.mp3", None, "channels=7", error="channel_unknown|no channel"),
    Case("a voice in each channel", "call-stereo.mp3", (Voice("EN"), Voice("EN2")), warning="channels_differ"),
    Case("what clients send", "xing-lies.mp3", (EN,), filename=IN_CP1251),
    Case("what clients send", "xing-lies.mp3", (EN,), filename=None),
    Case("what clients send", "xing-lies.mp3", (EN,), "language=eng"),
    Case("what clients send", "music-then-ru.ogg", (Voice("RU"), Voice("RU2")), "language=rus"),
    Case("what clients send", "xing-lies.mp3", (EN,), "language=None"),
    Case("what clients send", "xing-lies.mp3", (EN,), "language=null"),
    Case("what clients send", "xing-lies.mp3", (EN,), "timestamp_granularities[0]=word", endpoints=("OpenAI",)),
)  # fmt: skip

# What faster-whisper's own tests expect of these recordings.
WILD = (
    Case("faster-whisper's own", "jfk.flac", (Voice("JFK", (0.5, 10.5), language="en"),), within=0.5),
    Case("faster-whisper's own", "jfk.flac", (Voice("JFK", (0.5, 10.5)),), "word_timestamps=true", within=0.5),
    Case("faster-whisper's own", "jfk.flac", (Voice("JFK"),), "prefix=And so my fellow Americans"),
    Case("faster-whisper's own", "hotwords.mp3", None, "hotwords=ComfyUI", contains="ComfyUI"),
    Case("faster-whisper's own", "two-channels.wav", (Voice("LEFT"),), "channels=1"),
    Case("faster-whisper's own", "two-channels.wav", (Voice("RIGHT"),), "channels=2"),
    Case(
        "faster-whisper's own", "two-channels.wav", (Voice("LEFT", channel=1), Voice("RIGHT", channel=2)),
        "channels=separate",
    ),
    Case("faster-whisper's own", "two-channels.wav", None, warning="channels_differ"),
    Case(
        "faster-whisper's own", "multilingual.mp3",
        (Voice("licence, English", language="en"), Voice("licence, German", language="de")), "multilingual=true",
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare what a server makes of known recordings with what is right.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wild", type=Path, help="real recordings")
    parser.add_argument("--url", default="", help="a server that runs already")
    parser.add_argument("--key", default="", help="your key there")
    parser.add_argument("--models", type=Path, default=MODELS, help="the folder that real base lies in")
    parser.add_argument("--only", nargs="+", default=[], help="cases whose file or kind has one of these words")
    parser.add_argument("--endpoints", nargs="+", default=list(ENDPOINTS), choices=ENDPOINTS)
    arguments = parser.parse_args()
    cases = [(arguments.folder, case) for case in CASES]
    if arguments.wild:
        cases += [(arguments.wild, case) for case in (*WILD, *meetings(arguments.wild / "meetings.rttm"))]
    if arguments.only:
        cases = [
            (folder, case)
            for folder, case in cases
            if any(word in f"{case.kind} {case.file}" for word in arguments.only)
        ]
    rows: list[str] = []
    right = wrong = 0
    with (
        tempfile.TemporaryDirectory(prefix="stenograf-cases-") as data,
        connected(arguments.url, arguments.key, arguments.models, Path(data) / "data") as client,
    ):
        for folder, case in cases:
            print(case.file, case.parameters, file=sys.stderr)
            request = Request((folder / case.file).read_bytes(), case.filename_sent, parse_qsl(case.parameters))
            answers = {name: ENDPOINTS[name](client, request) for name in arguments.endpoints if name in case.endpoints}
            verdicts = {name: faults(case, answer) for name, answer in answers.items()}
            rows.append(row(case, answers, verdicts))
            right += sum(not found for found in verdicts.values())
            wrong += sum(bool(found) for found in verdicts.values())
    print(
        f"{machine()}, load average {os.getloadavg()[0]:.1f}, model base: {wrong} of {right + wrong} answers wrong.\n"
    )
    print("\n".join([*HEAD, *rows]))
    sys.exit(wrong > 0)


def meetings(rttm: Path) -> Iterator[Case]:
    """Each meeting with the places where its people speak."""
    places: dict[str, list[Place]] = {}
    for line in rttm.read_text().splitlines():
        _, name, _, start, seconds, *_ = line.split()
        places.setdefault(name, []).append((float(start), float(start) + float(seconds)))
    for name, spoken in sorted(places.items()):
        yield Case("meetings", f"meeting-{name}.flac", None, spoken=tuple(spoken))


# ------------------------------------------------------------------ right or wrong


def faults(case: Case, answer: Answer) -> list[str]:
    """What is wrong with an answer, in a few words each."""
    if case.error:
        return [] if re.search(case.error, answer.error) else ["does not say why"]
    if answer.error:
        return ["an error"]
    found = [*faults_of_order(answer.cues)]
    if ASKS_WORDS.search(case.parameters) and not answer.has_words:
        found.append("no times of words")
    if case.voices == ():
        found += ["text where nobody speaks"] * bool(answer.text) + ["a language"] * bool(
            answer.language and "language=" not in case.parameters
        )
    for channel in sorted({voice.channel for voice in case.voices or ()}):
        parts = [voice for voice in case.voices or () if voice.channel == channel]
        cues = [cue for cue in answer.cues if channel in (0, cue.channel)]
        found += faults_of_voices(parts, cues, case.within)
        spoken = [voice.language for voice in parts if voice.language]
        heard = list(dict.fromkeys(cue.language or answer.language for cue in cues))
        if spoken and heard != spoken:
            found.append(f"languages {', '.join(heard) or 'none'}")
    if case.contains not in answer.text:
        found.append("other words")
    if case.spoken:
        seconds = sum(end - start for start, end in case.spoken)
        found += ["words in a pause"] * any(is_outside(cue, case.spoken) for cue in answer.cues)
        found += ["nothing heard"] * (seconds > 10 and not answer.text)
    if case.warning and not any(re.search(case.warning, warning) for warning in answer.warnings):
        found.append("no warning")
    if "input_truncated" in answer.warnings:
        found.append("input_truncated")
    return found


def faults_of_voices(parts: list[Voice], cues: list[Cue], within: float) -> Iterator[str]:
    """What is wrong with the words and the times of what is said one after another."""
    if wrong_words(" ".join(TEXTS[voice.name] for voice in parts), " ".join(cue.text for cue in cues)) > WRONG_WORDS:
        yield "other words"
    places = [voice.place for voice in parts if voice.place]
    for voice, place in ((voice, voice.place) for voice in parts if voice.place):
        ((start, end),) = errors_of(cues, [place])
        if cues and start > within:
            yield f"{voice.name} begins {start:.1f} s off"
        if cues and end > within:
            yield f"{voice.name} ends {end:.1f} s off"
    if places and any(is_outside(cue, places) for cue in cues):
        yield "words in a pause"


def faults_of_order(cues: tuple[Cue, ...]) -> Iterator[str]:
    """Times that go backward, and words outside their cue."""
    for channel in {cue.channel for cue in cues}:
        own = [cue for cue in cues if cue.channel == channel]
        if any(cue.end < cue.start for cue in own) or any(
            after.start < before.end - 0.02 for before, after in zip(own, own[1:], strict=False)
        ):
            yield "times go backward"
    if any(start < cue.start - 0.02 or end > cue.end + 0.02 for cue in cues for start, end in cue.words):
        yield "words outside their cue"


def is_outside(cue: Cue, places: list[Place] | tuple[Place, ...]) -> bool:
    """Whether nobody speaks for most of a cue."""
    return overlap(cue, places, margin=0.5) < (cue.end - cue.start) / 2


# ------------------------------------------------------------------ the table

HEAD = (f"| kind | recording | right | {' | '.join(ENDPOINTS)} | what came |", "|---|---|---|---|---|---|---|")


def row(case: Case, answers: dict[str, Answer], verdicts: dict[str, list[str]]) -> str:
    """A line of the table; what came is told once where several endpoints answered alike."""
    how = case.parameters.replace(NAMES, "(names)").replace("&", " ")
    named = {None: "without a name", IN_CP1251: "with a name in cp1251"}.get(case.filename, "")
    sent = " ".join(filter(None, [f"`{case.file}`", f"`{how}`" if how else "", named]))
    cells = ["–" if name not in verdicts else "**wrong**" if verdicts[name] else "right" for name in ENDPOINTS]
    alike: dict[str, list[str]] = {}
    for name, found in verdicts.items():
        if found:
            alike.setdefault(f"{', '.join(found)}: {came(answers[name])}", []).append(name)
    told = [text if len(names) == len(verdicts) else f"{', '.join(names)}: {text}" for text, names in alike.items()]
    return (
        "| "
        + " | ".join(cell.replace("|", "¦") for cell in [case.kind, sent, case.right, *cells, "; ".join(told)])
        + " |"
    )


def came(answer: Answer) -> str:
    """An answer in short."""
    if answer.error:
        return answer.error[:SHOWN]
    text = "; ".join(f"{cue.start:.1f}–{cue.end:.1f} {cue.text}" for cue in answer.cues[:4]) or "no text"
    shown = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return " ".join([shown, *(f"[{warning}]" for warning in answer.warnings)]).replace("\n", " ")


if __name__ == "__main__":
    main()
