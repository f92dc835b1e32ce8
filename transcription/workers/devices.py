"""The devices of this machine, and the runners: the child processes that hold the engines."""

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

CLOSE_SECONDS = 5  # for a runner to stop a section after the current window, before it is killed


def engine() -> Capabilities:
    """The engine of this installation: the one that ENGINE names, or the best that is installed and not set aside."""
    if settings.ENGINE != "auto":
        return ENGINES[settings.ENGINE]
    installed = [candidate for candidate in candidates() if is_installed(candidate)]
    trusted = [candidate for candidate in installed if not enginecheck.is_set_aside(candidate)]
    return (trusted or installed or candidates())[0]


def candidates() -> list[Capabilities]:
    """The engines that `ENGINE=auto` chooses from on this machine, the best first."""
    is_apple_silicon = sys.platform == "darwin" and platform.machine() == "arm64"
    names = ("mlx-whisper", "faster-whisper") if is_apple_silicon else ("faster-whisper",)
    return [ENGINES[name] for name in names]


def is_installed(capabilities: Capabilities) -> bool:
    """Whether the engine's package is installed; it is not imported."""
    return find_spec(capabilities.package.replace("-", "_")) is not None


def here(capabilities: Capabilities | None = None) -> list[str]:
    """The devices of this machine that MODEL_DEVICE selects; with `auto` the GPUs if there are any, else the CPU.

    Without `capabilities` the installation's engine is meant.
    Raises UnknownDevice if MODEL_DEVICE names a device that is not here or that the engine cannot use.
    """
    wanted = settings.MODEL_DEVICE
    if wanted == "cpu":
        return ["cpu"]
    gpus = _gpus(capabilities or engine())
    if wanted == "auto":
        return gpus or ["cpu"]
    selected = [gpu for gpu in gpus if wanted in ("gpu", gpu, gpu.partition(":")[0])]
    if not selected:
        raise errors.UnknownDevice(name=wanted, known=", ".join(["cpu", *gpus]))
    return selected


def _gpus(capabilities: Capabilities) -> list[str]:
    """The GPUs of this machine that an engine can use."""
    if capabilities.gpu == "mps":
        return ["mps"] if sys.platform == "darwin" else []
    return [f"cuda:{index}" for index in range(_count_cuda())]


def _count_cuda() -> int:
    """The number of CUDA devices, by a child: no worker and no web process imports an engine's library."""
    program = "import ctranslate2; print(ctranslate2.get_cuda_device_count())"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    if child.returncode:
        raise errors.NoEngine(detail=(child.stderr.strip().splitlines() or ["no reason was given"])[-1])
    return int(child.stdout)


def _preloading(capabilities: Capabilities) -> dict[str, str]:
    """The environment variable that preloads the libraries an engine needs, if they are on this machine."""
    if platform.system() != "Linux":  # with sys.platform, mypy takes the rest for unreachable
        return {}
    libraries = [path for pattern in capabilities.preloaded for path in sorted(Path("/").glob(pattern.lstrip("/")))]
    before = os.environ.get("LD_PRELOAD", "").split()
    return {"LD_PRELOAD": " ".join([*before, *map(str, libraries)])} if libraries else {}


class RunnerExited(Exception):
    """The runner ended in the middle of a section; the message says how."""


class Runner:
    """The child process that holds a device's engine: started when it is needed, and again after it has died."""

    def __init__(self, device: str, capabilities: Capabilities | None = None) -> None:
        self.device = device
        self.capabilities = capabilities or engine()
        self.versions: dict[str, str] = {}
        self.compute_types: list[str] = []
        self.threads = 0
        self.reading = device_stats.Reading()  # the newest of its device
        self.model_states: dict[str, str] = {}  # by model name: loading, loaded, or error until it loads
        self._names: dict[str, str] = {}  # model names by folder
        self._child: processes.LineChild | None = None
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the child unless it runs; it sends `ready` when it is."""
        if self._child is not None and self._child.is_running:
            return
        self.stop()
        program = [sys.executable, "-m", "transcription.whisper.runner"]
        arguments = ["--engine", self.capabilities.module, "--device", self.device]
        # Each child has its own queue: late events of a dead child must not be taken for the next one's.
        self._events = queue.SimpleQueue()
        self._child = processes.LineChild(
            [*program, *arguments],
            on_line=partial(self._receive, self._events),
            # In this order `cuda:1` is nvidia-smi's GPU 1; by default CUDA counts the fastest GPU first.
            environment={"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **_preloading(self.capabilities)},
        )

    def _receive(self, events: "queue.SimpleQueue[Event | None]", event: Event | None) -> None:
        """Keep what the child says about itself; queue the events of a section. Runs in the child's thread."""
        is_late = events is not self._events
        match event:
            case {"event": "ready", "versions": versions, "compute_types": compute_types, "threads": threads}:
                self.versions, self.compute_types, self.threads = versions, compute_types, threads
            case {"event": "device", "reading": reading}:
                self.reading = device_stats.Reading(**reading)
            case {"event": "model", "model": model, "state": state}:
                if not is_late:
                    # An engine holds one model at a time, so the others are no longer in memory.
                    self.model_states = {**self._failed_models(), self._names[model]: state}
            case _:
                if event is None and not is_late:
                    self.model_states = self._failed_models()
                events.put(event)

    def _failed_models(self) -> dict[str, str]:
        return {name: state for name, state in self.model_states.items() if state == "error"}

    @property
    def model_loaded(self) -> str:
        """The name of the model in memory; empty if there is none."""
        return next((name for name, state in self.model_states.items() if state == "loaded"), "")

    def decode(
        self, section: int, sound: Sound, model: LocalModel, options: TranscriptionOptions, *, beat: float
    ) -> Generator[Event | None, None, None]:
        """Give the events of a section as they come, and None whenever `beat` seconds have passed without one.

        Ends after `done` or `error`. If the caller stops early, the runner is asked to stop after the current window,
        and killed if it does not. Raises RunnerExited.
        """
        self._names[str(model.path)] = model.name
        self.start()
        source = {"sound": sound.to_json(), "model": str(model.path), "options": options.to_json()}
        self._say({"do": "open", "section": section, **source})
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
        """The next event. Raises TimeoutError when none comes in time, RunnerExited when the runner has ended."""
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if event is None:
            assert self._child is not None  # noqa: S101
            raise RunnerExited(f"the runner ended with {self._child.wait()}")
        return event

    def stop(self) -> None:
        """Kill the child."""
        if self._child is not None:
            self._child.stop()
        self._child = None
        self.model_states = self._failed_models()
