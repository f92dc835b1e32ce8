"""The child process that owns a device's engine in its main thread and speaks JSON lines with its parent.

    python -m transcription.whisper.runner --engine faster-whisper --device cpu

Commands come on standard input, events (`engine.Event`) go to standard output. A crash, a hang or a leak of the native
libraries costs this process and nothing else. It ends when its standard input does: with its parent.

    {"do": "open", "section": 7, "pcm": "…", "spans": [[0, 480000], …], "model": "…", "options": {…}}
    {"do": "close", "section": 7}
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from transcription.whisper.engine import ENGINES, Engine, Sound
from transcription.whisper.lines import Line, Parent
from transcription.whisper.options import TranscriptionOptions


def main() -> None:
    arguments = argparse.ArgumentParser(description="Decode sections for a device worker.")
    arguments.add_argument("--engine", required=True, choices=ENGINES)
    arguments.add_argument("--device", required=True)
    asked = arguments.parse_args()
    parent = Parent()
    engine: Engine = importlib.import_module(ENGINES[asked.engine].module).Engine(asked.device)
    Runner(engine, parent).run()


class Runner:
    """The loop: take commands in, step the engine, say what came of it."""

    def __init__(self, engine: Engine, parent: Parent) -> None:
        self.engine = engine
        self.parent = parent
        self.sections: set[int] = set()

    def run(self) -> None:
        self.parent.say({"event": "ready", "capacity": self.engine.capacity, "versions": self.engine.versions})
        while True:
            while not (self.sections and self.parent.commands.empty()):
                self.obey(self.parent.commands.get())
            self.step()

    def obey(self, command: Line) -> None:
        section = int(command["section"])
        if command["do"] == "close":
            self.sections.discard(section)
            self.engine.close(section)
            self.parent.say({"event": "closed", "section": section})
            return
        self.sections.add(section)
        sound = Sound(Path(command["pcm"]), tuple((start, end) for start, end in command["spans"]))
        try:
            self.engine.open(section, sound, Path(command["model"]), TranscriptionOptions.from_json(command["options"]))
        except Exception as error:  # noqa: BLE001  (whatever a library raises must reach the job as a sentence)
            self.give_up(error, [section])

    def step(self) -> None:
        try:
            for event in self.engine.step():
                if event["event"] == "done":
                    self.sections.discard(event["section"])
                self.parent.say(event)
        except Exception as error:  # noqa: BLE001
            self.give_up(error, sorted(self.sections))

    def give_up(self, error: Exception, sections: Sequence[int]) -> None:
        """Close these sections and say why."""
        detail = f"{type(error).__name__}: {error}"
        code = (
            "out_of_memory" if isinstance(error, MemoryError) or "out of memory" in detail.lower() else "engine_failed"
        )
        for section in sections:
            self.sections.discard(section)
            self.engine.close(section)
            self.parent.say({"event": "error", "section": section, "code": code, "detail": detail})


if __name__ == "__main__":
    main()
