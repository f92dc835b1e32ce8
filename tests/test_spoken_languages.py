"""Which language is spoken where."""

import csv
import io
import itertools
import json
import wave
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import nano
from tests.server import Server
from transcription.whisper import languages
from transcription.whisper.cutting import Span
from transcription.whisper.engine import Event, Sound
from transcription.whisper.languages import Passage, Samples
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.pcm import SAMPLE_RATE
from transcription.whisper.result import Segment, Word
from transcription.workers import devices, pipeline

# ---------------------------------------------------------------- one language


def length(place: tuple[Span, ...]) -> float:
    return sum(end - start for start, end in place)


def test_a_short_recording_is_listened_to_once_and_only_where_somebody_speaks() -> None:
    assert languages.places([(2.0, 5.0), (5.5, 9.0), (40.0, 44.0)]) == [((2.0, 9.0), (40.0, 44.0))]
    assert languages.places([]) == []


def test_a_long_recording_is_listened_to_at_five_places_from_its_first_word_to_its_last() -> None:
    speech = [(100.0 + 10 * index, 108.0 + 10 * index) for index in range(100)]
    places = languages.places(speech)
    assert [length(place) for place in places] == pytest.approx([30.0] * 5)
    assert (places[0][0][0], places[-1][-1][1]) == (100.0, 1098.0)
    assert 580 < places[2][0][0] < 620


@given(st.lists(st.tuples(st.floats(0.1, 60), st.floats(0.1, 200)), max_size=60))
def test_no_place_has_silence_or_is_longer_than_a_window(stretches: list[tuple[float, float]]) -> None:
    speech, now = [], 0.0
    for spoken, pause in stretches:
        speech.append((now, now + spoken))
        now += spoken + pause
    joined = languages._joined(speech, languages.SHORT_PAUSE)
    places = languages.places(speech)
    assert len(places) <= languages.MOST_PLACES
    for place in places:
        assert length(place) <= languages.WINDOW + 1e-6
        assert all(any(first <= start and end <= last for first, last in joined) for start, end in place)
    assert sum(map(length, places)) == pytest.approx(min(sum(map(length, [tuple(joined)])), 30.0 * len(places)))


class Heard:
    """What somebody hears in sounds, which are known by their first sample."""

    def __init__(self, **probabilities: Mapping[str, float]) -> None:
        self.probabilities = list(probabilities.values())
        self.sounds: list[Samples] = []

    def __call__(self, samples: Samples) -> Mapping[str, float]:
        self.sounds.append(samples)
        return self.probabilities[int(samples[0])]


def windows(*seconds: float) -> list[Samples]:
    return [np.full(int(each * SAMPLE_RATE), number, np.float32) for number, each in enumerate(seconds)]


def test_the_likeliest_language_of_all_places_counts_not_that_of_the_first() -> None:
    detect = Heard(greeting={"en": 0.9, "ru": 0.1}, talk={"en": 0.2, "ru": 0.8}, end={"en": 0.1, "ru": 0.9})
    found = languages.heard(windows(30, 30, 30), detect)
    assert languages.likeliest(found) == ("ru", pytest.approx(0.6))


def test_a_longer_window_counts_for_more() -> None:
    detect = Heard(short={"en": 1.0}, long={"ru": 0.7, "en": 0.3})
    assert languages.likeliest(languages.heard(windows(5, 30), detect))[0] == "ru"


def test_windows_that_can_change_nothing_are_not_listened_to() -> None:
    detect = Heard(**{name: {"ru": 0.98, "en": 0.01} for name in "abcde"})
    languages.heard(windows(30, 30, 30, 30, 30), detect)
    assert len(detect.sounds) == 3


def test_only_candidates_are_chosen_from() -> None:
    detect = Heard(a={"uk": 0.6, "ru": 0.3, "en": 0.1})
    assert languages.likeliest(languages.heard(windows(5), detect, ("en", "ru")))[0] == "ru"


def test_a_measure_that_is_no_number_is_no_language() -> None:
    found = languages.heard(windows(5), Heard(a={"uk": float("nan"), "ru": 0.3}))
    assert languages.likeliest(found)[0] == "ru"


# ---------------------------------------------------------------- several languages

EN, RU = {"en": 0.95, "ru": 0.02, "uk": 0.01}, {"ru": 0.9, "uk": 0.08, "en": 0.01}


def test_each_piece_that_is_sure_has_its_own_language() -> None:
    assert languages.smooth([EN, RU, EN], [3.0, 3.0, 3.0]) == ["en", "ru", "en"]


def test_a_short_piece_has_the_language_of_its_neighbours() -> None:
    assert languages.smooth([RU, {"en": 0.7, "ru": 0.1}, RU], [4.0, 0.5, 4.0]) == ["ru"] * 3
    assert languages.smooth([{"en": 0.6, "ru": 0.2}, RU], [0.4, 4.0]) == ["ru"] * 2


def test_a_piece_that_is_not_sure_has_the_language_of_its_neighbours() -> None:
    assert languages.smooth([RU, {"uk": 0.5, "ru": 0.4}, RU], [4.0, 4.0, 4.0]) == ["ru"] * 3


def test_alone_a_piece_keeps_its_likeliest_language() -> None:
    assert languages.smooth([{"uk": 0.5, "ru": 0.4}], [0.3]) == ["uk"]


def seconds(*spans: Span) -> list[tuple[int, int]]:
    return [(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in spans]


def sound_of(total: float, **pieces: float) -> Samples:
    """A sound whose samples from each given second on have the number of the piece."""
    samples = np.zeros(int(total * SAMPLE_RATE), np.float32)
    for number, start in enumerate(pieces.values()):
        samples[int(start * SAMPLE_RATE) :] = number
    return samples


def test_a_sound_is_parted_where_the_language_changes() -> None:
    samples = sound_of(12, russian=0, english=5)
    detect = Heard(russian=RU, english=EN)
    found = languages.passages(samples, seconds((0.4, 3.0), (3.3, 4.4), (6.0, 9.6)), detect)
    assert [(part.language, part.start / SAMPLE_RATE, part.end / SAMPLE_RATE) for part in found] == [
        ("ru", 0.0, pytest.approx(4.8)),
        ("en", pytest.approx(5.6), 12.0),
    ]
    # A long silence may have something in it that could be speech.
    ends = [(part.start, part.end) for part in languages.passages(samples, seconds((0.4, 4.4), (7.4, 11.0)), detect)]
    assert ends == [(0, int(5.9 * SAMPLE_RATE)), (int(5.9 * SAMPLE_RATE), len(samples))]


def test_pauses_in_one_language_part_nothing() -> None:
    samples = sound_of(60, only=0)
    found = languages.passages(samples, seconds(*((start, start + 4.0) for start in range(0, 60, 5))), Heard(only=RU))
    assert [(part.start, part.end, part.language) for part in found] == [(0, len(samples), "ru")]


def test_speech_without_a_pause_is_parted_where_it_is_quietest() -> None:
    samples = np.full(9 * SAMPLE_RATE, 0.5, np.float32)
    samples[int(3.1 * SAMPLE_RATE) : int(3.2 * SAMPLE_RATE)] = 0.001
    (first, second, *_) = languages.pieces(samples, seconds((0.0, 9.0)))
    assert first[1] / SAMPLE_RATE == pytest.approx(3.15, abs=0.06)
    assert second[0] == first[1]


def test_where_a_language_changes_without_a_pause_each_phrase_is_listened_to() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 0.1, 8 * SAMPLE_RATE).astype(np.float32)
    for moment in (2.2, 3.9, 5.4, 6.5):  # the ends of phrases; the second ends the English
        samples[int((moment - 0.06) * SAMPLE_RATE) : int((moment + 0.06) * SAMPLE_RATE)] = 0.0

    def detect(part: Samples) -> Mapping[str, float]:
        """Whoever hears both languages hears the one that is longer in it."""
        first = next(index for index in range(len(samples)) if np.shares_memory(samples[index : index + 1], part))
        english = max(0.0, min(1.0, (3.9 * SAMPLE_RATE - first) / len(part)))
        return {"en": english, "ru": 1.0 - english}

    (english, russian) = languages.passages(samples, seconds((0.0, 8.0)), detect)
    assert (english.language, russian.language) == ("en", "ru")
    assert english.end == russian.start == pytest.approx(3.9 * SAMPLE_RATE, abs=0.06 * SAMPLE_RATE)


@given(st.lists(st.tuples(st.integers(100, 700_000), st.integers(1600, 200_000)), min_size=1, max_size=20))
def test_pieces_and_passages_have_all_of_the_speech_in_order(
    stretches: list[tuple[int, int]],
) -> None:
    speech, now = [], 0
    for spoken, pause in stretches:
        speech.append((now, now + spoken))
        now += spoken + pause
    samples = np.ones(now, np.float32)
    pieces = languages.pieces(samples, speech)
    assert all(start < end <= following for (start, end), (following, _) in zip(pieces, pieces[1:], strict=False))
    assert (pieces[0][0], pieces[-1][1]) == (speech[0][0], speech[-1][1])
    turn = itertools.cycle([{"en": 1.0}, {"ru": 1.0}])
    parts = languages.passages(samples, speech, lambda _: next(turn))
    assert (parts[0].start, parts[-1].end) == (0, len(samples))
    assert all(part.start < part.end for part in parts)
    assert all(part.end <= following.start for part, following in itertools.pairwise(parts))
    left_out = [(part.end, following.start) for part, following in itertools.pairwise(parts)]
    assert not any(start < last and first < end for start, end in speech for first, last in left_out if first < last)


def test_a_segment_of_a_passage_lies_in_the_whole_sound() -> None:
    words = (Word(" one", 0.5, 1.0, 0.9), Word(" two", 1.0, 9.0, 0.9))
    segment = Segment(0.5, 9.0, " one two", 0, (), 0.0, -0.1, 1.0, 0.0, words)
    placed = Passage(2 * SAMPLE_RATE, 5 * SAMPLE_RATE, "ru", 1.0, is_one_of_several=True).place(segment)
    assert (placed.start, placed.end, placed.seek, placed.language) == (2.5, 5.0, 200, "ru")
    assert [(word.start, word.end) for word in placed.words or ()] == [(2.5, 3.0), (3.0, 5.0)]


def test_speech_is_known_in_the_samples_of_the_sound() -> None:
    sound = Sound(Path("a.pcm"), ((100, 200), (500, 700)), ((0, 50), (150, 550), (600, 900)))
    assert languages._within(sound) == [(50, 100), (100, 150), (200, 300)]
    assert Sound.from_json(json.loads(json.dumps(sound.to_json()))) == sound


# ---------------------------------------------------------------- with engines


RUSSIAN = [
    "Десять кошек спят в доме.", "Анна купила семь книг вчера.",
    "Двадцать собак сидят у реки.", "Поезд отправляется завтра в восемь часов.",
]  # fmt: skip
ENGLISH = ["Nine mice sing in the forest.", "The white house is very big.", "Ten cats sleep in the house."]


@pytest.fixture(scope="module")
def runner() -> Iterator[devices.Runner]:
    runner = devices.Runner("cpu")
    yield runner
    runner.stop()


@pytest.fixture(scope="module")
def russian_and_english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each language twice, in turns, with pauses of 0.8 s."""
    folder = tmp_path_factory.mktemp("both")
    said = [("ru", RUSSIAN[:2]), ("en", ENGLISH[:2]), ("ru", RUSSIAN[2:]), ("en", ENGLISH[2:])]
    parts = [nano.recite(texts, name, folder / f"{i}.wav", pause=0.8) for i, (name, texts) in enumerate(said)]
    return joined(parts, folder / "both.wav")


def joined(parts: list[Path], target: Path) -> Path:
    with wave.open(str(target), "wb") as whole:
        whole.setparams((1, 2, 16000, 0, "NONE", ""))
        for part in parts:
            with wave.open(str(part)) as source:
                whole.writeframes(source.readframes(source.getnframes()))
    return target


def decoded(path: Path, runner: devices.Runner, **asked: object) -> list[Event]:
    options = replace(TranscriptionOptions(temperature=(0.0,), beam_size=1), **asked)
    return list(pipeline.transcribe_file(path, model="nano", options=options, runner=runner))


def said(events: list[Event]) -> list[tuple[str, str]]:
    return [(e["segment"]["language"], e["segment"]["text"].strip()) for e in events if e["event"] == "segment"]


EACH = [("ru", text) for text in RUSSIAN[:2]] + [("en", text) for text in ENGLISH[:2]]
EACH += [("ru", text) for text in RUSSIAN[2:]] + [("en", ENGLISH[2])]


@pytest.mark.heavy
@pytest.mark.needs("espeak-ng")
def test_each_passage_is_decoded_in_its_language(russian_and_english: Path, runner: devices.Runner) -> None:
    events = decoded(russian_and_english, runner, multilingual=True)
    assert said(events) == EACH
    starts = [event["segment"]["start"] for event in events if event["event"] == "segment"]
    assert starts == sorted(starts)


@pytest.mark.heavy
@pytest.mark.needs("espeak-ng")
def test_the_language_is_that_of_most_of_the_recording_not_of_its_beginning(
    tmp_path: Path, runner: devices.Runner
) -> None:
    greeting = nano.recite(ENGLISH * 4, "en", tmp_path / "en.wav", pause=0.8)
    talk = nano.recite(RUSSIAN * 2, "ru", tmp_path / "ru.wav", pause=0.8)
    with wave.open(str(greeting)) as beginning:
        assert beginning.getnframes() > languages.WINDOW * SAMPLE_RATE
    whole = joined([greeting, *[talk] * 7], tmp_path / "whole.wav")
    events = decoded(whole, runner, task="detect")
    assert [event["language"] for event in events if event["event"] == "language"] == ["ru"]
    assert said(events) == []


@pytest.mark.heavy
@pytest.mark.needs("espeak-ng")
def test_each_segment_of_a_job_has_its_language_wherever_it_is_shown(
    nano_server: Server, russian_and_english: Path
) -> None:
    job = nano_server.transcribe(russian_and_english, multilingual="true", temperature="[0]", beam_size="1")
    assert job["status"] == "done"
    assert job["language"] == "ru"
    assert job["warnings"] == []
    with nano_server.client() as client:
        address = f"/api/v1/jobs/{job['id']}/"
        shown = client.get(f"{address}transcript.json").json()["segments"]
        listed = client.get(f"{address}segments/").json()["results"]
        table = list(csv.reader(io.StringIO(client.get(f"{address}transcript.csv").text.lstrip("\ufeff"))))
        events = [line for line in client.get(f"{address}events/").text.splitlines() if line.startswith("data: ")]
    streamed = [event for line in events if "start" in (event := json.loads(line.removeprefix("data: ")))]
    for segments in (shown, listed, streamed):
        assert [(segment["language"], segment["text"]) for segment in segments] == EACH
    assert table[0] == ["start", "end", "text", "language"]
    assert [(row[3], row[2]) for row in table[1:]] == EACH
