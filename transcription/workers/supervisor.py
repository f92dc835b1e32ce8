"""One process tree: the web server and the workers as children, restarted when they crash, stopped together."""

import logging
import logging.handlers
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from django.conf import settings

from transcription import processes
from transcription.queue import wakeups
from transcription.workers import process

STOP_SECONDS = 25  # for the parts to end before they are killed
STEADY_SECONDS = 60  # a part that has run this long starts again after the shortest pause
FIRST_PAUSE, LAST_PAUSE = 0.5, 30.0


class Part:
    """One child program, restarted after growing pauses, with its output in a log of its own."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        self.name = name
        self.arguments = [sys.executable, *arguments]
        self.child: subprocess.Popen[bytes] | None = None
        self.log = _log(name)
        self.pause = FIRST_PAUSE
        self.starts_at = 0.0
        self.started_at = 0.0

    def start(self) -> None:
        environment = {**os.environ, "SUPERVISOR_PID": str(os.getpid()), "PYTHONPATH": str(settings.BASE_DIR)}
        self.child = processes.start(
            self.arguments, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.started_at = time.monotonic()
        assert self.child.stdout is not None  # noqa: S101
        threading.Thread(target=self._keep_output, args=(self.child.stdout,), daemon=True).start()

    def _keep_output(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                self.log.info(line.decode(errors="replace").rstrip())

    def check(self) -> None:
        """Start the part if it is time, and notice when it has ended."""
        if self.child is None:
            if time.monotonic() >= self.starts_at:
                self.start()
        elif self.child.poll() is not None:
            if time.monotonic() - self.started_at > STEADY_SECONDS:
                self.pause = FIRST_PAUSE
            self.log.warning(
                "%s ended with %s and starts again in %.1f s", self.name, self.child.returncode, self.pause
            )
            self.starts_at = time.monotonic() + self.pause
            self.pause = min(LAST_PAUSE, self.pause * 2)
            self.child = None

    def signal(self, number: int) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)

    def is_over(self) -> bool:
        return self.child is None or self.child.poll() is not None


def _log(name: str) -> logging.Logger:
    """The part's log, in DATA_DIR/logs/<name>.log and on the terminal. It may rotate: only this process writes it."""
    log = logging.getLogger(f"stenograf.{name}")
    if not log.handlers:
        path = Path(settings.LOGS_DIR) / f"{name}.log"
        log.addHandler(logging.handlers.RotatingFileHandler(path, maxBytes=5 * 1024**2, backupCount=3))
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(logging.Formatter(f"{name:8} | %(message)s"))
        log.addHandler(terminal)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log


class Supervisor:
    """Keeps the parts running until a signal stops it."""

    def __init__(self, devices: list[str]) -> None:
        self.stopping = threading.Event()
        self.parts = [
            Part("web", _web()),
            Part("default", _worker(wakeups.DEFAULT_QUEUE, concurrency=process.DEFAULT_THREADS)),
            *(Part(device, _worker(wakeups.DEVICE_QUEUE_PREFIX + device, concurrency=1)) for device in devices),
        ]

    def run(self) -> None:
        """Start all parts, and restart those that end, until stopped; return when all have ended."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, lambda *_: self.stopping.set())
        try:
            while not self.stopping.is_set():
                for part in self.parts:
                    part.check()
                self.stopping.wait(0.2)
        finally:
            self.stop()

    def stop(self) -> None:
        """Ask all parts to end, and kill those that do not."""
        deadline = time.monotonic() + STOP_SECONDS
        for part in self.parts:
            part.signal(signal.SIGTERM)
        while time.monotonic() < deadline and not all(part.is_over() for part in self.parts):
            time.sleep(0.05)
        for part in self.parts:
            part.signal(signal.SIGKILL)


def _web() -> list[str]:
    limits = ["--timeout-graceful-shutdown", "5", "--timeout-keep-alive", "15"]
    # No access log at any level: an address at /asr may contain a key.
    quiet = ["--log-level", "warning", "--no-access-log", "--no-server-header"]
    address = ["--host", settings.HOST, "--port", str(settings.PORT)]
    # What a proxy says is read by the gate, which knows TRUSTED_PROXIES.
    as_it_comes = ["--no-proxy-headers", "--lifespan", "on"]
    return ["-m", "uvicorn", "config.asgi:application", *address, *as_it_comes, *limits, *quiet]


def _worker(queue_name: str, *, concurrency: int) -> list[str]:
    """The command of a Celery worker. It uses threads, never prefork: Metal and fork do not go together."""
    pool = ["--pool", "threads", "--concurrency", str(concurrency)]
    quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    # Celery warns root about pickled messages; ours are JSON only.
    silence = ["-W", "ignore:You're running the worker with superuser privileges"]
    return [
        *silence,
        "-m",
        "celery",
        "--quiet",
        "-A",
        "config",
        "worker",
        "-Q",
        queue_name,
        "-n",
        f"{queue_name}@%h",
        *pool,
        *quiet,
    ]


def is_port_free(host: str, port: int) -> bool:
    """Whether the server can listen there; checked first, since one that cannot would be restarted for ever."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
