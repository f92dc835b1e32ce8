"""Every option acts: it reaches the library by its name, or changes what comes out."""

import json
import math
import wave
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import faster_whisper
import pytest

from tests import nano
from tests.server import NANO
from transcription.sound import audio
from transcription.sound.timeline import Timeline
from transcription.whisper.engine import ENGINES, Event, Sound
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment
from transcription.workers import devices, pipeline

pytestmark = pytest.mark.heavy

Case = tuple[str, Any, str, Any]

# An option, a value that is not its default, and what the library gets: its argument and the value there.
IN_BOTH: list[Case] = [
    ("language", "ru", "language", "ru"),
    ("task", "translate", "task", "translate"),
    ("word_timestamps", True, "word_timestamps", True),
    ("highlight", True, "word_timestamps", True),
    ("condition_on_previous_text", False, "condition_on_previous_text", False),
    ("initial_prompt", "Anna", "initial_prompt", "Anna"),
    ("prefix", "Anna", "prefix", "Anna"),
    ("best_of", 3, "best_of", 3),
    ("length_penalty", 0.5, "length_penalty", 0.5),
    ("suppress_tokens", (-1, 7), "suppress_tokens", [-1, 7]),
    ("suppress_blank", False, "suppress_blank", False),
    ("no_timestamps", True, "without_timestamps", True),
    ("max_initial_timestamp", 0.5, "max_initial_timestamp", 0.5),
    ("compression_ratio_threshold", 1.5, "compression_ratio_threshold", 1.5),
    ("no_speech_threshold", 0.4, "no_speech_threshold", 0.4),
    ("hallucination_silence_threshold", 0.8, "hallucination_silence_threshold", 0.8),
    ("hallucination_silence_threshold", 0.8, "word_timestamps", True),
    ("prepend_punctuations", "(", "prepend_punctuations", "("),
    ("append_punctuations", ")", "append_punctuations", ")"),
]
IN_FASTER_WHISPER: list[Case] = [
    *IN_BOTH,
    ("temperature", (0.0, 0.4), "temperature", [0.0, 0.4]),
    ("beam_size", 2, "beam_size", 2),
    ("patience", 2.0, "patience", 2.0),
    ("repetition_penalty", 1.2, "repetition_penalty", 1.2),
    ("no_repeat_ngram_size", 3, "no_repeat_ngram_size", 3),
    ("hotwords", "Anna", "hotwords", "Anna"),
    ("max_length", 20, "max_new_tokens", 20),
    ("max_length", 448, "max_new_tokens", None),  # what the prompt leaves
    ("logprob_threshold", -0.5, "log_prob_threshold", -0.5),
]
IN_MLX_WHISPER: list[Case] = [
    *IN_BOTH,
    ("temperature", (0.0, 0.4), "temperature", (0.0, 0.4)),
    ("max_length", 20, "sample_len", 20),
    ("max_length", 448, "sample_len", 224),
    ("logprob_threshold", -0.5, "logprob_threshold", -0.5),
]
# What acts before an engine or after it, the same for both, and what loads it; each has a test below.
ELSEWHERE = {
    "multilingual", "track", "channels", "vad_filter", "sections", "clip_timestamps", "remove_silence",
    "silence_threshold", "silence_duration", "up_speed", "verbose", "highlight", "compute_type", "threads", "seed",
    "languages",
}  # fmt: skip


@pytest.mark.parametrize(("engine", "table"), [("faster-whisper", IN_FASTER_WHISPER), ("mlx-whisper", IN_MLX_WHISPER)])
def test_each_option_acts_or_is_known_not_to(engine: str, table: list[Case]) -> None:
    acting = {option for option, *_ in table} | ELSEWHERE
    named = {field.name for field in fields(TranscriptionOptions)}
    assert named == acting | ENGINES[engine].unsupported
    assert not {option for option, *_ in table} & ENGINES[engine].unsupported


@pytest.fixture
def sound(tmp_path: Path) -> Sound:
    return heard(NANO / "nano" / "bears.wav", tmp_path / "bears.pcm")


def heard(source: Path, target: Path, *, tempo: float = 1.0) -> Sound:
    def ignore(_: object) -> None:
        return None

    audio.decode(
        source, target, name="a", max_seconds=60, tempo=tempo, on_probe=ignore, on_progress=ignore,
        should_stop=lambda: False,
    )  # fmt: skip
    return Sound(target, ((0, target.stat().st_size // 2),))


# What changes each other's meaning: the options that ask for the times of words, which a translation has not, and those
# that take the places of the text's tokens.
RELATED: list[set[str]] = [
    {"word_timestamps", "highlight", "hallucination_silence_threshold", "task"},
    {"max_length", "initial_prompt"}, {"max_length", "prefix"}, {"max_length", "hotwords"},
]  # fmt: skip


def together(table: list[Case]) -> list[list[Case]]:
    """The cases in as few decodings as they fit into: in each, one alone is the reason for what an argument gets."""
    decodings: list[list[Case]] = []
    for case in table:
        fitting = (decoding for decoding in decodings if not any(clash(case, other) for other in decoding))
        decoding = next(fitting, None)
        if decoding is None:
            decodings.append(decoding := [])
        decoding.append(case)
    return decodings


def clash(one: Case, other: Case) -> bool:
    return one[0] == other[0] or one[2] == other[2] or any({one[0], other[0]} <= related for related in RELATED)


@pytest.mark.parametrize("cases", together(IN_FASTER_WHISPER))
def test_they_reach_faster_whisper(monkeypatch: pytest.MonkeyPatch, sound: Sound, cases: list[Case]) -> None:
    from transcription.whisper.engines.faster_whisper import Engine  # noqa: PLC0415

    received: dict[str, Any] = {}
    transcribe = faster_whisper.WhisperModel.transcribe

    def listen(model: Any, samples: Any, **asked: Any) -> Any:
        received.update(asked)
        return transcribe(model, samples, **asked)

    monkeypatch.setattr(faster_whisper.WhisperModel, "transcribe", listen)
    options = replace(TranscriptionOptions(), **{option: value for option, value, *_ in cases})
    told = _decoded(Engine, sound, NANO / "faster-whisper-nano", options)
    assert {argument: received[argument] for _, _, argument, _ in cases} == {
        argument: expected for _, _, argument, expected in cases
    }
    assert told[-1]["event"] == "done"


def test_long_hotwords_beside_a_long_prompt_leave_places_for_the_text(sound: Sound) -> None:
    from transcription.whisper.engines.faster_whisper import Engine  # noqa: PLC0415

    options = TranscriptionOptions(
        language="en", hotwords="Anna bought bears. " * 400, initial_prompt="Ten cats. " * 400
    )
    assert _decoded(Engine, sound, NANO / "faster-whisper-nano", options)[-1]["event"] == "done"


@pytest.mark.needs("mlx-whisper")
@pytest.mark.parametrize("cases", together(IN_MLX_WHISPER))
def test_they_reach_mlx_whisper(
    monkeypatch: pytest.MonkeyPatch, sound: Sound, mlx_models: Path, cases: list[Case]
) -> None:
    from transcription.whisper.engines import mlx_whisper  # noqa: PLC0415

    received: dict[str, Any] = {}
    transcribe = mlx_whisper.library.transcribe

    def listen(samples: Any, **asked: Any) -> Any:
        received.update(asked)
        return transcribe(samples, **asked)

    monkeypatch.setattr(mlx_whisper.library, "transcribe", listen)
    options = replace(TranscriptionOptions(language="en"), **{option: value for option, value, *_ in cases})
    told = _decoded(mlx_whisper.Engine, sound, mlx_models / "whisper-nano", options)
    assert {argument: received[argument] for _, _, argument, _ in cases} == {
        argument: expected for _, _, argument, expected in cases
    }
    assert told[-1]["event"] == "done"


def _decoded(engine_class: Any, sound: Sound, model: Path, options: TranscriptionOptions) -> list[Event]:
    told: list[Event] = []
    engine = engine_class("cpu", told.append)
    engine.open(1, sound, model, options)
    while not told or told[-1]["event"] != "done":
        engine.step()
    return told


@pytest.mark.parametrize(("compute_type", "threads"), [("float32", 1), ("int8_float32", 2)])
def test_numbers_and_threads_load_the_model_anew(
    monkeypatch: pytest.MonkeyPatch, sound: Sound, compute_type: str, threads: int
) -> None:
    from transcription.whisper.engines import faster_whisper as ours  # noqa: PLC0415

    loaded: list[dict[str, Any]] = []

    class Listening(faster_whisper.WhisperModel):
        def __init__(self, *args: Any, **asked: Any) -> None:
            loaded.append(asked)
            super().__init__(*args, **asked)

    monkeypatch.setattr(ours, "WhisperModel", Listening)
    engine, model = ours.Engine("cpu", lambda event: None), NANO / "faster-whisper-nano"
    asked = TranscriptionOptions(compute_type=compute_type, threads=threads)
    for options in (TranscriptionOptions(), asked, asked, TranscriptionOptions()):
        engine.open(1, sound, model, options)
        engine.close(1)
    assert [(each["compute_type"], each["cpu_threads"]) for each in loaded] == [
        ("int8", 0), (compute_type, threads), ("int8", 0),
    ]  # fmt: skip


def test_a_seed_makes_sampling_repeatable(sound: Sound) -> None:
    from transcription.whisper.engines.faster_whisper import Engine  # noqa: PLC0415

    def sampled(seed: int) -> list[Any]:
        options = TranscriptionOptions(
            language="en",
            temperature=(1.0,),
            best_of=1,
            seed=seed,
            logprob_threshold=-math.inf,
            no_speech_threshold=1.0,
        )
        told = _decoded(Engine, sound, NANO / "faster-whisper-nano", options)
        return [event["segment"]["tokens"] for event in told if event["event"] == "segment"]

    texts = [sampled(seed) for seed in (1, 1, 2, 3, 4, 5)]
    assert texts[0] == texts[1]
    assert any(text != texts[0] for text in texts[2:])


# ------------------------------------------------------------------ ours: the same for every engine


@pytest.fixture(scope="module")
def runner() -> Iterator[devices.Runner]:
    runner = devices.Runner("cpu")
    yield runner
    runner.stop()


TEXTS = ["Anna bought seven books yesterday.", "Ten cats sleep in the house."]


@pytest.fixture(scope="module")
def two_sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sentences, each with three seconds of silence after it."""
    return nano.recite(TEXTS, "en", tmp_path_factory.mktemp("two") / "two.wav", pause=3.0)


def transcribed(path: Path, runner: devices.Runner, **asked: Any) -> list[Segment]:
    options = replace(TranscriptionOptions(temperature=(0.0,)), **asked)
    events = pipeline.transcribe_file(path, model="nano", options=options, runner=runner)
    return [Segment.from_json(event["segment"]) for event in events if event["event"] == "segment"]


def languages_of(path: Path, runner: devices.Runner, **asked: Any) -> list[str]:
    """The language that each section was decoded in."""
    options = replace(TranscriptionOptions(temperature=(0.0,), beam_size=1), **asked)
    events = pipeline.transcribe_file(path, model="nano", options=options, runner=runner)
    return [event["language"] for event in events if event["event"] == "language"]


def test_the_language_is_chosen_among_those_that_are_named(runner: devices.Runner) -> None:
    bears = NANO / "nano" / "bears.wav"  # English

    assert languages_of(bears, runner, languages=("ru", "en")) == ["en"]
    assert languages_of(bears, runner, languages=("ru", "uk"))[0] in ("ru", "uk")
    assert languages_of(bears, runner, language="ru", languages=("en",)) == ["ru"]


def text_of(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments).strip()


needs_espeak = pytest.mark.needs("espeak-ng")


@needs_espeak
def test_only_the_clips_are_heard(two_sentences: Path, runner: devices.Runner) -> None:
    whole = transcribed(two_sentences, runner)
    assert text_of(whole) == " ".join(TEXTS)
    middle = (whole[0].end + whole[1].start) / 2
    first = transcribed(two_sentences, runner, clip_timestamps=(0.0, middle))
    assert text_of(first) == TEXTS[0]
    second = transcribed(two_sentences, runner, clip_timestamps=(middle,))
    assert text_of(second) == TEXTS[1]
    assert second[0].start == pytest.approx(whole[1].start, abs=0.5)
    assert transcribed(two_sentences, runner, clip_timestamps=(900.0, 901.0)) == []


@needs_espeak
@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_another_tempo_keeps_the_recordings_time(two_sentences: Path, runner: devices.Runner, speed: float) -> None:
    whole = transcribed(two_sentences, runner)
    other = transcribed(two_sentences, runner, up_speed=speed)
    assert len(other) == len(whole)
    for segment, before in zip(other, whole, strict=True):
        assert segment.start == pytest.approx(before.start, abs=0.5)
        assert segment.end == pytest.approx(before.end, abs=0.5)


@needs_espeak
def test_another_tempo_is_another_length_of_decoded_sound(two_sentences: Path, tmp_path: Path) -> None:
    lengths = [heard(two_sentences, tmp_path / f"{tempo}.pcm", tempo=tempo).spans[0][1] for tempo in (1.0, 2.0)]
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=0.02)


def with_silence(target: Path, *, before: float, after: float, noise: int = 0) -> Path:
    """A sentence between silences of so many seconds, as PCM."""
    with wave.open(str(NANO / "nano" / "bears.wav")) as source:
        speech = source.readframes(source.getnframes())
    samples = [int(noise * math.sin(0.3 * i)).to_bytes(2, "little", signed=True) for i in range(160)]
    hush = b"".join(samples) * 100  # a second
    target.write_bytes(hush * int(before) + speech + hush * int(after))
    return target


@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 0), (0, 3), (70, 65)])
def test_silence_at_both_ends_is_found(tmp_path: Path, before: int, after: int) -> None:
    pcm = with_silence(tmp_path / "a.pcm", before=before, after=after)
    whole = pcm.stat().st_size / 32000
    start, end = audio.sounding(pcm, threshold=-60, shortest=0.5)
    assert start == pytest.approx(before, abs=0.2)
    assert end == pytest.approx(whole - after, abs=0.2)


def test_a_noise_is_silence_below_the_threshold_alone(tmp_path: Path) -> None:
    pcm = with_silence(tmp_path / "a.pcm", before=3, after=3, noise=100)  # about -53 dBFS
    assert audio.sounding(pcm, threshold=-60, shortest=0.5)[0] == 0
    assert audio.sounding(pcm, threshold=-40, shortest=0.5)[0] == pytest.approx(3, abs=0.2)


def test_a_short_silence_stays(tmp_path: Path) -> None:
    pcm = with_silence(tmp_path / "a.pcm", before=3, after=3)
    assert audio.sounding(pcm, threshold=-60, shortest=4)[0] == 0


def test_a_silent_recording_has_nothing_that_sounds(tmp_path: Path) -> None:
    (tmp_path / "a.pcm").write_bytes(bytes(64_000))
    assert audio.sounding(tmp_path / "a.pcm", threshold=-60, shortest=0.5) == (0, 0)
    (tmp_path / "a.pcm").write_bytes(b"")
    assert audio.sounding(tmp_path / "a.pcm", threshold=-60, shortest=0.5) == (0, 0)


@needs_espeak
def test_without_the_silence_at_its_ends_a_recording_is_heard_from_its_first_word(
    tmp_path: Path, runner: devices.Runner
) -> None:
    pcm = with_silence(tmp_path / "a.pcm", before=5, after=5)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(pcm.read_bytes())
    asked = {"vad_filter": False, "sections": 1, "remove_silence": True}
    found = pipeline._clips(pcm, Timeline(((0.0, 12.0),)), TranscriptionOptions(remove_silence=True))
    assert found[0][0] == pytest.approx(5, abs=0.2)
    segments = transcribed(tmp_path / "a.wav", runner, **asked)
    assert text_of(segments) == "Twelve bears live in the forest."
    assert 4.8 <= segments[0].start <= 5.5


@needs_espeak
def test_each_section_may_have_its_own_language(tmp_path: Path, runner: devices.Runner) -> None:
    russian = [text for text, _ in _pairs(6)]
    english = [text for _, text in _pairs(6)]
    parts = [
        nano.recite(russian, "ru", tmp_path / "ru.wav", pause=1.0),
        nano.recite(english, "en", tmp_path / "en.wav", pause=1.0),
    ]
    both = _joined([parts[0]] * 6 + [parts[1]] * 6, tmp_path / "both.wav", silence=4.0)
    each = languages_of(both, runner, multilingual=True)
    assert (each[0], each[-1]) == ("ru", "en")
    assert set(languages_of(both, runner)) == {"ru"}  # that of the first


def _pairs(count: int) -> list[nano.Pair]:
    return [(item["ru"], item["en"]) for item in json.loads(PAIRS)][:count]


PAIRS = json.dumps(
    [
        {"ru": "Десять кошек спят в доме.", "en": "Ten cats sleep in the house."},
        {"ru": "Анна купила семь книг вчера.", "en": "Anna bought seven books yesterday."},
        {"ru": "Двадцать собак сидят у реки.", "en": "Twenty dogs sit by the river."},
        {"ru": "Белый дом очень большой.", "en": "The white house is very big."},
        {"ru": "Девять мышей поют в лесу.", "en": "Nine mice sing in the forest."},
        {"ru": "Поезд отправляется завтра в восемь часов.", "en": "The train leaves tomorrow at eight o'clock."},
    ]
)


def _joined(parts: list[Path], target: Path, *, silence: float) -> Path:
    with wave.open(str(target), "wb") as joined:
        joined.setparams((1, 2, 16000, 0, "NONE", ""))
        for part in parts:
            with wave.open(str(part)) as source:
                joined.writeframes(source.readframes(source.getnframes()))
            joined.writeframes(bytes(2 * int(16000 * silence)))
    return target
