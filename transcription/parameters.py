"""The parameters of a transcription: their names, types and defaults' variables, read from text or JSON.

All endpoints, the environment (`DEFAULT_<PARAMETER>`) and the command line's flags use this one table. The endpoints
translate the sentences; nothing here imports Django, because the settings import it.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar

from transcription.whisper.options import COMPUTE_TYPE_ALIASES, COMPUTE_TYPES, TEMPERATURES, language_code

LONGEST_ECHO = 60  # characters of a wrong value that the sentence about it repeats
MOST_TEMPERATURES = 16
MOST_CLIPS = 1000
MOST_TRACKS = 64  # FFmpeg opens no file with more streams
MOST_CHANNELS = 64
MOST_TOKENS = 1000
# The smallest of Whisper's vocabularies has 51864 tokens; CTranslate2 writes out of bounds for a larger id.
LAST_TOKEN = 51863
LONGEST_PROMPT = 10_000  # characters; a model uses about the last two hundred words
LONGEST_PREFIX = 200
LONGEST_PUNCTUATIONS = 200

TRUE = ("true", "t", "yes", "y", "on", "1")
FALSE = ("false", "f", "no", "n", "off", "0")
OFF = ("", "none", "null", "off")


def _(sentence: str) -> str:
    """Mark a sentence for translation; the endpoints translate it when they answer."""
    return sentence


class InvalidParameter(ValueError):
    """A parameter's value is invalid; the sentence says what is valid. `values` fill its placeholders."""

    def __init__(self, sentence: str, *, name: str, **values: object) -> None:
        self.sentence, self.name = sentence, name
        self.values: dict[str, object] = {"name": name, **values}
        super().__init__(sentence % self.values)


# ------------------------------------------------------------------ types of parameters


@dataclass(frozen=True)
class ParameterType:
    """The values that a parameter may have. Its fields fill the placeholders of its sentence."""

    sentence: ClassVar[str]
    takes_several: ClassVar[bool] = False
    takes_nothing: ClassVar[bool] = False  # an empty value and null are values of it, not the same as not sent

    def read(self, sent: Any) -> Any:
        """Parse the value that was sent, or the list of values if the type takes several.

        Raises ValueError, TypeError, OverflowError or RecursionError.
        """
        raise NotImplementedError

    @property
    def placeholders(self) -> dict[str, Any]:
        return asdict(self)


class Boolean(ParameterType):
    sentence = _("`%(name)s` is true or false.")

    def read(self, sent: Any) -> bool:
        written = str(sent).strip().lower()
        if written not in TRUE + FALSE:
            raise ValueError(sent)
        return written in TRUE


@dataclass(frozen=True)
class Choice(ParameterType):
    sentence = _("`%(name)s` is one of: %(known)s.")

    names: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...] = ()

    def read(self, sent: Any) -> str:
        written = _text(sent).lower()
        name = dict(self.aliases).get(written, written)
        if name not in self.names:
            raise ValueError(sent)
        return name

    @property
    def placeholders(self) -> dict[str, Any]:
        return {"known": ", ".join(self.names)}


@dataclass(frozen=True)
class Text(ParameterType):
    sentence = _("`%(name)s` is text of 1 to %(longest)s characters.")

    longest: int

    def read(self, sent: Any) -> str:
        text = _text(sent)
        text.encode()  # fails for half a surrogate pair, which cannot be stored
        if not 0 < len(text) <= self.longest or "\0" in text:
            raise ValueError(sent)
        return text


@dataclass(frozen=True)
class Number(ParameterType):
    sentence = _("`%(name)s` is a number from %(low)s to %(high)s.")

    low: float
    high: float

    def read(self, sent: Any) -> float:
        value = _number(sent)
        if not self.low <= value <= self.high:
            raise ValueError(sent)
        return value


@dataclass(frozen=True)
class NumberAbove(ParameterType):
    sentence = _("`%(name)s` is a number above %(low)s, at most %(high)s.")

    low: float
    high: float

    def read(self, sent: Any) -> float:
        value = _number(sent)
        if not self.low < value <= self.high:
            raise ValueError(sent)
        return value


@dataclass(frozen=True)
class NumberOrOff(Number):
    """A number, or None for what turns a threshold off: an empty value, null, none or off."""

    sentence = _("`%(name)s` is a number from %(low)s to %(high)s, or empty to turn it off.")
    takes_nothing = True

    def read(self, sent: Any) -> float | None:  # type: ignore[override]
        return None if _is_off(sent) else super().read(sent)


class AnyNumberOrOff(ParameterType):
    """A number of any size, or None as with NumberOrOff."""

    sentence = _("`%(name)s` is a number, or empty to turn it off.")
    takes_nothing = True

    def read(self, sent: Any) -> float | None:
        return None if _is_off(sent) else _number(sent)


@dataclass(frozen=True)
class Integer(ParameterType):
    sentence = _("`%(name)s` is a whole number from %(low)s to %(high)s.")

    low: int
    high: int

    def read(self, sent: Any) -> int:
        value = _whole(sent)
        if not self.low <= value <= self.high:
            raise ValueError(sent)
        return value


@dataclass(frozen=True)
class Temperatures(ParameterType):
    """A number, or several as a JSON list, with commas, or in repeated fields. A single 0 means all of TEMPERATURES."""

    sentence = _("`%(name)s` is a number from 0 to 1, or a list of at most %(most)s of them.")
    takes_several = True

    most: int

    def read(self, sent: Any) -> tuple[float, ...]:
        values = tuple(_number(item) for item in items(sent))
        if not 0 < len(values) <= self.most or not all(0 <= value <= 1 for value in values):
            raise ValueError(sent)
        is_scalar = len(sent) == 1 and not isinstance(sent[0], list) and "[" not in str(sent[0])
        return TEMPERATURES if is_scalar and values == (0,) else values


@dataclass(frozen=True)
class Clips(ParameterType):
    """Pairs of start and end, as a JSON list, with commas, or in repeated fields."""

    sentence = _(
        "`%(name)s` is start, end, start, end and so on in seconds, in order and not overlapping, at most %(most)s "
        "clips; the last end may be missing."
    )
    takes_several = True

    most: int

    def read(self, sent: Any) -> tuple[float, ...]:
        values = tuple(_number(item) for item in items(sent))
        is_ordered = all(before <= after for before, after in pairwise(values))
        are_not_empty = all(start < end for start, end in zip(values[::2], values[1::2], strict=False))
        if len(values) > 2 * self.most or not is_ordered or not are_not_empty or min(values, default=0) < 0:
            raise ValueError(sent)
        return values


@dataclass(frozen=True)
class Tokens(ParameterType):
    """Token ids as a JSON list, with commas, or in repeated fields. The list may be empty."""

    sentence = _(
        "`%(name)s` is a list of at most %(most)s token ids from 0 to %(high)s; -1 stands for those that are no speech."
    )
    takes_several = True

    most: int
    high: int

    def read(self, sent: Any) -> tuple[int, ...]:
        values = tuple(_whole(item) for item in items(sent))
        if len(values) > self.most or not all(-1 <= value <= self.high for value in values):
            raise ValueError(sent)
        return values


class Language(ParameterType):
    """A language by its code or name; None for `auto`, which asks for detection whatever the default is."""

    sentence = _("There is no language `%(sent)s`. Write a code such as ru or en, or auto to detect it.")

    def read(self, sent: Any) -> str | None:
        return language_code(_text(sent))


@dataclass(frozen=True)
class TrackChoice(ParameterType):
    """A track's number, or its language; None for `auto`."""

    sentence = _("`%(name)s` is a number from 1 to %(most)s, or a language such as ru or eng.")

    most: int

    def read(self, sent: Any) -> int | str | None:
        if _is_number(sent):
            return Integer(1, self.most).read(sent)
        written = _text(sent).lower()
        try:
            return language_code(written)
        except ValueError:
            if re.fullmatch("[a-z]{3}", written):  # files name more languages than Whisper knows
                return written
            raise


@dataclass(frozen=True)
class ChannelChoice(ParameterType):
    sentence = _("`%(name)s` is mix, separate, or the number of a channel from 1 to %(most)s.")

    most: int

    def read(self, sent: Any) -> int | str:
        if _is_number(sent):
            return Integer(1, self.most).read(sent)
        return Choice(("mix", "separate")).read(sent)


def _is_number(sent: Any) -> bool:
    return not isinstance(sent, str) or sent.strip().isdecimal()


def _is_off(sent: Any) -> bool:
    return sent is None or (isinstance(sent, str) and sent.strip().lower() in OFF)


def _text(sent: Any) -> str:
    if not isinstance(sent, str):
        raise TypeError(sent)
    return sent.strip()


def _number(sent: Any) -> float:
    if isinstance(sent, bool):
        raise TypeError(sent)
    value = float(sent)
    if not math.isfinite(value):
        raise ValueError(sent)
    return value


def _whole(sent: Any) -> int:
    value = _number(sent)
    if not value.is_integer():
        raise ValueError(sent)
    return int(value)


def items(sent: Sequence[Any]) -> Iterator[Any]:
    """The single items of JSON lists, of text with commas, or of several fields of one name."""
    for item in sent:
        if isinstance(item, str):
            item = json.loads(item) if item.lstrip().startswith("[") else item.split(",")
        yield from item if isinstance(item, list) else [item]


# ------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Parameter:
    """One parameter. `variables` are further names of its default in the environment."""

    name: str
    kind: ParameterType
    help: str
    aliases: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()

    def read(self, sent: Sequence[Any]) -> Any:
        """Parse what was sent in the fields of this name. Raises InvalidParameter."""
        try:
            return self.kind.read(sent if self.kind.takes_several else sent[0])
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            echo = str(sent[0])[:LONGEST_ECHO]
            raise InvalidParameter(self.kind.sentence, name=self.name, sent=echo, **self.kind.placeholders) from error


# The fields of TranscriptionOptions in their order, except `languages`, which only OpenAI's endpoint uses.
OPTIONS = (
    Parameter("language", Language(), "what is spoken: ru, Russian; auto detects it"),
    Parameter("multilingual", Boolean(), "detect the language of each passage between two pauses"),
    Parameter("task", Choice(("transcribe", "translate")), "translate is into English"),
    Parameter("word_timestamps", Boolean(), "tell the time of each word"),
    Parameter("track", TrackChoice(MOST_TRACKS), "which of several tracks: its number from 1, or its language"),
    Parameter("channels", ChannelChoice(MOST_CHANNELS), "mix, separate (each apart), or one of them by its number"),
    Parameter("vad_filter", Boolean(), "skip what is not speech"),
    Parameter("sections", Integer(1, 999), "into how many parts a recording may be cut; 1: never"),
    Parameter("clip_timestamps", Clips(MOST_CLIPS), "start,end,start,… in seconds: what of it is transcribed"),
    Parameter("remove_silence", Boolean(), "leave out silence at both ends"),
    Parameter("silence_threshold", Number(-200, 0), "what is silence, in dB of the loudest possible"),
    Parameter("silence_duration", NumberAbove(0, 3600), "how long it must last, in seconds"),
    Parameter("up_speed", Number(0.5, 3), "tempo before decoding; times stay the recording's", (), ("AUDIO_SPEEDUP",)),
    Parameter("condition_on_previous_text", Boolean(), "each window is told the text before it"),
    Parameter("initial_prompt", Text(LONGEST_PROMPT), "text that seems to come before: names, style", ("prompt",)),
    Parameter("carry_initial_prompt", Boolean(), "tell it to each window, not to the first alone"),
    Parameter("prefix", Text(LONGEST_PREFIX), "how the first window's text begins"),
    Parameter("hotwords", Text(LONGEST_PROMPT), "names and terms to expect"),
    Parameter("temperature", Temperatures(MOST_TEMPERATURES), "0 to 1, or several; 0 tries higher ones where it fails"),
    Parameter("beam_size", Integer(1, 16), "texts that are followed at temperature 0"),
    Parameter("best_of", Integer(1, 16), "texts that are tried above temperature 0"),
    Parameter("patience", NumberAbove(0, 100), "how long a beam search goes on"),
    Parameter("length_penalty", Number(0, 100), "power of a text's length that its score is divided by"),
    Parameter("top_p", Number(0, 1), "nucleus sampling above temperature 0"),
    Parameter("repetition_penalty", NumberAbove(0, 100), "above 1: against saying a word again"),
    Parameter("no_repeat_ngram_size", Integer(0, 448), "so many tokens in a row never come twice; 0: they may"),
    Parameter("suppress_tokens", Tokens(MOST_TOKENS, LAST_TOKEN), "ids that never come; -1: what is no speech"),
    Parameter("suppress_blank", Boolean(), "no empty beginning"),
    Parameter("max_length", Integer(1, 448), "tokens a window", ("sample_len",)),
    Parameter("no_timestamps", Boolean(), "decode without times inside a window", ("without_timestamps",)),
    Parameter("max_initial_timestamp", Number(0, 30), "a window's text begins by then, in seconds"),
    Parameter("seed", Integer(0, 2**32 - 1), "makes sampling repeatable"),
    Parameter("compression_ratio_threshold", AnyNumberOrOff(), "above it a window is too repetitive"),
    Parameter("logprob_threshold", AnyNumberOrOff(), "below it a window is too unsure", ("log_prob_threshold",)),
    Parameter("no_speech_threshold", NumberOrOff(0, 1), "above it an unsure window is silence"),
    Parameter("hallucination_silence_threshold", NumberOrOff(0, 3600), "skip longer silence where text seems made up"),
    Parameter("prepend_punctuations", Text(LONGEST_PUNCTUATIONS), "what belongs to the word after it"),
    Parameter("append_punctuations", Text(LONGEST_PUNCTUATIONS), "what belongs to the word before it"),
    Parameter("compute_type", Choice(COMPUTE_TYPES, tuple(COMPUTE_TYPE_ALIASES.items())), "type of numbers"),
    Parameter("threads", Integer(1, 1024), "CPU threads of the engine"),
    Parameter("batch_size", Integer(1, 64), "windows that are decoded at once"),
    Parameter("highlight", Boolean(), "subtitles mark the word being spoken"),
    Parameter("verbose", Boolean(), "a log line for each window"),
)
FP16 = Parameter("fp16", Boolean(), "another way to ask for float16 or float32")
ENGINE = Parameter("engine", Text(30), "mlx-whisper or faster-whisper; auto: any")
DEVICE = Parameter("device", Text(20), "cpu, gpu, cuda, cuda:1, mps; auto: any")
PRIORITY = Parameter("priority", Choice(("high", "normal", "low")), "who is served first")
UPGRADE = Parameter("upgrade_transcribation", Boolean(), "improve the text with a language model")

PARAMETERS = (*OPTIONS, FP16, ENGINE, DEVICE, PRIORITY, UPGRADE)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
ALIASES = {alias: parameter.name for parameter in PARAMETERS for alias in parameter.aliases}


def options_in(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options among values of parameters; `fp16` becomes a compute type. Raises InvalidParameter."""
    options = {parameter.name: values[parameter.name] for parameter in OPTIONS if parameter.name in values}
    if "fp16" in values:
        compute_type = "float16" if values["fp16"] else "float32"
        if options.setdefault("compute_type", compute_type) != compute_type:
            sentence = _("`%(name)s` and `compute_type` disagree. Leave one of them out.")
            raise InvalidParameter(sentence, name="fp16")
    return options
