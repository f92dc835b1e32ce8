"""The options of a transcription, with the names of openai-whisper's `transcribe` and of faster-whisper's."""

import re
import unicodedata
from dataclasses import asdict, dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from transcription.whisper.language_names import OTHER_NAMES, UNCHOSEN

# A window that failed is decoded again at the next temperature (Whisper paper, section 4.5).
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

Task = Literal["transcribe", "translate", "detect"]  # the last: the language alone


# Punctuation that belongs to the word after it, and to the word before it (openai-whisper's `transcribe`).
PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"

# Number types by CTranslate2's names, and the short names that people write.
COMPUTE_TYPES = (
    "float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16",
)  # fmt: skip
COMPUTE_TYPE_ALIASES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class TranscriptionOptions:
    """The options of one job. The defaults are openai-whisper's except `beam_size`, `best_of` and `vad_filter`."""

    language: str | None = None  # a code of LANGUAGES; None: detect
    languages: tuple[str, ...] = ()  # candidates for detection; (): all that the model knows
    multilingual: bool = False  # detect the language of each passage
    task: Task = "transcribe"
    word_timestamps: bool = False

    # the sound, in the recording's time
    track: int | str | None = None  # a number from 1, or a language; None: the one that a player plays
    channels: Literal["mix", "separate"] | int | None = None  # a number from 1; None: mix
    vad_filter: bool = True  # skip what is not speech
    sections: int | None = None  # the most that a recording is cut into; None: by its length; 1: not cut
    clip_timestamps: tuple[float, ...] = ()  # start, end, start, …; the last end may be missing; (): everything
    remove_silence: bool = False  # at both ends
    silence_threshold: float = -60.0  # dBFS
    silence_duration: float = 0.5  # seconds
    up_speed: float = 1.0  # tempo, before decoding

    # the prompt
    condition_on_previous_text: bool = True
    initial_prompt: str | None = None
    carry_initial_prompt: bool = False
    prefix: str | None = None  # of the first window
    hotwords: str | None = None

    # the choice of tokens
    temperature: tuple[float, ...] = TEMPERATURES
    beam_size: int = 5  # at temperature 0
    best_of: int = 5  # above temperature 0
    patience: float = 1.0
    length_penalty: float | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    suppress_tokens: tuple[int, ...] = (-1,)  # -1: all tokens that are not speech
    suppress_blank: bool = True
    max_length: int | None = None  # tokens a window
    no_timestamps: bool = False
    max_initial_timestamp: float = 1.0  # seconds
    seed: int | None = None

    # the signs of a failed window
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    hallucination_silence_threshold: float | None = None  # seconds

    prepend_punctuations: str = PREPENDED
    append_punctuations: str = APPENDED

    # the computation
    compute_type: str | None = None  # one of COMPUTE_TYPES; None: the device's own
    threads: int | None = None
    batch_size: int | None = None

    # the result
    highlight: bool = False  # subtitles mark the word being spoken
    verbose: bool = False  # each window is an event of the job

    @property
    def gives_words(self) -> bool:
        """Whether the result has words with their times."""
        return self.word_timestamps or self.highlight

    @property
    def finds_words(self) -> bool:
        """Whether the engine must find the times of words, be it only to look for hallucinations between them."""
        return self.gives_words or self.hallucination_silence_threshold is not None

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` reads."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The options that another version may have stored. Unknown ones are left out (see `unknown_options`)."""
        types = _field_types()
        stored: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in _items(values)
        }
        return cls(**{name: value for name, value in stored.items() if name in types and _fits(value, types[name])})


def unknown_options(values: Any) -> list[str]:
    """The names of stored options that this version does not have, or not with this value."""
    known = TranscriptionOptions.from_json(values).to_json()
    return sorted(name for name, value in _items(values) if name not in known or known[name] != value)


def _items(values: Any) -> list[tuple[str, Any]]:
    return list(values.items()) if isinstance(values, dict) else []


@cache
def _field_types() -> dict[str, Any]:
    return get_type_hints(TranscriptionOptions)


def _fits(value: Any, field_type: Any) -> bool:
    """Whether a value is of a field's type. An int fits a float; a bool fits no number."""
    arguments = get_args(field_type)
    if get_origin(field_type) in (UnionType, Union):  # the second where a Literal is among them
        return any(_fits(value, argument) for argument in arguments)
    if get_origin(field_type) is Literal:
        return value in arguments
    if get_origin(field_type) is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if field_type is NoneType:
        return value is None
    if field_type is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is field_type


# The languages of openai-whisper's tokenizer, in its order. `yue` came with large-v3.
LANGUAGES = {
    "en": "english", "zh": "chinese", "de": "german", "es": "spanish", "ru": "russian", "ko": "korean", "fr": "french",
    "ja": "japanese", "pt": "portuguese", "tr": "turkish", "pl": "polish", "ca": "catalan", "nl": "dutch",
    "ar": "arabic", "sv": "swedish", "it": "italian", "id": "indonesian", "hi": "hindi", "fi": "finnish",
    "vi": "vietnamese", "he": "hebrew", "uk": "ukrainian", "el": "greek", "ms": "malay", "cs": "czech",
    "ro": "romanian", "da": "danish", "hu": "hungarian", "ta": "tamil", "no": "norwegian", "th": "thai", "ur": "urdu",
    "hr": "croatian", "bg": "bulgarian", "lt": "lithuanian", "la": "latin", "mi": "maori", "ml": "malayalam",
    "cy": "welsh", "sk": "slovak", "te": "telugu", "fa": "persian", "lv": "latvian", "bn": "bengali", "sr": "serbian",
    "az": "azerbaijani", "sl": "slovenian", "kn": "kannada", "et": "estonian", "mk": "macedonian", "br": "breton",
    "eu": "basque", "is": "icelandic", "hy": "armenian", "ne": "nepali", "mn": "mongolian", "bs": "bosnian",
    "kk": "kazakh", "sq": "albanian", "sw": "swahili", "gl": "galician", "mr": "marathi", "pa": "punjabi",
    "si": "sinhala", "km": "khmer", "sn": "shona", "yo": "yoruba", "so": "somali", "af": "afrikaans",
    "oc": "occitan", "ka": "georgian", "be": "belarusian", "tg": "tajik", "sd": "sindhi", "gu": "gujarati",
    "am": "amharic", "yi": "yiddish", "lo": "lao", "uz": "uzbek", "fo": "faroese", "ht": "haitian creole",
    "ps": "pashto", "tk": "turkmen", "nn": "nynorsk", "mt": "maltese", "sa": "sanskrit", "lb": "luxembourgish",
    "my": "myanmar", "bo": "tibetan", "tl": "tagalog", "mg": "malagasy", "as": "assamese", "tt": "tatar",
    "haw": "hawaiian", "ln": "lingala", "ha": "hausa", "ba": "bashkir", "jw": "javanese", "su": "sundanese",
    "yue": "cantonese",
}  # fmt: skip


def language_code(name: str) -> str | None:
    """The code of a language as people and programs write it; None for what asks for detection, such as `auto`.

    `ru`, `ru-RU`, `ru_RU.UTF-8`, `rus`, `Russian`, `русский` are one language; `Portuguese (Brazil)` is Portuguese.
    Raises ValueError for an unknown language.
    """
    wanted = name.strip()
    if wanted.lower() in UNCHOSEN:
        return None
    by_name = _codes_by_name()
    spoken = wanted.partition("(")[0]
    for written in (wanted, spoken, re.split(r"[-_.@]", wanted)[0]):
        if code := by_name.get(_folded(written)):
            return code
    raise ValueError(name)


@cache
def _codes_by_name() -> dict[str, str]:
    """The codes of the languages by all that they are called."""
    return {
        _folded(name): code
        for code, english in LANGUAGES.items()
        for name in (code, english, *OTHER_NAMES[code].split(","))
    }


def _folded(name: str) -> str:
    """A name without case and accents, which people leave out: `espanol`."""
    apart = unicodedata.normalize("NFKD", name.strip().casefold())
    return "".join(character for character in apart if unicodedata.category(character) != "Mn")
