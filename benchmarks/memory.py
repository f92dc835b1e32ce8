"""Measures the memory of every process while a very large and a very long recording go through a real server.

    python -m benchmarks.memory [--hours 10] [--gigabytes 5]

The large recording is silence in an RF64 file, the long one has the tests' sentences in Opus. Each is sent in one
request. Exits with 1 when a job did not end as done, when the web process or a worker took more than 300 MB, or when
the runner took more than 300 MB beside its loaded model. Needs three times the large file's size on the disk.
"""

import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import machine
from tests.server import NANO, QUICKLY, Server, processes
from transcription.sound import audio
from transcription.whisper.pcm import BYTES_A_SAMPLE, SAMPLE_RATE

MB = 1024**2
LIMIT = 300 * MB
SAMPLE_SECONDS = 0.5
JOB_SECONDS = 6 * 3600.0  # the longest that a job may take

# The roles of processes, by a part of the command line; the first match counts.
ROLES = (
    ("runner", "transcription.whisper.runner"),
    ("speech finder", "transcription.whisper.vad"),
    ("FFmpeg", "ffmpeg "),
    ("web", "uvicorn"),
    ("default worker", "-Q default"),
    ("device worker", "-Q device."),
    ("supervisor", "manage.py serve"),
)
LIMITED = ("web", "default worker", "device worker", "speech finder")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the memory that very large and very long recordings take.")
    parser.add_argument("--hours", type=float, default=10, help="of the long recording; 0 leaves it out")
    parser.add_argument("--gigabytes", type=float, default=5, help="of the large file; 0 leaves it out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stenograf-memory-") as folder:
        sys.exit(not Measurement(Path(folder)).run(arguments.hours, arguments.gigabytes))


class Measurement:
    """A server, the samples of its processes, and the problems so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = Server(folder / "data", NANO, DEFAULT_MODEL="nano", SWEEP_SECONDS="15")
        self.sampler = Sampler()
        self.problems: list[str] = []

    def run(self, hours: float, gigabytes: float) -> bool:
        """Print the peaks; return whether all is well."""
        print(f"{machine()}; load average {os.getloadavg()[0]:.2f}", flush=True)
        self.server.start()
        try:
            self.sampler.root = self.server.process.pid if self.server.process else 0
            with self.sampler.running():
                self.transcribe("a short clip", NANO / "nano" / "bears.wav")
                loaded = self.sampler.peaks["a short clip"].get("runner", Memory()).rss
                if gigabytes:
                    silence = write_silence(self.folder / "large.wav", int(gigabytes * 1024**3))
                    self.transcribe(f"{gigabytes:g} GB", silence)
                    silence.unlink()
                if hours:
                    self.transcribe_long(f"{hours:g} h", hours)
        finally:
            self.server.stop()
        self.judge(loaded)
        return not self.problems

    def transcribe(self, phase: str, path: Path) -> str:
        """Send a recording, wait for the end of its job, and return the job's id."""
        self.sampler.phase = phase
        began = time.monotonic()
        job = self.server.submit(path, **QUICKLY)["id"]
        uploaded = time.monotonic()
        while (ended := self.server.job(job))["status"] not in ("done", "failed", "cancelled"):
            assert time.monotonic() - uploaded < JOB_SECONDS, f"{phase} took too long"
            time.sleep(1)
        self.report(phase, path, uploaded - began, time.monotonic() - uploaded, ended)
        return str(job)

    def report(self, phase: str, path: Path, upload: float, rest: float, ended: dict) -> None:
        size, duration = path.stat().st_size / MB, ended["recording"]["duration"] or 0
        sent = f"{size:,.1f} MB sent in {upload:.1f} s"
        done = f"{duration / 3600:.2f} h {ended['status']} in {rest:.1f} s"
        print(f"{phase}: {sent}, {done}; load average {os.getloadavg()[0]:.2f}", flush=True)
        if ended["status"] != "done":
            self.problems.append(f"{phase}: {ended['status']}: {ended['error']}")

    def transcribe_long(self, phase: str, hours: float) -> None:
        """Transcribe the long recording, and read its transcript in every form."""
        path = write_speech(self.folder / "long.ogg", hours)
        job = self.transcribe(phase, path)
        self.sampler.phase = f"{phase}, read"
        with self.server.client() as client:
            for address in ("transcript.json", "transcript.srt", "events/"):
                began = time.monotonic()
                size = len(client.get(f"/api/v1/jobs/{job}/{address}").raise_for_status().content)
                print(f"{phase}: {address} {size / MB:.1f} MB in {time.monotonic() - began:.1f} s", flush=True)
        segments = self.server.segments(job)
        print(f"{phase}: {len(segments)} segments, the last ends at {segments[-1][1] / 3600 if segments else 0:.2f} h")
        if not segments or segments[-1][1] < 3600 * hours - 60:
            self.problems.append(f"{phase}: the transcript does not reach the end")

    def judge(self, loaded: int) -> None:
        """Print the peak of each process in each phase, and note those above their limits."""
        phases = list(self.sampler.peaks)
        print(f"\npeaks in MB, resident (proportional)\n{'':16}" + "".join(f"{phase:>18}" for phase in phases))
        for role, _ in ROLES:
            cells = [self.sampler.peaks[phase].get(role) for phase in phases]
            print(f"{role:16}" + "".join(f"{str(cell or '-'):>18}" for cell in cells))
            highest = max((cell.rss for cell in cells if cell), default=0)
            limit = {"runner": loaded + LIMIT, **dict.fromkeys(LIMITED, LIMIT)}.get(role)
            if limit is not None and highest > limit:
                self.problems.append(f"{role}: {highest / MB:.0f} MB, above {limit / MB:.0f} MB")
        if self.sampler.unseen:
            self.problems.append(f"never seen: {', '.join(self.sampler.unseen)}")
        well = f"None was above {LIMIT // MB} MB, nor the runner above its {loaded / MB:.0f} MB with the model by more."
        print("\n" + ("\n".join(self.problems) or well))


class Memory:
    """The memory of a process in bytes: resident (RSS), and proportional (PSS), which divides shared memory."""

    def __init__(self, rss: int = 0, pss: int = 0) -> None:
        self.rss, self.pss = rss, pss

    def raised(self, other: "Memory") -> "Memory":
        return Memory(max(self.rss, other.rss), max(self.pss, other.pss))

    def __str__(self) -> str:
        return f"{self.rss / MB:.0f} ({self.pss / MB:.0f})" if self.pss else f"{self.rss / MB:.0f}"


class Sampler:
    """Samples all processes below `root` twice a second, and keeps the peak of each role and phase."""

    def __init__(self) -> None:
        self.root = 0
        self.phase = "start"
        self.peaks: dict[str, dict[str, Memory]] = {}
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.sample()

    def sample(self) -> None:
        running = processes()
        below = {self.root}
        for pid, parent, _ in sorted(running):
            if parent in below:
                below.add(pid)
        peaks = self.peaks.setdefault(self.phase, {})
        for pid, _, command_line in running:
            role = next((role for role, part in ROLES if part in command_line), None)
            if pid in below and role is not None:
                peaks[role] = peaks.get(role, Memory()).raised(memory(pid))

    @property
    def unseen(self) -> list[str]:
        """The roles that are in no sample, without FFmpeg, which may be quicker than a sample."""
        seen = {role for peaks in self.peaks.values() for role in peaks}
        return [role for role, _ in ROLES if role not in seen and role != "FFmpeg"]


def memory(pid: int) -> Memory:
    """The memory of a process now; zero if it has ended. Only Linux reports the proportional size."""
    rollup = Path(f"/proc/{pid}/smaps_rollup")
    if rollup.exists():
        try:
            sizes = dict(line.split(":", 1) for line in rollup.read_text().splitlines()[1:])
        except OSError:
            return Memory()
        return Memory(*(int(sizes[name].split()[0]) * 1024 for name in ("Rss", "Pss")))
    ps = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return Memory(int(ps.stdout or 0) * 1024)


def write_silence(path: Path, size: int) -> Path:
    """Write an RF64 file of `size` bytes of silence: 48 kHz, stereo, 32-bit float. It is sparse: it takes no space."""
    header = b"RF64" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE"
    sound = size - 80
    sound -= sound % 8
    header += b"ds64" + struct.pack("<IQQQI", 28, 72 + sound, sound, sound // 8, 0)
    header += b"fmt " + struct.pack("<IHHIIHH", 16, 3, 2, 48000, 48000 * 8, 8, 32)
    header += b"data" + struct.pack("<I", 0xFFFFFFFF)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sound)
    return path


def write_speech(path: Path, hours: float) -> Path:
    """Write ten minutes of sentences that the tests' model knows, with pauses, again and again, in Opus."""
    piece = path.with_suffix(".wav")
    order = random.Random(8)
    sentences = json.loads((NANO / "nano" / "sentences.json").read_text())
    spoken = [item["file"] for item in sentences if item["file"].endswith(".wav") and item["language"] == "en"]
    with wave.open(str(piece), "wb") as joined:
        joined.setparams((1, BYTES_A_SAMPLE, SAMPLE_RATE, 0, "NONE", ""))
        while joined.tell() < 600 * SAMPLE_RATE:
            with wave.open(str(NANO / "nano" / order.choice(spoken))) as sentence:
                joined.writeframes(sentence.readframes(sentence.getnframes()))
            joined.writeframes(bytes(BYTES_A_SAMPLE * int(SAMPLE_RATE * order.uniform(0.5, 2.5))))
    ffmpeg = [audio.ffmpeg_path(), "-v", "error", "-nostdin", "-y"]
    encoded = path.with_stem(path.stem + "-piece")
    subprocess.run([*ffmpeg, "-i", str(piece), "-c:a", "libopus", "-b:a", "24k", str(encoded)], check=True)
    loop = ["-stream_loop", "-1", "-i", str(encoded), "-t", str(hours * 3600), "-c", "copy"]
    subprocess.run([*ffmpeg, *loop, str(path)], check=True)
    return path


if __name__ == "__main__":
    main()
