"""Measures what many waiting clients, on event streams or in calls, cost the web process, and the dashboard meanwhile.

    python -m benchmarks.streams [--clients 200] [--jobs 1] [--seconds 20] [--endpoint events|transcribe]

The server is a real one with the tests' model. It transcribes all the time, so the web process has only its share of
the machine. With `--jobs 50` the clients are spread over fifty jobs, most of which are queued. With
`--endpoint transcribe` each client posts an hour's recording to /transcribe with the same Idempotency-Key, so that all
wait for one job. Linux only.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.machine import machine
from tests.server import NANO, PASSWORD, Server, processes, wait_until
from transcription.whisper.pcm import BYTES_A_SAMPLE, BYTES_A_SECOND, SAMPLE_RATE

AIM = 1.0  # seconds, the median of the dashboard
SENDING_AT_ONCE = 8  # uploads; a server accepts a few dozen
DASHBOARD_SECONDS = 0.5  # between two requests for the dashboard


@dataclass(frozen=True)
class Usage:
    """The resources of the web process at one moment."""

    at: float
    cpu_seconds: float  # since its start
    threads: int
    megabytes: int
    database_files: int  # that are open; a connection has up to three

    @classmethod
    def of(cls, pid: int) -> "Usage":
        process = Path(f"/proc/{pid}")
        user, system = process.joinpath("stat").read_text().rpartition(")")[2].split()[11:13]
        status = dict(line.split(":\t", 1) for line in process.joinpath("status").read_text().splitlines())
        files = [_target(link) for link in process.joinpath("fd").iterdir()]
        return cls(
            time.monotonic(),
            (int(user) + int(system)) / os.sysconf("SC_CLK_TCK"),
            int(status["Threads"]),
            int(status["VmRSS"].split()[0]) // 1024,
            sum("stenograf.sqlite3" in file for file in files),
        )

    def show(self, name: str, since: "Usage", dashboard: list[float], events: int) -> None:
        cpu = 100 * (self.cpu_seconds - since.cpu_seconds) / (self.at - since.at)
        slowest, median = max(dashboard), statistics.median(dashboard)
        held = f"{self.threads:8}{self.megabytes:8}{self.database_files:10}"
        print(f"{name:18}{cpu:8.1f}{1000 * median:12.0f}{1000 * slowest:10.0f}{held}{events:10}")


def _target(link: Path) -> str:
    with contextlib.suppress(OSError):  # closed meanwhile
        return str(link.readlink())
    return ""


class Clients:
    """Clients that follow event streams, and count the events."""

    def __init__(self, server: Server, jobs: list[str]) -> None:
        self.server = server
        self.jobs = jobs
        self.events = 0
        self.connected = 0

    @contextlib.asynccontextmanager
    async def following(self, count: int) -> AsyncIterator[None]:
        """Open `count` streams, wait until each has sent something, and close them afterwards."""
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Token {self.server.token}"}
        async with httpx.AsyncClient(base_url=self.server.url, headers=headers, limits=limits, timeout=120) as client:
            streams = [asyncio.create_task(self._follow(client, self.jobs[i % len(self.jobs)])) for i in range(count)]
            while self.connected < count:
                assert not any(stream.done() for stream in streams), "A client has hung up, or got its answer."
                await asyncio.sleep(0.05)
            yield
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    async def _follow(self, client: httpx.AsyncClient, job_id: str) -> None:
        is_connected = False
        async with client.stream("GET", f"/api/v1/jobs/{job_id}/events/") as response:
            async for chunk in response.aiter_raw():
                self.events += chunk.count(b"event: ")
                self.connected += not is_connected
                is_connected = True


class Callers(Clients):
    """Callers of /transcribe, which answers when the job has ended. Each counts as connected once it has sent."""

    def __init__(self, server: Server, recording: Path) -> None:
        super().__init__(server, [""])
        head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{recording.name}"\r\n\r\n'
        self.form = head.encode() + recording.read_bytes() + b"\r\n--x--\r\n"
        self.headers = {"Content-Type": "multipart/form-data; boundary=x", "Idempotency-Key": "one for all of them"}
        self.sending = asyncio.Semaphore(SENDING_AT_ONCE)

    async def _follow(self, client: httpx.AsyncClient, job_id: str) -> None:
        await self.sending.acquire()
        await client.post("/transcribe?language=en", content=self._body(), headers=self.headers, timeout=None)

    async def _body(self) -> AsyncIterator[bytes]:
        yield self.form
        self.sending.release()
        self.connected += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what clients that wait cost the web process.")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--endpoint", choices=("events", "transcribe"), default="events")
    options = parser.parse_args()
    print(f"{machine()}; load average {os.getloadavg()[0]:.2f}")
    print(f"{options.clients} clients at {options.endpoint}, {options.jobs} job(s), {options.seconds:g} s each\n")
    with tempfile.TemporaryDirectory(prefix="stenograf-streams-") as folder:
        recording = make_lecture(Path(folder) / "lecture.wav", minutes=60)
        server = Server(Path(folder) / "data", NANO, DEFAULT_MODEL="nano")
        server.start()
        try:
            jobs = [server.submit(recording, language="en")["id"]]
            clip = make_lecture(Path(folder) / "clip.wav", minutes=0.2)
            jobs += [server.submit(clip, language="en", priority="low")["id"] for _ in range(options.jobs - 1)]
            wait_until(lambda: server.segments(jobs[0]), 120)
            clients = Clients(server, jobs) if options.endpoint == "events" else Callers(server, compressed(recording))
            asyncio.run(measure(server, jobs, clients, options.clients, options.seconds))
        finally:
            server.stop()


def make_lecture(path: Path, minutes: float) -> Path:
    """Write the tests' English sentences, again and again, so that the model is busy for longer than we measure."""
    sentences = json.loads((NANO / "nano" / "sentences.json").read_text())
    spoken = [item["file"] for item in sentences if item["file"].endswith(".wav") and item["language"] == "en"]
    with wave.open(str(path), "wb") as lecture:
        lecture.setparams((1, BYTES_A_SAMPLE, SAMPLE_RATE, 0, "NONE", ""))
        while lecture.tell() < minutes * 60 * SAMPLE_RATE:
            for name in spoken:
                with wave.open(str(NANO / "nano" / name)) as sentence:
                    lecture.writeframes(sentence.readframes(sentence.getnframes()) + bytes(BYTES_A_SECOND))
    return path


def compressed(path: Path) -> Path:
    """The recording as Opus: a few megabytes an hour."""
    small = path.with_suffix(".ogg")
    encoding = ("-c:a", "libopus", "-b:a", "12k")
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), *encoding, str(small)], check=True)
    return small


async def measure(server: Server, jobs: list[str], following: Clients, clients: int, seconds: float) -> None:
    """Measure the web process and the dashboard before clients wait, while they wait, and when they are gone."""
    (pid,) = [pid for pid, _parent, words in processes() if "uvicorn" in words and f"--port {server.port}" in words]
    print(f"{'':18}{'CPU, %':>8}{'dashboard':>12}{'slowest':>10}{'threads':>8}{'MB':>8}{'db files':>10}{'events':>10}")
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as person:
        await _sign_in(person)
        await _look(person, pid, "nobody waits", seconds, following)
        began = time.monotonic()
        async with following.following(clients):
            print(f"  all of them wait after {time.monotonic() - began:.1f} s")
            met = await _look(person, pid, f"{clients} wait", seconds, following)
        await asyncio.sleep(2)
        await _look(person, pid, "all have left", seconds / 2, following)
    status = server.job(jobs[0])["status"]
    assert status == "transcribing", f"The job was {status} before the end: take a longer recording."
    print(f"\nThe aim, a dashboard within {AIM:g} s, is {'met' if met <= AIM else 'MISSED'}.")


async def _sign_in(person: httpx.AsyncClient) -> None:
    await person.get("/login/")
    form = {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": person.cookies["csrftoken"]}
    answer = await person.post("/login/", data=form)
    assert answer.status_code == 302, answer.status_code


async def _look(person: httpx.AsyncClient, pid: int, name: str, seconds: float, clients: Clients) -> float:
    """Request the dashboard for so many seconds, print a line, and return the median of the dashboard's seconds."""
    before, events, times = Usage.of(pid), clients.events, []
    while time.monotonic() < before.at + seconds:
        began = time.monotonic()
        (await person.get("/")).raise_for_status()
        times.append(time.monotonic() - began)
        await asyncio.sleep(DASHBOARD_SECONDS)
    Usage.of(pid).show(name, before, times, clients.events - events)
    return statistics.median(times)


if __name__ == "__main__":
    main()
