"""A real server: `manage.py serve` with its workers and runner, over a data folder of its own, on loopback.

Where DATABASE_URL names a PostgreSQL, each has a database of its own there, and with it its own wake-ups in Redis.
"""

import atexit
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests import postgres

ROOT = Path(__file__).parent.parent
NANO = ROOT / "tests" / "data"  # a models folder that holds the tests' own model, and its recordings
MODELS = ROOT / "models"
T = TypeVar("T")
# What lets the tests' model decode a long recording three times as fast, where nobody looks at each word.
QUICKLY = {"language": "en", "beam_size": "1", "temperature": "[0]"}
PASSWORD = "correct horse battery staple"
PREPARE = """
from django.core.management import call_command
from transcription.management.commands import serve
call_command("migrate", verbosity=0)
serve.Command().collect_static_files()
"""


def wait_until(look: Callable[[], T], seconds: float = 30.0) -> T:
    """The first true answer of `look`; an AssertionError when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (answer := look()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        time.sleep(0.1)
    return answer


def free_port() -> int:
    """A port that nobody listens on, below those that systems give to clients, so that none of them takes it first."""
    while True:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


class Server:
    """Started by `start`, ended by `stop`; everything it writes is under `data`."""

    def __init__(self, data: Path, models: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = data
        self.environment = {
            **os.environ,
            "DATA_DIR": str(data),
            "MODEL_DOWNLOAD_ROOT": str(models),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "SWEEP_SECONDS": "2",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            **({"DATABASE_URL": postgres.new_database()} if postgres.IS_ASKED_FOR else {}),
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.token = ""

    def manage(self, *arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run a management command over this server's data."""
        program = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            program, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=180, check=False, **kwargs
        )

    def prepare(self) -> None:
        """Make what each first start makes the same: empty tables and the static files."""
        database = self.environment.get("DATABASE_URL", "")
        prepared = _prepared(is_on_postgresql=bool(database))
        self.data.mkdir(parents=True)
        shutil.copytree(prepared.data / "static", self.data / "static")
        if database:
            postgres.copy(prepared.environment["DATABASE_URL"], database)
        else:
            shutil.copy(prepared.data / "stenograf.sqlite3", self.data)

    @property
    def log(self) -> Path:
        return self.data.parent / f"{self.data.name}.log"

    def start(self) -> None:
        if not self.data.exists():
            self.prepare()
        with self.log.open("ab") as log:
            program = [sys.executable, "manage.py", "serve"]
            self.process = subprocess.Popen(program, cwd=ROOT, env=self.environment, stdout=log, stderr=log)
        wait_until(self.is_healthy, 120)
        keys = self.data / "keys.txt"
        self.token = keys.read_text().strip() if keys.exists() else ""  # another machine's first start has made it

    def is_healthy(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            return httpx.get(f"{self.url}/health", timeout=5, verify=False).status_code == 200
        except httpx.TransportError:
            return False

    def ask_to_stop(self) -> None:
        """Ctrl-C, as a person would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)

    def stop(self) -> None:
        """Ask, and wait until it has ended."""
        if self.process is None:
            return
        self.ask_to_stop()
        try:
            self.process.wait(40)
        finally:
            self.process.kill()
            self.process = None

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Token {self.token}"}
        # Unverified: to read the certificates that plain HTTP never looks at takes longer than most requests.
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, verify=False)

    def submit(self, path: Path, **parameters: str) -> dict[str, Any]:
        """Post a recording to the native API; return the job."""
        with self.client() as client, path.open("rb") as file:
            answer = client.post("/api/v1/jobs/", files={"file": (path.name, file)}, data=parameters)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def job(self, job_id: str) -> dict[str, Any]:
        with self.client() as client:
            answer = client.get(f"/api/v1/jobs/{job_id}/")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, job_id: str, seconds: float = 120.0) -> dict[str, Any]:
        """The job when it has ended."""

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["status"] in ("done", "failed", "cancelled") else None

        ended = wait_until(look, seconds)
        assert ended is not None
        return ended

    def transcribe(self, path: Path, **parameters: str) -> dict[str, Any]:
        return self.wait(self.submit(path, **parameters)["id"])

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database itself, past every endpoint; ids are hexadecimal, as SQLite has them."""
        if (url := self.environment.get("DATABASE_URL", "")).startswith("postgres"):
            return postgres.rows(url, query, *values)
        address = f"file:{self.data / 'stenograf.sqlite3'}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=30)) as database:
            return database.execute(query, values).fetchall()

    def segments(self, job_id: str) -> list[tuple[float, float, str, int]]:
        """(start, end, text, id) of what is stored of a job's transcript, in the order of its sections."""
        query = """
            SELECT segment.start, segment.end, segment.text, segment.id FROM transcription_segment AS segment
            JOIN transcription_section AS section ON section.id = section_id
            WHERE segment.job_id = ? ORDER BY section."index", segment."index"
        """
        return self.rows(query, job_id.replace("-", ""))

    def worker_pid(self, queue: str) -> int:
        """The process id of the worker of a queue that was heard of last."""
        found = self.rows("SELECT pid FROM transcription_worker WHERE queue = ? ORDER BY started_at DESC", queue)
        assert found, f"no worker of {queue}"
        return int(found[0][0])

    def runner_pid(self) -> int:
        """The process id of the runner below the device worker, or 0."""
        parent = self.worker_pid("device.cpu")
        return next((pid for pid, its_parent, words in processes() if its_parent == parent and "runner" in words), 0)


@cache
def _prepared(*, is_on_postgresql: bool) -> Server:
    """A server that has its tables and static files, and is never started."""
    data = Path(tempfile.mkdtemp(prefix="stenograf-prepared-"))
    atexit.register(shutil.rmtree, data, ignore_errors=True)
    server = Server(data, NANO) if is_on_postgresql else Server(data, NANO, DATABASE_URL="")
    ran = server.manage("shell", "-v", "0", "-c", PREPARE)
    assert ran.returncode == 0, ran.stderr
    return server


def processes() -> list[tuple[int, int, str]]:
    """(pid, parent's pid, command line) of every process of this machine."""
    listing = subprocess.run(
        ["ps", "-axww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"^\s*(\d+)\s+(\d+)\s+(.*)$", listing, re.MULTILINE)
    return [(int(pid), int(parent), words) for pid, parent, words in found]


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
