"""`manage.py transcribe FILE`: the transcript of one file, without a server and without a row."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from transcription import catalogue, devices, errors, exports, pipeline
from transcription.whisper.options import TEMPERATURES, TranscriptionOptions, language_code
from transcription.whisper.result import Segment


class Command(BaseCommand):
    help = "Print the transcript of a file on standard output, and the progress on standard error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--model", default="", help="a name of the catalogue, or of a folder in the models folder")
        parser.add_argument("--language", default="", help="a code or a name; detected when left out")
        parser.add_argument("--task", default="transcribe", choices=["transcribe", "translate"])
        parser.add_argument("--word-timestamps", action="store_true", help="tell the time of each word")
        parser.add_argument("--initial-prompt", default="", help="text that seems to come before, with names and style")
        parser.add_argument("--temperature", type=float, default=0.0, help="0 to 1; 0 tries higher ones where it fails")
        parser.add_argument("--beam-size", type=int, default=5, choices=range(1, 17), metavar="1-16")
        parser.add_argument("--format", default="txt", choices=[*exports.FORMATS, "json"])

    def handle(self, *args: Any, **asked: Any) -> None:
        try:
            language = language_code(asked["language"])
        except ValueError as error:
            raise CommandError(f"There is no language {asked['language']!r}. Write a code such as en or ru.") from error
        if not 0 <= asked["temperature"] <= 1:
            raise CommandError("--temperature goes from 0 to 1.")
        if not asked["file"].is_file():
            raise CommandError(f"There is no file {asked['file']}.")
        options = TranscriptionOptions(
            language=language,
            task=asked["task"],
            word_timestamps=asked["word_timestamps"],
            initial_prompt=asked["initial_prompt"] or None,
            temperature=(asked["temperature"],) if asked["temperature"] else TEMPERATURES,
            beam_size=asked["beam_size"],
        )
        try:
            model = catalogue.canonical(asked["model"])
            transcript = self.transcribe(asked["file"].resolve(), model, options)
        except errors.Problem as problem:
            raise CommandError(str(problem)) from problem
        self.stdout.write(_render(transcript, asked["format"], model, options), ending="")

    def transcribe(self, file: Path, model: str, options: TranscriptionOptions) -> "Transcript":
        transcript = Transcript()
        runner = devices.Runner(devices.here()[0])
        try:
            for event in pipeline.transcribe_file(file, model=model, options=options, runner=runner):
                transcript.take(event)
                self.show(transcript)
        finally:
            runner.stop()
        self.stderr.write("")
        return transcript

    def show(self, transcript: "Transcript") -> None:
        """Progress over itself on a terminal; once, at the beginning, in a log."""
        done = transcript.segments[-1].end if transcript.segments else 0.0
        if sys.stderr.isatty():
            self.stderr.write(f"\r{done:.0f} of {transcript.duration:.0f} s", ending="")
        elif not transcript.language:
            self.stderr.write(f"Transcribing {transcript.duration:.0f} s", ending="")


class Transcript:
    """What has come of a file so far."""

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


def _render(transcript: Transcript, extension: str, model: str, options: TranscriptionOptions) -> str:
    if extension != "json":
        return exports.FORMATS[extension].render(transcript.segments, options.highlight)
    about = {
        "text": _text(transcript.segments),
        "segments": [{"id": index, **segment.to_json()} for index, segment in enumerate(transcript.segments)],
        "language": transcript.language,
        "duration": transcript.duration,
        "model": model,
        **{name: value for name, value in options.to_json().items() if name != "language"},
    }
    return json.dumps(about, ensure_ascii=False, indent=2) + "\n"


def _text(segments: Sequence[Segment]) -> str:
    return "".join(segment.text for segment in segments).strip()
