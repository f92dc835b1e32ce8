"""What the tests share: a cast, rows, and which programs of this machine they need."""

import json
import os
import random
import shutil
import subprocess
import wave
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import connection, connections
from pytest_django import DjangoDbBlocker

from tests import postgres, speech
from tests.server import MODELS, NANO, Server
from transcription.models import Job, Recording, Worker
from transcription.queue import forecast
from transcription.whisper.convert import ctranslate2_to_mlx
from transcription.whisper.options import TranscriptionOptions

# What some tests need of the machine, and the line that installs it.
PROGRAMS = {
    "ffmpeg": "apt-get install ffmpeg",
    "ffprobe": "apt-get install ffmpeg",
    "espeak-ng": "apt-get install espeak-ng",
    "chromium": "apt-get install chromium",
    "xgettext": "apt-get install gettext",
    "openssl": "apt-get install openssl",
    "speech prompts": "apt-get install asterisk-core-sounds-{ru,en}-g722 asterisk-core-sounds-{ru,en}",
    "faketime": "apt-get install faketime",
    "nginx": "apt-get install nginx-light",
    "caddy": "apt-get install caddy",
    "strace": "apt-get install strace, where one program may watch another (ptrace)",
    "weights of base": "make run (it fetches them once)",
    "mlx-whisper": "pip install --no-deps -r requirements-mlx-linux.txt (glibc 2.35 or newer)",
}


# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("stenograf", deadline=None)
hypothesis.settings.load_profile("stenograf")


def is_here(program: str) -> bool:
    if program == "speech prompts":
        return speech.is_here()
    if program == "strace":
        return _can_trace()
    if program == "mlx-whisper":
        return find_spec("mlx_whisper") is not None
    return shutil.which(program) is not None


@cache
def _can_trace() -> bool:
    """A container may have strace and forbid it to look."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


# Real servers. With several processes the tests of one run in one of them; only `nano_server`, which most tests use, is
# started in each that has tests of it.
SERVERS = ("compat_server", "mlx_server", "base_server", "nano_server", "server", "spare_server")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: minutes of work, left out unless SLOW is set")
    config.addinivalue_line(
        "markers", "heavy: starts servers, browsers or models, or takes long; left out of `make quick`"
    )
    config.addinivalue_line("markers", "two_machines: on PostgreSQL and Redis alone (`make test-scale`)")
    config.addinivalue_line("markers", "sqlite: about an SQLite file itself")
    config.addinivalue_line("markers", "needs(*programs): skipped, and named at the end, where one is missing")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Leave the slow ones out of `make test`; `make test SLOW=1` and `.ci/run` have them in."""
    left_out = set() if os.environ.get("SLOW") else {"slow"}
    if not (postgres.IS_ASKED_FOR and os.environ.get("CELERY_BROKER_URL", "").startswith("redis")):
        left_out.add("two_machines")
    if postgres.IS_ASKED_FOR:
        left_out.add("sqlite")
    deselected = [item for item in items if any(map(item.get_closest_marker, left_out))]
    items[:] = [item for item in items if item not in deselected]
    config.hook.pytest_deselected(items=deselected)
    weights: dict[str, int] = {}
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
        if _server(item) or item.get_closest_marker("needs") or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.heavy)
        weights[group] = min(_weight(item), weights.get(group, 9))
    yield
    # What takes longest begins first: then the processes end together.
    items.sort(key=lambda item: weights[groups[item]])


def _weight(item: pytest.Item) -> int:
    if item.get_closest_marker("slow"):
        return 0
    if _server(item):
        return 1
    return 2 if item.get_closest_marker("heavy") else 3


def _group(item: pytest.Item) -> str:
    """What runs in one process, one after another: the tests of a server, or of a module."""
    return server if (server := _server(item)) in SERVERS[:3] else item.nodeid.partition("::")[0]


def _server(item: pytest.Item) -> str:
    fixtures = getattr(item, "fixturenames", ())
    return next((server for server in SERVERS if server in fixtures), "")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            if not is_here(program):
                pytest.skip(f"needs {program}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = {
        report.longrepr[2].removeprefix("Skipped: needs ") for report in terminalreporter.stats.get("skipped", [])
    }
    if missing := sorted(reasons & PROGRAMS.keys()):
        terminalreporter.section("not tested here")
        for program in missing:
            terminalreporter.line(f"{program} is missing; to install it: {PROGRAMS[program]}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where everything is installed (`.ci/run`) a skipped test is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("NOTHING_SKIPPED") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _fresh_forecast() -> None:
    """None of what another test's queue promised."""
    forecast.forget()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The tests' database, that no thread of a test has a connection to when it is removed."""
    yield
    if postgres.IS_ASKED_FOR:
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(postgres.END_CONNECTIONS)


@pytest.fixture(autouse=True)
def _nobody_closes_the_connection_of_a_tests_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test has stored would be lost with it, where the database is not one in memory, which cannot be closed."""
    wrapper = type(connections["default"])
    close = wrapper.close
    monkeypatch.setattr(wrapper, "close", lambda self: None if self.in_atomic_block else close(self))


@pytest.fixture
def alice(db: None) -> User:
    return get_user_model().objects.create_user("alice", password="correct horse")


@pytest.fixture
def bob(db: None) -> User:
    return get_user_model().objects.create_user("bob", password="battery staple")


@pytest.fixture
def worker(db: None) -> Worker:
    return Worker.objects.create(kind="device", queue="device.cpu", device="cpu", hostname="elsewhere", pid=1)


@pytest.fixture
def job(alice: User) -> Job:
    """Alice's queued job, without a file."""
    recording = Recording.objects.create(owner=alice, original_name="talk.ogg", bytes=9, sha256="0" * 64)
    options = TranscriptionOptions().to_json()
    return Job.objects.create(owner=alice, recording=recording, name="talk.ogg", model="nano", options=options)


@pytest.fixture(scope="session")
def running() -> Iterator[list[Server]]:
    """The servers of the whole session, which are stopped together: each takes some seconds."""
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.ask_to_stop()
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def nano_server(tmp_path_factory: pytest.TempPathFactory, running: list[Server]) -> Server:
    """A real server whose model is the tests' own."""
    data = tmp_path_factory.mktemp("nano") / "data"
    # It may send to loopback, and tries again soon.
    webhooks = {"WEBHOOK_ALLOWED_HOSTS": "127.0.0.1", "WEBHOOK_TRIES_SECONDS": "0,0,1", "WEBHOOK_TIMEOUT_SECONDS": "5"}
    server = Server(data, NANO, DEFAULT_MODEL="nano", SWEEP_SECONDS="1", **webhooks)
    running.append(server)
    server.start()
    return server


@pytest.fixture(scope="session")
def compat_server(tmp_path_factory: pytest.TempPathFactory, running: list[Server]) -> Server:
    """A real server that lets neighbours in without a key; the tests' model stands there under several names.

    `broken` is a model whose weights are no weights.
    """
    folder = tmp_path_factory.mktemp("compat")
    models = folder / "models"
    (models / "faster-whisper-broken").mkdir(parents=True)
    for name in ("nano", "base", "turbo"):
        (models / f"faster-whisper-{name}").symlink_to(NANO / "faster-whisper-nano")
    for file in (NANO / "faster-whisper-nano").iterdir():
        content = b"no weights" if file.name == "model.bin" else file.read_bytes()
        (models / "faster-whisper-broken" / file.name).write_bytes(content)
    server = Server(folder / "data", models, DEFAULT_MODEL="nano", ENGINE="faster-whisper", LEGACY_ANONYMOUS="true")
    running.append(server)
    server.start()
    return server


@pytest.fixture(scope="session")
def base_weights() -> Path:
    """The models folder with real `base` in it, fetched the way `make run` does."""
    weights = MODELS / "faster-whisper-base" / "model.bin"
    if not weights.exists():
        program = "from transcription.weights import store; store.fetch('base', 'faster-whisper', on_progress=print)"
        fetching = Server(MODELS.parent / "data", MODELS).manage("shell", "-v", "0", "-c", program)
        if fetching.returncode:
            print(fetching.stderr)
    if not weights.exists():
        pytest.skip("needs weights of base")
    return MODELS


@pytest.fixture(scope="session")
def mlx_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder that holds the tests' own model as mlx-whisper wants it."""
    folder = tmp_path_factory.mktemp("mlx-models")
    ctranslate2_to_mlx(NANO / "faster-whisper-nano", folder / "whisper-nano")
    return folder


@pytest.fixture(scope="session")
def mlx_server(tmp_path_factory: pytest.TempPathFactory, running: list[Server], mlx_models: Path) -> Server:
    """A real server whose engine is mlx-whisper, on MLX's CPU build where there is no Apple GPU."""
    data = tmp_path_factory.mktemp("mlx") / "data"
    server = Server(data, mlx_models, DEFAULT_MODEL="nano", ENGINE="mlx-whisper", MODEL_DEVICE="cpu")
    running.append(server)
    server.start()
    return server


@pytest.fixture(scope="session")
def base_server(tmp_path_factory: pytest.TempPathFactory, running: list[Server], base_weights: Path) -> Server:
    """A server with real Whisper `base`, as a person starts it the first time."""
    server = Server(tmp_path_factory.mktemp("base") / "data", base_weights, DEFAULT_MODEL="auto", LANG="en_US.UTF-8")
    running.append(server)
    server.start()
    return server


@pytest.fixture(scope="session")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute and a half of the tests' own sentences with pauses: some seconds of work for their model."""
    return _joined(tmp_path_factory.mktemp("long") / "long.wav", seconds=90)


@pytest.fixture(scope="session")
def lecture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six minutes of them: several sections."""
    return _joined(tmp_path_factory.mktemp("lecture") / "lecture.wav", seconds=360)


def _joined(path: Path, *, seconds: int) -> Path:
    order = random.Random(8)
    sentences = json.loads((NANO / "nano" / "sentences.json").read_text())
    spoken = [item["file"] for item in sentences if item["file"].endswith(".wav") and item["language"] == "en"]
    with wave.open(str(path), "wb") as joined:
        joined.setnchannels(1)
        joined.setsampwidth(2)
        joined.setframerate(16000)
        while joined.tell() < seconds * 16000:
            with wave.open(str(NANO / "nano" / order.choice(spoken))) as sentence:
                joined.writeframes(sentence.readframes(sentence.getnframes()))
            joined.writeframes(bytes(2 * int(16000 * order.uniform(0.5, 2.5))))
    return path
