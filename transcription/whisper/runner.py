"""The child process that owns a device's engine in its main thread and speaks JSON lines with its parent.

    python -m transcription.whisper.runner --engine transcription.whisper.engines.faster_whisper --device cpu

Commands come on standard input, events (`engine.Event`) go to standard output. A crash, a hang or a leak of the native
libraries costs this process and nothing else. It ends when its standard input does: with its parent.

    {"do": "open", "section": 7, "pcm": "…", "spans": [[0, 480000], …], "model": "…", "options": {…}}
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

GAUGE_SECONDS = 10.0  # between two looks at the device: NVIDIA's program takes a moment
OUT_OF_MEMORY = re.compile(r"out ?of ?memory|insufficient memory|unable to allocate", re.IGNORECASE)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Decode sections for a device worker.")
    arguments.add_argument("--engine", required=True, help="the module of an Engine")
    arguments.add_argument("--device", required=True)
    asked = arguments.parse_args()
    parent = Parent()
    Runner(lambda tell: importlib.import_module(asked.engine).Engine(asked.device, tell), parent, asked.device).run()


class Runner:
    """The loop: take commands in, step the engine, say what came of it."""

    def __init__(self, make_engine: Callable[[Tell], Engine], parent: Parent, device: str) -> None:
        self.parent = parent
        self.device = device
        self.model = ""  # the folder of the one that is loaded
        self.commands: deque[Line] = deque()
        self.sections: dict[int, float] = {}  # those that are open, and since when
        self.engine = make_engine(self.tell)

    def run(self) -> None:
        can = {"capacity": self.engine.capacity, "compute_types": self.engine.compute_types, "threads": os.cpu_count()}
        self.parent.say({"event": "ready", "versions": self.engine.versions, **can})
        threading.Thread(target=self.watch_gauges, name="gauges", daemon=True).start()
        while True:
            self.listen()
            while self.commands:
                self.obey(self.commands.popleft())
            if self.sections:
                self.step()

    def watch_gauges(self) -> None:
        """Tell how the device is, every few seconds, for as long as the process lives."""
        while True:
            try:
                reading = device_stats.read(self.device, self.engine.memory_bytes())
            except Exception as error:  # noqa: BLE001  (whatever it is: the next look tries again, old figures mislead)
                log.warning("the device %s could not be looked at: %s: %s", self.device, type(error).__name__, error)
                reading = device_stats.Reading()
            self.parent.say({"event": "device", "reading": asdict(reading)})
            time.sleep(GAUGE_SECONDS)

    def listen(self) -> None:
        """Take in what the parent has said; wait for it when there is nothing to do."""
        if not (self.sections or self.commands):
            self.commands.append(self.parent.commands.get())
        while not self.parent.commands.empty():
            self.commands.append(self.parent.commands.get())

    def tell(self, event: Event) -> None:
        """Say what came of a section. Raises SectionClosed when the parent has closed it meanwhile."""
        if event["event"] == "done":
            now = time.monotonic()
            self.parent.say({**event, "seconds": now - self.sections.pop(event["section"], now)})
            return
        self.parent.say(event)
        self.listen()
        if any(command["do"] == "close" and command["section"] == event["section"] for command in self.commands):
            raise SectionClosed

    def obey(self, command: Line) -> None:
        section = int(command["section"])
        if command["do"] == "close":
            self.sections.pop(section, None)
            self.engine.close(section)
            self.parent.say({"event": "closed", "section": section})
            return
        self.sections[section] = time.monotonic()
        sound = Sound(Path(command["pcm"]), tuple((start, end) for start, end in command["spans"]))
        options = TranscriptionOptions.from_json(command["options"])
        try:
            self.open(section, sound, command["model"], options)
        except Exception as error:  # noqa: BLE001  (whatever a library raises must reach the job as a sentence)
            self.give_up(error, [section])

    def open(self, section: int, sound: Sound, model: str, options: TranscriptionOptions) -> None:
        """Have the engine take a section in, and tell what becomes of the model. Raises what loading raises."""
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
            return  # the command that says so is obeyed next
        except Exception as error:  # noqa: BLE001
            self.give_up(error, sorted(self.sections))

    def give_up(self, error: Exception, sections: Sequence[int]) -> None:
        """Close these sections and say why."""
        detail = f"{type(error).__name__}: {error}"
        is_memory = isinstance(error, MemoryError) or OUT_OF_MEMORY.search(detail)
        for section in sections:
            self.sections.pop(section, None)
            self.engine.close(section)
            code = "out_of_memory" if is_memory else "engine_failed"
            self.parent.say({"event": "error", "section": section, "code": code, "detail": detail})


if __name__ == "__main__":
    main()
