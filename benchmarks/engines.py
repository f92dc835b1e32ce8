"""Compares our server with the library of its engine: the same sound and the same options, in turn.

    python -m benchmarks.engines [--engines faster-whisper mlx-whisper] [--seconds 120] [--language en] [--times 3]

The library transcribes by itself, in a process that has loaded the model. Ours is a real server that has loaded the
model too. The ratio is our time, from the upload's first byte to the job's end, divided by the library's. The voices
(tests/speech.py) and the model `base` are real; for mlx-whisper the weights are converted first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import machine
from tests import speech
from tests.server import MODELS, ROOT, Server
from transcription.whisper.convert import ctranslate2_to_mlx
from transcription.whisper.engine import ENGINES
from transcription.whisper.pcm import BYTES_A_SECOND

# By default our server cuts at silences and leaves long ones out. The second way gives the library the whole recording.
WAYS = {
    "as by default": {},
    "whole, temperature 0": {"sections": "1", "vad_filter": "false", "temperature": "[0]"},
}
LIBRARY_ARGUMENTS = {
    ("faster-whisper", "as by default"): {"vad_filter": True},
    ("faster-whisper", "whole, temperature 0"): {"temperature": 0},
    ("mlx-whisper", "as by default"): {"best_of": 5},
    ("mlx-whisper", "whole, temperature 0"): {"temperature": 0},
}

# The programs that read requests, one JSON object a line, and answer with the seconds that the library took.
LIBRARY = {
    "faster-whisper": """
import json, sys, time
import numpy as np
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], "cpu", compute_type="int8", local_files_only=True)
def transcribe(samples, arguments):
    return list(model.transcribe(samples, **arguments)[0])
""",
    "mlx-whisper": """
import json, sys, time
import mlx.core as mx, mlx_whisper, numpy as np
mx.set_default_device(mx.cpu)
def transcribe(samples, arguments):
    return mlx_whisper.transcribe(samples, path_or_hf_repo=sys.argv[1], fp16=False, **arguments)
""",
}
LOOP = """
for line in sys.stdin:
    request = json.loads(line)
    samples = np.fromfile(request["pcm"], "<i2").astype(np.float32) / 32768
    began = time.monotonic()
    transcribe(samples, request["arguments"])
    print(json.dumps(time.monotonic() - began), flush=True)
"""


@dataclass(frozen=True)
class OurTime:
    """The seconds of one job: the whole, and its parts."""

    whole: float
    preparing: float
    decoding: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure our server beside the libraries of its engines.")
    parser.add_argument("--engines", nargs="+", default=list(LIBRARY), choices=LIBRARY)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--language", default="en", choices=list(speech.VOICES))
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="stenograf-engines-") as folder:
        sound = Path(folder) / "speech.wav"
        speech.join(arguments.language, sound, seconds=arguments.seconds)
        pcm = Path(folder) / "speech.pcm"
        pcm.write_bytes(sound.read_bytes()[44:])
        seconds = pcm.stat().st_size / BYTES_A_SECOND
        print(f"{seconds:.0f} s of {arguments.language}, model base, medians of {arguments.times}\n")
        for engine in arguments.engines:
            compare(engine, Path(folder), sound, pcm, language=arguments.language, times=arguments.times)


def compare(engine: str, folder: Path, sound: Path, pcm: Path, *, language: str, times: int) -> None:
    """Print a line for each way: the library's time, ours, the ratio, and the parts of ours."""
    models = folder / f"models-{engine}"
    model = models / f"{ENGINES[engine].folder_prefix}base"
    models.mkdir()
    if engine == "mlx-whisper":
        ctranslate2_to_mlx(MODELS / "faster-whisper-base", model)
    else:
        model.symlink_to(MODELS / "faster-whisper-base")
    server = Server(folder / f"data-{engine}", models, DEFAULT_MODEL="base", ENGINE=engine, MODEL_DEVICE="cpu")
    with library(engine, model) as alone, serving(server):
        time_job(server, sound, {"language": language})  # loads the model and compiles its kernels
        alone.seconds(pcm, {"language": language})
        for way, parameters in WAYS.items():
            arguments = {"language": language, **LIBRARY_ARGUMENTS[engine, way]}
            pairs = [
                (alone.seconds(pcm, arguments), time_job(server, sound, {"language": language, **parameters}))
                for _ in range(times)
            ]
            show(f"{engine}, {way}", pairs)


def show(title: str, pairs: list[tuple[float, OurTime]]) -> None:
    alone = statistics.median(seconds for seconds, _ in pairs)
    whole = statistics.median(job.whole for _, job in pairs)
    preparing = statistics.median(job.preparing for _, job in pairs)
    decoding = statistics.median(job.decoding for _, job in pairs)
    rest = whole - preparing - decoding
    parts = f"FFmpeg and finding speech {preparing:.2f}, decoding {decoding:.2f}, the rest {rest:.2f}"
    print(f"{title:36} library {alone:6.2f} s, ours {whole:6.2f} s, ratio {whole / alone:.2f}; of ours: {parts}")


def time_job(server: Server, sound: Path, parameters: dict[str, str]) -> OurTime:
    began = time.time()
    job = server.wait(server.submit(sound, **parameters)["id"], 1200)
    assert job["status"] == "done", job
    key = job["id"].replace("-", "")
    times = "SELECT finished_at, transcribing_at, preparing_at FROM transcription_job WHERE id = ?"
    finished, transcribing, preparing = (
        datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() for moment in server.rows(times, key)[0]
    )
    ((decoding,),) = server.rows("SELECT sum(processing_seconds) FROM transcription_section WHERE job_id = ?", key)
    return OurTime(finished - began, transcribing - preparing, decoding)


@dataclass(frozen=True)
class Library:
    """A process in which a library has loaded its model."""

    process: subprocess.Popen[str]

    def seconds(self, pcm: Path, arguments: dict[str, object]) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"pcm": str(pcm), "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))


@contextmanager
def library(engine: str, model: Path) -> Iterator[Library]:
    preloaded = [str(path) for pattern in ENGINES[engine].preloaded for path in Path("/").glob(pattern.lstrip("/"))]
    environment = {**os.environ, "LD_PRELOAD": " ".join(preloaded)}
    command = [sys.executable, "-c", LIBRARY[engine] + LOOP, str(model)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Library(process)
        process.kill()


@contextmanager
def serving(server: Server) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop()


if __name__ == "__main__":
    main()
