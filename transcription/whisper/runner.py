"""The child process that owns a device's engine in its main thread.

    python -m transcription.whisper.runner --engine transcription.whisper.engines.faster_whisper --device cpu

Commands come on standard input, events (`engine.Event`) go to standard output, both as JSON lines. A crash, a hang or
a leak of the native libraries costs this process alone. It ends when its standard input is closed.

    {"do": "open", "section": 7, "sound": Sound.to_json(), "model": "…", "options": {…}}
    {"do": "close", "section": 7}
"""

import argparse
import importlib
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from transcription.whisper import device_stats
from transcription.whisper.engine import Engine, Event, SectionClosed, Sound, Tell
from transcription.whisper.json_lines import Line, Parent
from transcription.whisper.options import TranscriptionOptions

log = logging.getLogger(__name__)

GAUGE_SECONDS = 10.0  # between two readings of the device; nvidia-smi takes a moment
OUT_OF_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|unable to allocate", re.IGNORECASE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode sections for a device worker.")
    parser.add_argument("--engine", required=True, help="the module of an Engine")
    parser.add_argument("--device", required=True)
    options = parser.parse_args()
    parent = Parent()
    Runner(
        lambda tell: importlib.import_module(options.engine).Engine(options.device, tell), parent, options.device
    ).run()


class Runner:
    """The loop: read commands, step the engine, report events."""

    def __init__(self, make_engine: Callable[[Tell], Engine], parent: Parent, device: str) -> None:
        self.parent = parent
        self.device = device
        self.model = ""  # the folder of the loaded model
        self.commands: deque[Line] = deque()
        self.sections: dict[int, float] = {}  # the open ones, and the time when each was opened
        self.engine = make_engine(self.tell)

    def run(self) -> None:
        self.parent.say(
            {
                "event": "ready",
                "versions": self.engine.versions,
                "capacity": self.engine.capacity,
                "compute_types": self.engine.compute_types,
                "threads": os.cpu_count(),
            }
        )
        threading.Thread(target=self.watch_gauges, name="gauges", daemon=True).start()
        while True:
            self.read_commands()
            while self.commands:
                self.execute(self.commands.popleft())
            if self.sections:
                self.step()

    def watch_gauges(self) -> None:
        """Report the state of the device every few seconds, for as long as the process lives."""
        while True:
            try:
                reading = device_stats.read(self.device, self.engine.memory_bytes())
            except Exception as error:  # noqa: BLE001  (the next reading tries again; old figures would mislead)
                log.warning("the device %s could not be looked at: %s: %s", self.device, type(error).__name__, error)
                reading = device_stats.Reading()
            self.parent.say({"event": "device", "reading": asdict(reading)})
            time.sleep(GAUGE_SECONDS)

    def read_commands(self) -> None:
        """Take the commands that the parent has sent; wait for one when there is nothing to do."""
        if not (self.sections or self.commands):
            self.commands.append(self.parent.commands.get())
        while not self.parent.commands.empty():
            self.commands.append(self.parent.commands.get())

    def tell(self, event: Event) -> None:
        """Report an event of a section. Raises SectionClosed when the parent has closed it meanwhile."""
        if event["event"] == "done":
            now = time.monotonic()
            self.parent.say({**event, "seconds": now - self.sections.pop(event["section"], now)})
            return
        self.parent.say(event)
        self.read_commands()
        if any(command["do"] == "close" and command["section"] == event["section"] for command in self.commands):
            raise SectionClosed

    def execute(self, command: Line) -> None:
        section = int(command["section"])
        if command["do"] == "close":
            self.sections.pop(section, None)
            self.engine.close(section)
            self.parent.say({"event": "closed", "section": section})
            return
        self.sections[section] = time.monotonic()
        sound = Sound.from_json(command["sound"])
        options = TranscriptionOptions.from_json(command["options"])
        try:
            self.open(section, sound, command["model"], options)
        except Exception as error:  # noqa: BLE001  (whatever a library raises must reach the job as a sentence)
            self.fail([section], error)

    def open(self, section: int, sound: Sound, model: str, options: TranscriptionOptions) -> None:
        """Open a section in the engine, and report the state of the model. Raises what loading raises."""
        if model != self.model:
            self.model = ""
            self.parent.say({"event": "model", "model": model, "state": "loading"})
        try:
            self.engine.open(section, sound, Path(model), options)
        except Exception:
            self.model = ""
            self.parent.say({"event": "model", "model": model, "state": "error"})
            raise
        if model != self.model:
            self.model = model
            self.parent.say({"event": "model", "model": model, "state": "loaded"})

    def step(self) -> None:
        try:
            self.engine.step()
        except SectionClosed:
            return  # the command that closes it is executed next
        except Exception as error:  # noqa: BLE001
            self.fail(sorted(self.sections), error)

    def fail(self, sections: Sequence[int], error: Exception) -> None:
        """Close sections, and report the error for each."""
        detail = f"{type(error).__name__}: {error}"
        is_memory = isinstance(error, MemoryError) or OUT_OF_MEMORY.search(detail)
        for section in sections:
            self.sections.pop(section, None)
            self.engine.close(section)
            code = "out_of_memory" if is_memory else "engine_failed"
            self.parent.say({"event": "error", "section": section, "code": code, "detail": detail})


if __name__ == "__main__":
    main()
