"""What the runner tells of its device and its models, and what the endpoints show of it."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from django.conf import LazySettings

from tests.server import NANO, Server, wait_until
from transcription.models import Worker
from transcription.queue import wakeups
from transcription.whisper import device_stats, runner
from transcription.whisper.device_stats import Reading
from transcription.workers import devices
from transcription.workers.process import WorkerProcess

BOOKS = NANO / "nano" / "books.ogg"

# As the programs and files of other machines write it; no such GPU has been seen by these tests.
CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Core(TM) i7-9700 CPU @ 3.00GHz
cpu MHz\t\t: 3000.000

processor\t: 1
model name\t: Intel(R) Core(TM) i7-9700 CPU @ 3.00GHz
"""
RASPBERRY = "processor\t: 0\nBogoMIPS\t: 108.00\nCPU implementer\t: 0x41\n"
MEMINFO = """\
MemTotal:       16308116 kB
MemFree:          512000 kB
MemAvailable:   12212116 kB
Buffers:          204800 kB
HugePages_Total:       0
"""


@pytest.mark.parametrize(
    ("said", "reading"),
    [
        ("NVIDIA GeForce RTX 4090, 24564, 1024, 12\n", Reading("NVIDIA GeForce RTX 4090", 24564, 1024, 12)),
        ("Tesla V100-SXM2-16GB, 16384, 0, 0\n", Reading("Tesla V100-SXM2-16GB", 16384, 0, 0)),
        ("NVIDIA GB10, [N/A], [N/A], 3\n", Reading("NVIDIA GB10", None, None, 3)),  # it shares the machine's memory
        ("NVIDIA H100 MIG 1g.10gb, 9984, 20, [N/A]\n", Reading("NVIDIA H100 MIG 1g.10gb", 9984, 20, None)),
        ("Quadro K620, 2000, 312, [Not Supported]\n", Reading("Quadro K620", 2000, 312, None)),
        ("No devices were found\n", Reading()),
        ("Unable to determine the device handle for GPU 0000:01:00.0: Unknown Error\n", Reading()),
        ("", Reading()),
    ],
)
def test_nvidias_program_is_read(said: str, reading: Reading) -> None:
    assert device_stats.parse_nvidia_smi(said) == reading


def test_linux_is_read() -> None:
    assert device_stats.parse_cpuinfo(CPUINFO) == "Intel(R) Core(TM) i7-9700 CPU @ 3.00GHz"
    assert device_stats.parse_cpuinfo(RASPBERRY) == ""
    assert device_stats.parse_meminfo(MEMINFO) == (15925, 4000)
    assert device_stats.parse_meminfo("") == (None, None)


def test_a_gpu_is_asked_for_as_its_own_programs_know_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\nfor last; do :; done\necho "GPU $last, 24564, 1024, 12"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert device_stats.read("cuda:1") == Reading("GPU 1", 24564, 1024, 12)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8f6c")
    assert device_stats.read("cuda:0").name == "GPU 3"
    assert device_stats.read("cuda:1").name == "GPU GPU-8f6c"


def test_without_nvidias_program_a_gpu_has_no_numbers(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device_stats.read("cuda:0") == Reading()


def test_of_memory_that_is_shared_the_engine_knows_its_part() -> None:
    reading = device_stats.read("mps", 700 * 1024**2)
    assert (reading.memory_used_mb, reading.utilization) == (700, None)


class StopLooking(Exception):
    """Ends a thread that would look for ever."""


def test_a_device_that_cannot_be_looked_at_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[dict[str, Any]] = []
    looks = iter((OSError("no permission"), Reading(name="GPU")))

    class Listener:
        def say(self, event: dict[str, Any]) -> None:
            readings.append(event["reading"])
            if len(readings) == 2:
                raise StopLooking

    def look(*_: Any) -> Reading:
        found = next(looks)
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr(device_stats, "read", look)
    monkeypatch.setattr(runner, "GAUGE_SECONDS", 0)
    with pytest.raises(StopLooking):
        runner.Runner(lambda tell: SimpleNamespace(memory_bytes=int), Listener(), "cpu").watch_gauges()  # type: ignore[arg-type]
    assert [reading["name"] for reading in readings] == ["", "GPU"]


def told(**event: Any) -> dict[str, Any]:
    return event


def test_a_runner_has_one_model_and_remembers_what_did_not_load() -> None:
    runner = devices.Runner("cpu")
    runner._names = {"/m/a": "base", "/m/b": "medium"}

    def hear(model: str, state: str) -> dict[str, str]:
        runner._receive(runner._events, told(event="model", model=model, state=state))
        return runner.model_states

    assert hear("/m/a", "loading") == {"base": "loading"}
    assert runner.model_loaded == ""
    assert hear("/m/a", "loaded") == {"base": "loaded"}
    assert runner.model_loaded == "base"
    assert hear("/m/b", "loading") == {"medium": "loading"}
    assert hear("/m/b", "error") == {"medium": "error"}
    assert hear("/m/a", "loaded") == {"base": "loaded", "medium": "error"}
    runner._receive(runner._events, None)
    assert runner.model_states == {"medium": "error"}


@pytest.mark.django_db(transaction=True)
def test_the_heart_tells_what_the_runner_said(settings: LazySettings) -> None:
    process = WorkerProcess(f"{wakeups.DEVICE_QUEUE_PREFIX}cpu")
    assert process.runner is not None
    process.runner.reading = Reading("A processor", 16000, 4000, 25)
    process.runner.model_states = {"base": "loaded"}

    process._heartbeat()

    row = Worker.objects.get()
    assert (row.device_name, row.memory_total_mb, row.memory_used_mb, row.utilization) == (
        "A processor",
        16000,
        4000,
        25,
    )
    assert (row.model_states, row.model_loaded) == ({"base": "loaded"}, "base")


# ------------------------------------------------------------------ a real server


def model_status(server: Server) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = httpx.get(f"{server.url}/api/model_status").json()
    return found


def becomes(server: Server, states: dict[str, str]) -> bool:
    """Whether the device's models get into these states by and by."""
    return wait_until(lambda: model_status(server) == {"0": states}, 30)


def test_this_machine_is_told_of(compat_server: Server) -> None:
    (device,) = wait_until(
        lambda: [found for found in httpx.get(f"{compat_server.url}/api/gpus").json() if found["memory_total_mb"]]
    )

    assert (device["id"], device["device"]) == (0, "cpu")
    assert device["name"] not in ("", "cpu")
    assert 0 < device["memory_used_mb"] < device["memory_total_mb"]
    assert 0 <= device["utilization_gpu"] <= 100


@pytest.mark.slow
def test_models_are_seen_to_come_and_to_go(compat_server: Server) -> None:
    compat_server.transcribe(BOOKS, model="nano")
    assert becomes(compat_server, {"nano": "loaded"})

    compat_server.transcribe(BOOKS, model="base")
    assert becomes(compat_server, {"base": "loaded"})

    os.kill(compat_server.runner_pid(), signal.SIGKILL)
    assert becomes(compat_server, {})

    job = compat_server.transcribe(BOOKS, model="broken")
    assert job["error"]["code"] == "engine_failed"
    assert becomes(compat_server, {"broken": "error"})

    compat_server.transcribe(BOOKS, model="nano")
    assert becomes(compat_server, {"nano": "loaded", "broken": "error"})
