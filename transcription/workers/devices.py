"""The devices of this machine, and the runner that each one's engine lives in."""

import os
import platform
import queue
import subprocess
import sys
import time
from collections.abc import Generator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings

from transcription import errors, processes
from transcription.weights.catalogue import LocalModel
from transcription.whisper import device_stats
from transcription.whisper.engine import ENGINES, Capabilities, Event, Sound
from transcription.whisper.options import TranscriptionOptions
from transcription.workers import enginecheck

CLOSE_SECONDS = 5  # a section is asked to stop at its window; after this its runner is killed


def engine() -> Capabilities:
    """The engine of this installation: what ENGINE names, or the best that is here and was not set aside."""
    if settings.ENGINE != "auto":
        return ENGINES[settings.ENGINE]
    installed = [found for found in candidates() if is_installed(found)]
    trusted = [found for found in installed if not enginecheck.is_set_aside(found)]
    return (trusted or installed or candidates())[0]


def candidates() -> list[Capabilities]:
    """What `ENGINE=auto` takes on this machine, the best first."""
    is_apple_silicon = sys.platform == "darwin" and platform.machine() == "arm64"
    names = ("mlx-whisper", "faster-whisper") if is_apple_silicon else ("faster-whisper",)
    return [ENGINES[name] for name in names]


def is_installed(capabilities: Capabilities) -> bool:
    """Whether the engine's package is here; it is not imported."""
    return find_spec(capabilities.package.replace("-", "_")) is not None


def here(capabilities: Capabilities | None = None) -> list[str]:
    """The devices that MODEL_DEVICE takes of this machine's: GPUs when there are any, else the CPU.

    For an engine that is not the installation's own it may be named.
    Raises UnknownDevice when MODEL_DEVICE names one that is not here, or that the engine cannot use.
    """
    wanted = settings.MODEL_DEVICE
    if wanted == "cpu":
        return ["cpu"]
    gpus = _gpus(capabilities or engine())
    if wanted == "auto":
        return gpus or ["cpu"]
    found = [gpu for gpu in gpus if wanted in ("gpu", gpu, gpu.partition(":")[0])]
    if not found:
        raise errors.UnknownDevice(name=wanted, known=", ".join(["cpu", *gpus]))
    return found


def _gpus(capabilities: Capabilities) -> list[str]:
    """The GPUs of this machine that an engine can use."""
    if capabilities.gpu == "mps":
        return ["mps"] if sys.platform == "darwin" else []
    return [f"cuda:{index}" for index in range(_count_cuda())]


def _count_cuda() -> int:
    """Asked in a child: no worker and no web process imports an engine's library."""
    question = "import ctranslate2; print(ctranslate2.get_cuda_device_count())"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, timeout=120, check=False)
    if answer.returncode:
        raise errors.NoEngine(detail=(answer.stderr.strip().splitlines() or ["no reason was given"])[-1])
    return int(answer.stdout)


def _environment(capabilities: Capabilities) -> dict[str, str]:
    """The environment in which an engine's runner begins."""
    # CUDA would count the fastest GPU first: in this order `cuda:1` is the one that nvidia-smi tells of as 1.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **_preloading(capabilities)}


def _preloading(capabilities: Capabilities) -> dict[str, str]:
    if platform.system() != "Linux":  # not sys.platform, by which mypy takes what follows for unreachable
        return {}
    found = [path for pattern in capabilities.preloaded for path in sorted(Path("/").glob(pattern.lstrip("/")))]
    before = os.environ.get("LD_PRELOAD", "").split()
    return {"LD_PRELOAD": " ".join([*before, *map(str, found)])} if found else {}


class RunnerExited(Exception):
    """The runner ended in the middle of a section; `str` says how."""


class Runner:
    """The child process that owns a device's engine: started when first needed, and again after it died."""

    def __init__(self, device: str, capabilities: Capabilities | None = None) -> None:
        self.device = device
        self.capabilities = capabilities or engine()
        self.versions: dict[str, str] = {}
        self.compute_types: list[str] = []
        self.threads = 0
        self.reading = device_stats.Reading()  # of its device, as it was last looked at
        self.model_states: dict[str, str] = {}  # of models by name: loading, loaded, or error until it loads
        self._names: dict[str, str] = {}  # of models by folder
        self._child: processes.LineChild | None = None
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the child unless it runs; it says `ready` by itself."""
        if self._child is not None and self._child.is_running:
            return
        self.stop()
        program = [sys.executable, "-m", "transcription.whisper.runner"]
        asked = ["--engine", self.capabilities.module, "--device", self.device]
        self._events = queue.SimpleQueue()
        # Its own queue: what a dead child's thread hands over late must not be taken for the next one's.
        hear = partial(self._hear, self._events)
        self._child = processes.LineChild([*program, *asked], on_line=hear, environment=_environment(self.capabilities))

    def _hear(self, events: "queue.SimpleQueue[Event | None]", event: Event | None) -> None:
        """In the child's thread: what it says of itself is kept, the rest is for who decodes."""
        is_late = events is not self._events
        match event:
            case {"event": "ready", "versions": versions, "compute_types": compute_types, "threads": threads}:
                self.versions, self.compute_types, self.threads = versions, compute_types, threads
            case {"event": "device", "reading": reading}:
                self.reading = device_stats.Reading(**reading)
            case {"event": "model", "model": model, "state": state}:
                if not is_late:
                    self._model_is(self._names[model], state)
            case _:
                if event is None and not is_late:
                    self._forget_models()
                events.put(event)

    def _model_is(self, name: str, state: str) -> None:
        """An engine has one model at a time: whatever is said of one, the others are no longer here."""
        self.model_states = {**self._failed(), name: state}

    def _forget_models(self) -> None:
        self.model_states = self._failed()

    def _failed(self) -> dict[str, str]:
        return {name: state for name, state in self.model_states.items() if state == "error"}

    @property
    def model_loaded(self) -> str:
        """The name of the model that is in memory, or nothing."""
        return next((name for name, state in self.model_states.items() if state == "loaded"), "")

    def decode(
        self, section: int, sound: Sound, model: LocalModel, options: TranscriptionOptions, *, beat: float
    ) -> Generator[Event | None, None, None]:
        """Give the events of a section as they come, and None whenever `beat` seconds passed without one.

        Ends after `done` or `error`. Leaving early asks the runner to stop at its window, and kills it if it does not.
        Raises RunnerExited.
        """
        self._names[str(model.path)] = model.name
        self.start()
        heard = {"pcm": str(sound.path), "spans": sound.spans, "model": str(model.path)}
        self._say({"do": "open", "section": section, **heard, "options": options.to_json()})
        is_over = False
        try:
            while not is_over:
                try:
                    event = self._next(beat)
                except TimeoutError:
                    yield None
                    continue
                is_over = event["event"] in ("done", "error")
                yield event
        finally:
            if not is_over:
                self._close(section)

    def _close(self, section: int) -> None:
        try:
            self._say({"do": "close", "section": section})
            deadline = time.monotonic() + CLOSE_SECONDS
            while self._next(max(0.0, deadline - time.monotonic())) != {"event": "closed", "section": section}:
                pass
        except (RunnerExited, TimeoutError):
            self.stop()

    def _say(self, command: dict[str, Any]) -> None:
        assert self._child is not None  # noqa: S101  (start() has been called)
        try:
            self._child.say(command)
        except OSError as error:
            raise RunnerExited(str(error)) from error

    def _next(self, timeout: float) -> Event:
        """The next event; raises TimeoutError when none comes in time, RunnerExited when none will."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if event is None:
            assert self._child is not None  # noqa: S101
            raise RunnerExited(f"the runner ended with {self._child.wait()}")
        return event

    def stop(self) -> None:
        """End the child now; nothing of it is left."""
        if self._child is not None:
            self._child.stop()
        self._child = None
        self._forget_models()
