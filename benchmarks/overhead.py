"""Measures what the server adds to the engine's time, with a short clip that is posted again and again.

    python -m benchmarks.overhead [--model nano|base] [--models FOLDER] [--times 30] [--packaged] [--json FILE]

The parts follow one another from the upload's first byte to the job's end, so their sum is the whole time. They come
from the rows, and from the debug lines of transcription/logs.py in the logs of the default and the device worker.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import tempfile
import time
import wave
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx

from benchmarks.machine import machine
from tests.server import MODELS, NANO, Server, wait_until

CLIP_SECONDS = 2.0
AIM = 0.150  # seconds, of the overhead's median
SETTINGS = {"LOG_LEVEL": "debug", "SWEEP_SECONDS": "15"}  # the tests' server sweeps more often than the default, 15

PARTS = (
    "upload, until the job's row",
    "wake-up of the default worker, claim",
    "FFmpeg",
    "loudness for the player",
    "finding speech",
    "the rest of preparing",
    "storing sections, ringing",
    "wake-up of the device worker, claim",
    "the engine",
    "the section besides it",
    "wake-up for finishing, claim, finishing",
)
ASIDE = ("upload, until 202", "storing segments, partly beside the engine", "the end, seen in the event stream")

# The names of the parts in the debug lines.
STEPS = {
    "FFmpeg": "decoding",
    "loudness for the player": "measuring loudness",
    "finding speech": "finding speech",
    "storing sections, ringing": "storing sections",
    "the engine": "the engine",
    "storing segments, partly beside the engine": "storing a segment",
}
PREPARING = ("FFmpeg", "loudness for the player", "finding speech")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the server adds to the engine's time for a short clip.")
    parser.add_argument("--model", default="nano", help="a model's name; nano is the tests' own")
    parser.add_argument("--models", type=Path, help="the folder that it lies in")
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--packaged", action="store_true", help="take imageio-ffmpeg's FFmpeg, not the machine's own")
    parser.add_argument("--json", type=Path, help="where each run's parts are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stenograf-overhead-") as folder:
        path = {"PATH": _without_ffmpeg(Path(folder))} if arguments.packaged else {}
        models = arguments.models or (NANO if arguments.model == "nano" else MODELS)
        server = Server(Path(folder) / "data", models, DEFAULT_MODEL=arguments.model, **SETTINGS, **path)
        runs = measure(server, make_clip(Path(folder) / "clip.wav"), arguments.times)
    ffmpeg = "packaged FFmpeg" if arguments.packaged else "the machine's FFmpeg"
    title = f"{len(runs)} clips of {CLIP_SECONDS:g} s, model {arguments.model}, {ffmpeg}"
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "title": title, "runs": runs}, indent=2))
    show(title, runs)


def _without_ffmpeg(folder: Path) -> str:
    """A PATH with the machine's programs that we use, without FFmpeg."""
    (folder / "bin").mkdir()
    if setpriv := shutil.which("setpriv"):
        (folder / "bin" / "setpriv").symlink_to(setpriv)
    return str(folder / "bin")


def measure(server: Server, clip: Path, times: int) -> list[dict[str, float]]:
    """The parts of each run, in seconds."""
    server.start()
    try:
        with server.client() as client:
            for _ in range(3):  # until the model is loaded and every child has started
                run(server, client, clip)
            return [run(server, client, clip) for _ in range(times)]
    finally:
        server.stop()


def make_clip(path: Path) -> Path:
    """Two seconds with a sentence that the tests' model knows."""
    with wave.open(str(NANO / "nano" / "bears.wav")) as sentence, wave.open(str(path), "wb") as clip:
        clip.setparams(sentence.getparams())
        frames = sentence.readframes(sentence.getnframes())
        whole = int(CLIP_SECONDS * sentence.getframerate()) * sentence.getsampwidth()
        clip.writeframes(frames[:whole] + bytes(whole - len(frames)))
    return path


def run(server: Server, client: httpx.Client, clip: Path) -> dict[str, float]:
    """Post the clip, wait for the end of its job on the event stream, and return the seconds of each part."""
    began = time.time()
    job = client.post("/api/v1/jobs/", files={"file": (clip.name, clip.read_bytes())}).raise_for_status().json()
    accepted = time.time()
    with client.stream("GET", f"/api/v1/jobs/{job['id']}/events/") as events:
        stream = "".join(events.iter_text())
    ended = time.time()
    assert '"status": "done"' in stream, stream
    row = Row(server, job["id"])
    logged = wait_until(lambda: _logged_parts(server, row.job), 10)
    return {
        **logged,
        "upload, until 202": accepted - began,
        "upload, until the job's row": row.created_at - began,
        "wake-up of the default worker, claim": row.preparing_at - row.created_at,
        "the rest of preparing": row.transcribing_at - row.preparing_at - sum(logged[name] for name in PREPARING),
        "wake-up of the device worker, claim": (
            row.started_at - row.transcribing_at - logged["storing sections, ringing"]
        ),
        "the section besides it": row.finishing_at - row.started_at - logged["the engine"],
        "wake-up for finishing, claim, finishing": row.finished_at - row.finishing_at,
        "the end, seen in the event stream": ended - row.finished_at,
    }


class Row:
    """The times of a job with one section, in seconds since 1970."""

    def __init__(self, server: Server, job: str) -> None:
        query = """
            SELECT job.created_at, preparing_at, transcribing_at, started_at, finishing_at, job.finished_at
            FROM transcription_job AS job JOIN transcription_section AS section ON section.job_id = job.id
            WHERE job.id = ?
        """
        (row,) = server.rows(query, job.replace("-", ""))
        times = [datetime.fromisoformat(column).replace(tzinfo=UTC).timestamp() for column in row]
        self.job = job
        self.created_at, self.preparing_at, self.transcribing_at, self.started_at, *rest = times
        self.finishing_at, self.finished_at = rest


def _logged_parts(server: Server, job: str) -> dict[str, float] | None:
    """The seconds of the parts that are in the debug lines of a job; None while a line is missing."""
    logs = "".join((server.data / "logs" / f"{name}.log").read_text() for name in ("default", "cpu"))
    parts: dict[str, float] = {}
    for part, step in STEPS.items():
        seconds = re.findall(rf" {step} took ([\d.]+) s job={job}\b", logs)
        if not seconds:
            return None
        parts[part] = sum(map(float, seconds))
    return parts


def show(title: str, runs: Sequence[dict[str, float]]) -> None:
    """Print the median, the 95th percentile and the best of each part, in milliseconds."""
    columns: dict[str, list[float]] = defaultdict(list)
    for parts in runs:
        for name in (*PARTS, *ASIDE):
            columns[name].append(parts[name])
        columns["overhead"].append(sum(parts[name] for name in PARTS if name != "the engine"))
        columns["overhead, in engine times"].append(columns["overhead"][-1] / parts["the engine"])
    print(f"{machine()}; load average {os.getloadavg()[0]:.2f}")
    print(f"{title}; milliseconds\n")
    print(f"{'':44}{'median':>9}{'p95':>9}{'best':>9}")
    for name in PARTS:
        _line(name, columns[name])
    print()
    _line("overhead: all but the engine", columns["overhead"])
    ratio = statistics.median(columns["overhead, in engine times"])
    print(f"{'  as a share of the engine':44}{ratio:9.2f}")
    print("\nbeside it:")
    for name in ASIDE:
        _line(name, columns[name])
    met = "met" if statistics.median(columns["overhead"]) <= AIM else "MISSED"
    print(f"\nThe aim, a median of {1000 * AIM:.0f} ms, is {met}.")


def _line(name: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    print(f"{name:44}{1000 * statistics.median(ordered):9.1f}{1000 * p95:9.1f}{1000 * ordered[0]:9.1f}")


if __name__ == "__main__":
    main()
