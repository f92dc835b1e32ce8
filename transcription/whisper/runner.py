"""The child process that owns a device's engine in its main thread and speaks JSON lines with its parent.

    python -m transcription.whisper.runner --engine faster-whisper --device cpu

Commands come on standard input, events (`engine.Event`) go to standard output. A crash, a hang or a leak of the native
libraries costs this process and nothing else. It ends when its standard input does: with its parent.

    {"do": "open", "section": 7, "pcm": "…", "start": 0, "end": 480000, "model": "…", "options": {…}}
    {"do": "close", "section": 7}
"""

import argparse
import importlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from transcription.whisper.engine import ENGINES, Engine, Event, Sound
from transcription.whisper.options import TranscriptionOptions


def main() -> None:
    arguments = argparse.ArgumentParser(description="Decode sections for a device worker.")
    arguments.add_argument("--engine", required=True, choices=ENGINES)
    arguments.add_argument("--device", required=True)
    asked = arguments.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's to handle
    events = _own_standard_output()
    commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, commands), daemon=True).start()
    engine: Engine = importlib.import_module(ENGINES[asked.engine].module).Engine(asked.device)
    Runner(engine, commands, events).run()


def _own_standard_output() -> IO[str]:
    """Standard output for events alone: what a library prints goes to standard error."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return events


def _read(lines: IO[str], commands: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Hand commands over; end the process at once when the parent is gone, whatever the main thread is doing."""
    for line in lines:
        commands.put(json.loads(line))
    os._exit(0)


class Runner:
    """The loop: take commands in, step the engine, say what came of it."""

    def __init__(self, engine: Engine, commands: "queue.SimpleQueue[dict[str, Any]]", events: IO[str]) -> None:
        self.engine = engine
        self.commands = commands
        self.events = events
        self.sections: set[int] = set()

    def run(self) -> None:
        self.say({"event": "ready", "capacity": self.engine.capacity, "versions": self.engine.versions})
        while True:
            while not (self.sections and self.commands.empty()):
                self.obey(self.commands.get())
            self.step()

    def say(self, event: Event) -> None:
        # A NaN would not be JSON: better an error here than a line that the parent cannot read.
        self.events.write(json.dumps(event, allow_nan=False) + "\n")
        self.events.flush()

    def obey(self, command: dict[str, Any]) -> None:
        section = int(command["section"])
        if command["do"] == "close":
            self.sections.discard(section)
            self.engine.close(section)
            self.say({"event": "closed", "section": section})
            return
        self.sections.add(section)
        sound = Sound(Path(command["pcm"]), command["start"], command["end"])
        try:
            self.engine.open(section, sound, Path(command["model"]), TranscriptionOptions.from_json(command["options"]))
        except Exception as error:  # noqa: BLE001  (whatever a library raises must reach the job as a sentence)
            self.give_up(error, [section])

    def step(self) -> None:
        try:
            for event in self.engine.step():
                if event["event"] == "done":
                    self.sections.discard(event["section"])
                self.say(event)
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
            self.say({"event": "error", "section": section, "code": code, "detail": detail})


if __name__ == "__main__":
    main()
