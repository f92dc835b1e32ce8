"""`manage.py transcribe FILE`: print the transcript of a file, without a server or a database row."""

import json
import os
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, BooleanOptionalAction, _ArgumentGroup
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from transcription import capabilities, errors
from transcription.capabilities import Capability
from transcription.parameters import (
    DEVICE,
    ENGINE,
    FP16,
    OPTIONS,
    AnyNumberOrOff,
    Boolean,
    ChannelChoice,
    Choice,
    Integer,
    InvalidParameter,
    Number,
    NumberAbove,
    Parameter,
    ParameterType,
    TrackChoice,
)
from transcription.text import edits, exports
from transcription.weights import catalogue
from transcription.whisper.engine import ENGINES
from transcription.whisper.options import TranscriptionOptions
from transcription.whisper.result import Segment
from transcription.workers import devices, pipeline

TEXTS = [name for name in exports.FORMATS if name != "docx"]


class Command(BaseCommand):
    help = "Print the transcript of a file on standard output, and the progress on standard error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.usage = f"{parser.prog} [options] file"  # the fifty options would hide an error message
        parser.add_argument("file", type=Path)
        parser.add_argument("--model", default="", help="a name of the catalogue, or of a folder in the models folder")
        parser.add_argument("--format", default="txt", choices=[*TEXTS, "json"])
        how = parser.add_argument_group(
            "how", "What is left out is as DEFAULT_<PARAMETER> says, else as openai-whisper."
        )
        for parameter in (*OPTIONS, FP16, ENGINE, DEVICE):
            _add_flags(how, parameter)

    def handle(self, *args: Any, **arguments: Any) -> None:
        if not arguments["file"].is_file():
            raise CommandError(f"There is no file {arguments['file']}.")
        try:
            model = catalogue.canonical(arguments["model"])
            among = _local_capabilities(arguments.get("engine", ""))
            choice = capabilities.choose(arguments, model=model, among=among)
            for refused in choice.refused.values():
                raise refused
            capability = next(
                capability for capability in among if not choice.device or capability.is_on(choice.device)
            )
            transcript = self.transcribe(arguments["file"].resolve(), model, choice.options, capability)
        except (errors.Problem, InvalidParameter) as problem:
            raise CommandError(str(problem)) from problem
        self.stdout.write(_render(transcript, arguments["format"], model, choice.options), ending="")

    def transcribe(self, file: Path, model: str, options: TranscriptionOptions, capability: Capability) -> "Transcript":
        transcript = Transcript()
        runner = devices.Runner(capability.device, capability.capabilities)
        try:
            for event in pipeline.transcribe_file(file, model=model, options=options, runner=runner):
                transcript.take(event)
                self.show(transcript)
        finally:
            runner.stop()
        self.stderr.write("")
        return transcript

    def show(self, transcript: "Transcript") -> None:
        """Print the progress: on one line of a terminal, else once at the beginning."""
        done = transcript.segments[-1].end if transcript.segments else 0.0
        if sys.stderr.isatty():
            self.stderr.write(f"\r{done:.0f} of {transcript.duration:.0f} s", ending="")
        elif not transcript.language:
            self.stderr.write(f"Transcribing {transcript.duration:.0f} s", ending="")


def _add_flags(group: _ArgumentGroup, parameter: Parameter) -> None:
    """Add a parameter's flag, and one for each of its aliases."""
    flags = [f"--{name.replace('_', '-')}" for name in (parameter.name, *parameter.aliases)]
    if not isinstance(parameter.kind, Boolean):
        metavar = _metavar(parameter.kind)
        group.add_argument(*flags, type=_reader(parameter), default=SUPPRESS, metavar=metavar, help=parameter.help)
    elif parameter.name.startswith("no_"):  # BooleanOptionalAction would read it as a negation
        group.add_argument(*flags, action="store_true", default=SUPPRESS, help=parameter.help)
    else:
        group.add_argument(*flags, action=BooleanOptionalAction, default=SUPPRESS, help=parameter.help)


def _metavar(kind: ParameterType) -> str:
    match kind:
        case Choice(names=names):
            return "|".join(names)
        case TrackChoice():
            return "NUMBER|LANGUAGE"
        case ChannelChoice():
            return "mix|separate|NUMBER"
        case Integer(low=low, high=high) | Number(low=low, high=high) | NumberAbove(low=low, high=high):
            return f"{low}..{high}"
        case AnyNumberOrOff():
            return "NUMBER"
        case _:
            return type(kind).__name__.upper()


def _reader(parameter: Parameter) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return parameter.read([text])
        except InvalidParameter as error:
            raise ArgumentTypeError(str(error)) from error

    return read


def _local_capabilities(engine: str) -> list[Capability]:
    """What the named engine can do on this machine, or else the installation's engine; the best device first."""
    installed = {candidate.name: candidate for candidate in ENGINES.values() if devices.is_installed(candidate)}
    engine_capabilities = installed.get(engine, devices.engine())
    places = dict.fromkeys([*devices.here(engine_capabilities), "cpu"])
    return [
        Capability(engine_capabilities.name, place, engine_capabilities.compute_types, os.cpu_count() or 1)
        for place in places
    ]


class Transcript:
    """A file's transcript so far."""

    def __init__(self) -> None:
        self.duration = 0.0
        self.language = ""
        self.segments: list[Segment] = []

    def take(self, event: dict[str, Any]) -> None:
        match event:
            case {"event": "sound", "duration": duration}:
                self.duration = duration
            case {"event": "language", "language": language}:
                self.language = language
            case {"event": "segment", "segment": segment}:
                self.segments.append(Segment.from_json(segment))
                self.segments.sort(
                    key=lambda segment: (segment.start, segment.end)
                )  # channels and second tries come late

    @property
    def main_language(self) -> str:
        """The language that is spoken longest."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for segment in self.segments:
            seconds[segment.language or self.language] += segment.end - segment.start
        return max(seconds, key=seconds.__getitem__, default=self.language)


def _render(transcript: Transcript, extension: str, model: str, options: TranscriptionOptions) -> str:
    if extension != "json":
        return exports.FORMATS[extension].render(transcript.segments, options.highlight).decode()
    content = {
        "text": edits.joined((segment.channel, segment.text) for segment in transcript.segments),
        "segments": [{"id": index, **segment.to_json()} for index, segment in enumerate(transcript.segments)],
        "language": transcript.main_language,
        "duration": transcript.duration,
        "model": model,
        **{name: value for name, value in options.to_json().items() if name != "language"},
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
