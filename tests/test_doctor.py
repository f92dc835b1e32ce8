"""What `manage.py doctor` finds: nothing in a healthy installation, and each break by its name."""

import json
import re
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.conf import settings as project

from tests.server import NANO, Server
from transcription import doctor
from transcription.models import Job, Worker
from transcription.outbound.addresses import Address
from transcription.workers import devices, enginecheck

Findings = list[dict[str, str]]


def the_doctor_says(server: Server, *questions: str) -> tuple[int, Findings]:
    """The exit status and the findings of a real run."""
    ran = server.manage("doctor", "--json", *questions)
    assert "Traceback" not in ran.stderr, ran.stderr
    told = json.loads(ran.stdout)
    assert told["ok"] == (ran.returncode == 0)
    return ran.returncode, told["findings"]


def found(*questions: str) -> list[tuple[str, str]]:
    """(state, sentence) of what is found in this process."""
    return [(finding.state.value, finding.sentence) for _, finding in doctor.examine(questions)]


@pytest.fixture(scope="module")
def _installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of an installation that was started once."""
    server = Server(
        tmp_path_factory.mktemp("installation") / "data",
        NANO,
        DEFAULT_MODEL="nano",
        DATABASE_URL="",
        CELERY_BROKER_URL="files://",
    )
    server.prepare()
    ran = server.manage("createsuperuser", "--noinput", "--username", "admin", "--email", "a@example.org")
    assert ran.returncode == 0, ran.stderr
    (server.data / "recordings").mkdir()
    server.data.chmod(0o700)
    return server.data


@pytest.fixture
def server(_installation: Path, tmp_path: Path) -> Server:
    """Such an installation, to be broken; its server does not run."""
    shutil.copytree(_installation, tmp_path / "data")
    shutil.copytree(NANO / "faster-whisper-nano", tmp_path / "models" / "faster-whisper-nano")
    on_this_machine = {"DATABASE_URL": "", "CELERY_BROKER_URL": "files://"}
    return Server(tmp_path / "data", tmp_path / "models", DEFAULT_MODEL="nano", **on_this_machine)


# ---------------------------------------------------------------- healthy


def test_in_a_healthy_installation_nothing_is_wrong(server: Server) -> None:
    status, findings = the_doctor_says(server)
    assert status == 0, findings
    assert {finding["question"] for finding in findings} == doctor.QUESTIONS.keys()
    assert [finding["said"].partition(":")[0] for finding in findings if finding["question"] == "server"] == [
        "The server does not run at http"
    ]


def test_a_running_server_is_healthy_too(nano_server: Server) -> None:
    status, findings = the_doctor_says(nano_server)
    assert status == 0, findings
    said = {finding["question"]: finding["said"] for finding in findings}
    assert f"The server at http://localhost:{nano_server.port} is healthy" in said["server"]
    assert "device.cpu@" in said["workers"]


def test_a_person_gets_a_line_each(server: Server) -> None:
    server.data.chmod(0o755)
    ran = server.manage("doctor", "folders", "space")
    wrong, well = ran.stdout.splitlines()
    assert wrong == f"✗ Others on this machine may look into {server.data}: chmod 700 {server.data}"
    assert well.startswith("✓ ")
    assert ran.returncode == 1


def test_a_question_that_is_none_is_refused_with_those_that_are(server: Server) -> None:
    ran = server.manage("doctor", "weather")
    assert ran.returncode == 1
    assert "There is no weather. Ask for python, settings, " in ran.stderr


# ---------------------------------------------------------------- broken on disk


def change(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connected:
        connected.execute(statement)
        connected.commit()


def spoil(database: Path) -> None:
    """Overwrite some pages in the middle."""
    size = database.stat().st_size
    with database.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xa5" * (size // 4))


def a_base_model(server: Server) -> None:
    server.environment["DEFAULT_MODEL"] = "base"
    folder = Path(server.environment["MODEL_DOWNLOAD_ROOT"]) / "faster-whisper-base"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"cut off")


def a_fake_ffmpeg(server: Server, script: str) -> None:
    program = server.data.parent / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    server.environment["PATH"] = f"{program.parent}:{server.environment['PATH']}"


def database_of(server: Server) -> Path:
    return server.data / "stenograf.sqlite3"


BREAKS: list[tuple[str, Callable[[Server], object], str]] = [
    (
        "settings",
        lambda server: server.environment.update(DEFAULT_MODEL="enormous"),
        "There is no model named enormous",
    ),
    ("ffmpeg", lambda server: a_fake_ffmpeg(server, "exit 127"), "There is no FFmpeg that runs: install it"),
    ("ffmpeg", lambda server: a_fake_ffmpeg(server, "exit 1"), "bin/ffmpeg cannot read the bundled sample"),
    ("devices", lambda server: server.environment.update(MODEL_DEVICE="cuda:7"), "MODEL_DEVICE is cuda:7, but this"),
    ("models", lambda server: shutil.rmtree(server.environment["MODEL_DOWNLOAD_ROOT"]), "There are no models in"),
    ("models", lambda server: server.environment.update(DEFAULT_MODEL="enormous"), "There is no model named enormous"),
    ("models", lambda server: server.environment.update(DEFAULT_MODEL="base"), "The model base is not on this machine"),
    ("models", a_base_model, "model.bin has 7 bytes of 145217532"),
    ("models", a_base_model, "tokenizer.json is missing"),
    ("folders", lambda server: server.data.chmod(0o750), "chmod 700"),
    ("folders", lambda server: (server.data / "uploads").touch(), "uploads cannot be written to (Not a directory)"),
    ("space", lambda server: server.environment.update(FREE_SPACE_RESERVE_BYTES="9" * 17), "FREE_SPACE_RESERVE_BYTES"),
    ("static", lambda server: shutil.rmtree(server.data / "static"), "collectstatic"),
    ("static", lambda server: (server.data / "static" / "mark.svg").write_text("old"), "such as mark.svg"),
    ("static", lambda server: (server.data / "static" / "staticfiles.json").unlink(), "collectstatic"),
    ("database", lambda server: database_of(server).unlink(), "There is no database at"),
    ("database", lambda server: database_of(server).write_bytes(b"No database. " * 999), "file is not a database"),
    ("database", lambda server: spoil(database_of(server)), "put your last backup in its place"),
    (
        "database",
        lambda server: change(database_of(server), "DELETE FROM django_migrations WHERE app = 'transcription'"),
        "Migrations that the database lacks: ",
    ),
    (
        "administrator",
        lambda server: change(database_of(server), "UPDATE auth_user SET is_active = 0"),
        "manage.py createsuperuser",
    ),
]


@pytest.mark.parametrize(("question", "break_it", "said"), BREAKS)
def test_what_is_broken_is_found(
    server: Server, question: str, break_it: Callable[[Server], object], said: str
) -> None:
    break_it(server)
    status, findings = the_doctor_says(server, question)
    assert status == 1
    assert [said in finding["said"] for finding in findings if finding["state"] == "wrong"].count(True) == 1, findings


def test_without_a_database_nothing_is_asked_of_it(server: Server) -> None:
    database_of(server).unlink()
    _, findings = the_doctor_says(server, "database", "administrator", "workers", "jobs", "broker")
    assert [finding["question"] for finding in findings] == ["database"]
    assert not database_of(server).exists()


# ---------------------------------------------------------------- broken in this process


def test_an_old_python_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 1))
    ((state, said),) = found("python")
    assert state == "wrong"
    assert "with 99.1 or newer" in said


@pytest.mark.parametrize(
    ("module", "reason"), [("no_such_engine", "No module named 'no_such_engine'"), ("os; os.abort()", "ended with -6")]
)
def test_an_engine_that_cannot_be_loaded_is_wrong(monkeypatch: pytest.MonkeyPatch, module: str, reason: str) -> None:
    broken = replace(devices.engine(), module=module)
    monkeypatch.setattr(devices, "engine", lambda: broken)
    ((state, said),) = found("engine")
    assert state == "wrong"
    assert reason in said
    assert "pip install" in said


def test_an_engine_that_was_set_aside_is_wrong(settings: LazySettings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    engine = devices.engine()
    enginecheck.remember(enginecheck.crashed(engine, "cpu", "base", problem="it crashed on the sample"))
    (_, loaded), (state, said) = found("engine")
    assert loaded == f"The engine {engine.name} can be loaded"
    assert state == "wrong"
    assert "is set aside (cpu: it crashed on the sample)" in said


@pytest.mark.parametrize("spoiled", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:99])])
def test_sentences_that_are_not_compiled_are_wrong(
    settings: LazySettings, tmp_path: Path, spoiled: Callable[[Path], object]
) -> None:
    shutil.copytree(project.BASE_DIR / "locale", tmp_path / "locale")
    settings.LOCALE_PATHS = [tmp_path / "locale"]
    assert found("languages") == [("well", "The pages have their sentences in ru")]
    spoiled(tmp_path / "locale" / "ru" / "LC_MESSAGES" / "django.mo")
    ((state, said),) = found("languages")
    assert state == "wrong"
    assert "compilemessages" in said


@pytest.mark.parametrize(("zone", "state"), [("UTC", "note"), ("Europe/Moscow", "well")])
def test_a_time_zone_that_may_not_be_meant_is_worth_a_note(settings: LazySettings, zone: str, state: str) -> None:
    settings.TIME_ZONE = zone
    ((found_state, said),) = found("time_zone")
    assert found_state == state
    assert zone in said


def test_what_is_kept_is_told(settings: LazySettings) -> None:
    settings.RETENTION_DAYS_AUDIO = 30
    assert found("retention") == [
        ("well", "After a job has ended its sound is kept for 30 days, and its text for good")
    ]


@pytest.mark.sqlite
def test_a_locked_database_is_wrong(settings: LazySettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "stenograf.sqlite3"
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.1)
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", str(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ((state, said),) = found("database")
    assert state == "wrong"
    assert f"lsof {path}" in said


def test_a_question_that_cannot_be_asked_is_wrong_and_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def fall_ill(folder: object) -> object:
        raise OSError("Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", fall_ill)
    assert [state for state, _ in found("space", "python")] == ["wrong", "well"]


# ---------------------------------------------------------------- the server


@pytest.fixture
def answering(settings: LazySettings) -> Iterator[Callable[..., None]]:
    """Have something answer at our address, with a status, a body and headers."""
    servers: list[HTTPServer] = []

    def answer(status: int, body: bytes, *headers: tuple[str, str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Nothing of it belongs into the tests' output."""

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        settings.HOST, settings.PORT = "127.0.0.1", servers[-1].server_port
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()

    yield answer
    for server in servers:
        server.shutdown()
        server.server_close()


UNWELL = {"status": "unhealthy", "ok": False, "error": "Recordings wait now."}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, json.dumps(UNWELL).encode(), "says: Recordings wait now."),
        (200, b"<html>It works!</html>", "is not Stenograf: stop it, or set PORT."),
        (404, b'{"detail": "nothing here"}', "is not Stenograf: stop it, or set PORT."),
        (500, b"", "is not Stenograf: stop it, or set PORT."),
    ],
)
def test_what_the_server_says_is_told(
    answering: Callable[[int, bytes], None], status: int, body: bytes, expected: str
) -> None:
    answering(status, body)
    ((state, said),) = found("server")
    assert state == "wrong"
    assert expected in said


# ---------------------------------------------------------------- the public address


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (200, [], b"<html>It works!</html>", "is not Stenograf (status 200)"),
        (404, [], b'["nothing"]', "is not Stenograf (status 404)"),
        (502, [], b"<html>Bad Gateway</html>", "does not reach this server (status 502)"),
        (301, [("Location", "https://example.org/health")], b"", "leads on to https://example.org/health"),
        (400, [], b'{"error": "Set PUBLIC_URL to its address"}', "does not pass on the name localhost:"),
        (200, [], json.dumps({"ok": True}).encode(), "Another Stenograf answers at"),
    ],
)
def test_what_answers_at_the_public_address_is_told(
    settings: LazySettings,
    answering: Callable[..., None],
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    expected: str,
) -> None:
    answering(status, body, *headers)
    settings.PUBLIC_ADDRESS = Address("http", "localhost", settings.PORT, "")
    answering(200, b'{"ok": true}')
    ((state, said),) = found("public_address")
    assert state == "wrong"
    assert expected in said


@pytest.mark.parametrize(
    ("public", "expected"),
    [
        (Address("https", "localhost", 0, ""), "does not speak HTTPS"),
        (Address("http", "stenograf.invalid", 80, ""), "leads nowhere"),
        (Address("http", "127.0.0.1", 9, ""), "cannot be reached (Connection refused)"),
    ],
)
def test_what_cannot_be_asked_by_the_public_address_is_wrong(
    settings: LazySettings, answering: Callable[..., None], public: Address, expected: str
) -> None:
    answering(200, b'{"ok": true}')
    settings.PUBLIC_ADDRESS = replace(public, port=public.port or settings.PORT)
    ((state, said),) = found("public_address")
    assert state == "wrong"
    assert expected in said


@pytest.mark.parametrize("drips", [True, False])
def test_a_public_address_that_does_not_answer_is_not_waited_for(
    settings: LazySettings, answering: Callable[..., None], monkeypatch: pytest.MonkeyPatch, drips: bool
) -> None:
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.5)

    def speak() -> None:
        accepted, _ = listening.accept()
        with accepted:
            while not closing_time.wait(0.05):
                if drips:
                    accepted.sendall(b"HTTP/1.1 200 OK\r\n"[:1])

    answering(200, b'{"ok": true}')
    closing_time = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings.PUBLIC_ADDRESS = Address("http", "127.0.0.1", listening.getsockname()[1], "")
        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        ((state, said),) = found("public_address")
        closing_time.set()
        thread.join(5)
    assert state == "wrong"
    assert "has not answered within 0.5 s" in said


SEEN = {
    "scheme": "https",
    "host": "example.org",
    "client": "192.168.1.7",
    "proxy": "127.0.0.1",
    "is_proxy_known": True,
    "has_passed_a_proxy": True,
}


@pytest.mark.parametrize(
    ("differs", "expected"),
    [
        ({}, ["this machine is 192.168.1.7 there"]),
        ({"host": "127.0.0.1:8801"}, ["The server is asked as 127.0.0.1:8801 instead of example.org"]),
        ({"scheme": "http"}, ["the proxy says that it was http"]),
        ({"is_proxy_known": False, "proxy": "172.18.0.2"}, ["172.18.0.2, is not in TRUSTED_PROXIES"]),
        (
            {"is_proxy_known": False, "proxy": "172.18.0.2", "client": "172.18.0.2", "has_passed_a_proxy": False},
            ["add 172.18.0.2 to TRUSTED_PROXIES"],
        ),
        ({"client": "127.0.0.1", "has_passed_a_proxy": False}, ["Have it send X-Forwarded-For"]),
    ],
)
def test_what_the_proxy_changes_on_the_way_is_told(
    settings: LazySettings, answering: Callable[..., None], differs: dict[str, Any], expected: list[str]
) -> None:
    answering(200, b'{"ok": true}')
    public = Address("https", "example.org", 443, "")
    said = [finding.sentence for finding in doctor.findings_in_request(public, {**SEEN, **differs})]
    assert [words in sentence for words, sentence in zip(expected, said, strict=True)] == [True] * len(expected), said


@pytest.mark.parametrize(("words", "expected"), [(None, "does not answer"), (b"220 mail\r\n", "is not Stenograf")])
def test_what_does_not_speak_http_is_not_waited_for(
    settings: LazySettings, monkeypatch: pytest.MonkeyPatch, words: bytes | None, expected: str
) -> None:
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 0.5)

    def speak() -> None:
        accepted, _ = listening.accept()
        with accepted:
            if words is not None:
                accepted.sendall(words)
            accepted.recv(1)
            closing_time.wait(5)

    closing_time = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings.HOST, settings.PORT = listening.getsockname()
        threading.Thread(target=speak, daemon=True).start()
        ((state, said),) = found("server")
        closing_time.set()
    assert state == "wrong"
    assert expected in said


# ---------------------------------------------------------------- rows and messages


@pytest.fixture
def job(job: Job, settings: LazySettings, tmp_path: Path) -> Job:
    """Alice's queued job, with its file."""
    settings.RECORDINGS_DIR = tmp_path
    job.recording.path.touch()
    return job


def test_a_recording_that_is_not_in_the_common_folder_is_wrong(job: Job, settings: LazySettings) -> None:
    job.recording.path.unlink()
    said = f"Recordings that jobs wait for and {settings.RECORDINGS_DIR} lacks: 1; have RECORDINGS_DIR name the folder"
    assert [sentence.startswith(said) for _, sentence in found("jobs")] == [False, True]
    Job.objects.update(status="done")
    assert [state for state, _ in found("jobs")] == ["well"]


def test_a_job_that_nobody_can_take_is_wrong(job: Job) -> None:
    assert found("jobs") == [
        ("wrong", "Jobs that wait while no default worker is alive: 1. Start the server, and they go on.")
    ]
    Worker.objects.create(kind="default", queue="default", hostname="here", pid=1)
    assert found("jobs") == [("well", "Jobs under way: 1")]
    Job.objects.update(status="transcribing")
    assert [state for state, _ in found("jobs")] == ["wrong"]
    Worker.objects.create(kind="device", queue="device.cpu", hostname="here", pid=1)
    assert found("jobs") == [("well", "Jobs under way: 1")]


def test_what_a_job_waits_for_is_worth_a_note(job: Job) -> None:
    Job.objects.update(waiting_for="disk_full")
    Worker.objects.create(kind="default", queue="default", hostname="here", pid=1)
    (state, said), _ = found("jobs")
    assert state == "note"
    assert "until this machine's disk has space" in said


@pytest.fixture
def messages(settings: LazySettings, tmp_path: Path) -> Path:
    settings.CELERY_BROKER_URL, settings.BROKER_DIR = "files://", tmp_path / "broker"
    folder = settings.BROKER_DIR / "messages"
    folder.mkdir(parents=True)
    return folder


def test_damaged_messages_are_wrong(db: None, messages: Path) -> None:
    assert [state for state, _ in found("broker")] == ["well"]
    bad = messages.parent / "bad"
    bad.mkdir()
    (bad / "1.default.msg.bad").touch()
    assert found("broker") == [("wrong", f"Damaged messages set aside: 1. See that the disk is well, then empty {bad}")]


def test_messages_that_no_living_worker_takes_are_wrong(db: None, messages: Path) -> None:
    for name in ("1-1-a.default.msg", "2-1-b.device.cuda%3A1.msg", "3-1-c.here.celery.pidbox.msg", ".4.tmp"):
        (messages / name).touch()
    assert [state for state, _ in found("broker")] == ["note", "note", "well"]
    Worker.objects.create(kind="default", queue="default", hostname="here", pid=1)
    ((state, said),) = found("broker")
    assert state == "wrong"
    assert "for device.cuda:1, which no worker serves" in said
    assert "*.device.cuda%3A1.msg" in said


@pytest.mark.parametrize(
    ("question", "environment", "said"),
    [
        ("database", {"DATABASE_URL": "postgres://us:secret@127.0.0.1:9/none"}, "The database does not answer ("),
        ("broker", {"CELERY_BROKER_URL": "redis://:secret@127.0.0.1:9/0"}, "The broker (redis) does not answer ("),
    ],
)
@pytest.mark.two_machines
def test_a_postgresql_or_redis_that_does_not_answer_is_wrong(
    server: Server, question: str, environment: dict[str, str], said: str
) -> None:
    server.environment.update(environment)
    ran = server.manage("doctor", question)
    assert ran.returncode == 1
    assert f"✗ {said}" in ran.stdout
    assert "secret" not in ran.stdout + ran.stderr


@pytest.mark.two_machines
def test_a_postgresql_and_a_redis_that_answer_are_well(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", NANO, DEFAULT_MODEL="nano")
    assert "Migrations that the database lacks" in server.manage("doctor", "database").stdout
    assert server.manage("migrate", "-v", "0").returncode == 0
    database, broker = server.manage("doctor", "database", "broker").stdout.splitlines()
    assert re.fullmatch(r"✓ The database \(PostgreSQL \d+\.\d+\) answers, is whole and has every migration", database)
    assert broker == "✓ The broker (redis) answers"


@pytest.mark.two_machines
def test_a_server_whose_database_does_not_answer_says_so_and_ends(tmp_path: Path) -> None:
    nowhere = "postgres://us:secret@127.0.0.1:9/none"
    ran = Server(tmp_path / "data", NANO, DEFAULT_MODEL="nano", DATABASE_URL=nowhere).manage("serve")
    assert ran.returncode == 1
    assert "The database does not answer (" in ran.stderr
    assert "Start it, or correct DATABASE_URL." in ran.stderr
    assert "secret" not in ran.stderr


@pytest.mark.heavy
def test_a_broker_elsewhere_that_does_not_answer_is_wrong(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://us:secret@127.0.0.1:9//")
    ran = Server(Path(project.DATA_DIR), NANO).manage("doctor", "broker")
    assert ran.returncode == 1
    assert "✗ The broker (amqp) does not answer" in ran.stdout
    assert "secret" not in ran.stdout + ran.stderr
