"""What can be asked of a transcription, with the field's names (openai-whisper's `transcribe`)."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

# A failed window is decoded again at the next of these (Whisper paper, section 4.5).
TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

Task = Literal["transcribe", "translate"]


@dataclass(frozen=True)
class TranscriptionOptions:
    """What was asked of one job. The defaults are openai-whisper's but for `beam_size` and `vad_filter`."""

    language: str | None = None  # a code of LANGUAGES; None: detect
    task: Task = "transcribe"
    word_timestamps: bool = False
    initial_prompt: str | None = None
    temperature: tuple[float, ...] = TEMPERATURES
    beam_size: int = 5  # at temperature 0
    vad_filter: bool = True  # skip what is not speech
    sections: int | None = None  # into how many a recording may be cut; None: by its length; 1: never

    def to_json(self) -> dict[str, Any]:
        """A dict that `from_json` takes back."""
        return {**asdict(self), "temperature": list(self.temperature)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(**{**values, "temperature": tuple(values["temperature"])})


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
