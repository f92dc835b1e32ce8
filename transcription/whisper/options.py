"""What can be asked of a transcription, with the field's names (openai-whisper's `transcribe`)."""

from dataclasses import asdict, dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

# A failed window is decoded again at the next of these (Whisper paper, section 4.5).
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

Task = Literal["transcribe", "translate"]


# What belongs to the word after it, and to the word before it (openai-whisper's `transcribe`).
PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"

# Types of numbers by their names in CTranslate2, and the short ones that people write.
COMPUTE_TYPES = (
    "float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16",
)  # fmt: skip
COMPUTE_TYPE_ALIASES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class TranscriptionOptions:
    """What was asked of one job. The defaults are openai-whisper's but for `beam_size`, `best_of` and `vad_filter`."""

    language: str | None = None  # a code of LANGUAGES; None: detect
    languages: tuple[str, ...] = ()  # to choose among when it is detected; (): all that the model knows
    multilingual: bool = False  # detect the language anew for each section
    task: Task = "transcribe"
    word_timestamps: bool = False

    # what the model hears, in the recording's time
    vad_filter: bool = True  # skip what is not speech
    sections: int | None = None  # into how many a recording may be cut; None: by its length; 1: never
    clip_timestamps: tuple[float, ...] = ()  # start, end, start, …; the last end may be missing; (): all of it
    remove_silence: bool = False  # at both ends
    silence_threshold: float = -60.0  # dBFS
    silence_duration: float = 0.5  # seconds
    up_speed: float = 1.0  # tempo, before decoding

    # what it is told before
    condition_on_previous_text: bool = True
    initial_prompt: str | None = None
    carry_initial_prompt: bool = False
    prefix: str | None = None  # of the first window
    hotwords: str | None = None

    # how tokens are chosen
    temperature: tuple[float, ...] = TEMPERATURES
    beam_size: int = 5  # at temperature 0
    best_of: int = 5  # above it
    patience: float = 1.0
    length_penalty: float | None = None
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    suppress_tokens: tuple[int, ...] = (-1,)  # -1: those that are no speech
    suppress_blank: bool = True
    max_length: int | None = None  # tokens a window
    no_timestamps: bool = False
    max_initial_timestamp: float = 1.0  # seconds
    seed: int | None = None

    # what is taken for a failed window
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    hallucination_silence_threshold: float | None = None  # seconds

    prepend_punctuations: str = PREPENDED
    append_punctuations: str = APPENDED

    # how it is computed
    compute_type: str | None = None  # one of COMPUTE_TYPES; None: the device's own
    threads: int | None = None
    batch_size: int | None = None

    # what is made of it
    highlight: bool = False  # subtitles mark the word being spoken
    verbose: bool = False  # each window is an event of the job

    @property
    def gives_words(self) -> bool:
        """Whether the words are wanted with their times."""
        return self.word_timestamps or self.highlight

    @property
    def finds_words(self) -> bool:
        """Whether an engine has to find them: hallucinations are looked for between words."""
        return self.gives_words or self.hallucination_silence_threshold is not None

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` takes back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The options that a version stored. One that this version does not know is left out, see `unknown_options`."""
        kinds = _kinds()
        taken: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in _pairs(values)
        }
        return cls(**{name: value for name, value in taken.items() if name in kinds and _is_of(kinds[name], value)})


def unknown_options(values: Any) -> list[str]:
    """The names of stored options that this version has no such option or no such value for."""
    known = TranscriptionOptions.from_json(values).to_json()
    return sorted(name for name, value in _pairs(values) if name not in known or known[name] != value)


def _pairs(values: Any) -> list[tuple[str, Any]]:
    return list(values.items()) if isinstance(values, dict) else []


@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(TranscriptionOptions)


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value is of a field's type; a whole number is a number too, and true is none."""
    arguments = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is_of(one, value) for one in arguments)
    if get_origin(kind) is Literal:
        return value in arguments
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(arguments[0], item) for item in value)
    if kind is NoneType:
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind


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

_BY_NAME = {name: code for code, name in LANGUAGES.items()}
_ALIASES = {"jv": "jw", "iw": "he", "in": "id", "nb": "no"}


def language_code(name: str) -> str | None:
    """The code for what a person or a program wrote: `ru`, `ru-RU`, `Russian`; None for empty and `auto`.

    Raises ValueError if there is no such language.
    """
    wanted = name.strip().lower()
    if wanted in ("", "auto"):
        return None
    code = _BY_NAME.get(wanted, wanted.replace("_", "-").split("-")[0])
    code = _ALIASES.get(code, code)
    if code not in LANGUAGES:
        raise ValueError(name)
    return code
