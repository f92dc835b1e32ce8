"""A monitor asks whether all is well."""

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from tests.server import wait_until
from transcription.api.compat import legacy
from transcription.models import Worker

# The question has a thread and a connection of its own, which sees what is committed.
pytestmark = pytest.mark.django_db(transaction=True)


def a_worker(kind: str, **values: object) -> Worker:
    return Worker.objects.create(kind=kind, queue=kind, hostname="here", pid=1, **values)


@pytest.mark.parametrize("address", ["/health", "/health/"])
def test_with_both_kinds_of_worker_all_is_well(address: str) -> None:
    a_worker("default")
    a_worker("device", model_loaded="nano")

    answer = Client().get(address)

    told = answer.json()
    assert answer.status_code == 200
    assert (told["status"], told["ok"], told["workers"]) == ("healthy", True, 2)
    assert (told["model_loaded"], told["model_name"], told["model"]) == (True, "nano", "whisper-nano")
    assert told["version"]


def test_a_model_is_named_before_it_is_loaded() -> None:
    a_worker("default")
    a_worker("device")

    told = Client().get("/health").json()

    assert (told["ok"], told["model_loaded"], told["model_name"]) == (True, False, "nano")


@pytest.mark.parametrize("kinds", [[], ["default"], ["device"]])
def test_without_a_worker_the_reason_is_told(kinds: list[str]) -> None:
    for kind in kinds:
        a_worker(kind)

    answer = Client().get("/health")

    assert answer.status_code == 503
    assert answer.json()["ok"] is False
    assert "in touch" in answer.json()["error"]


def test_a_worker_that_fell_silent_does_not_count() -> None:
    a_worker("default")
    a_worker("device", heartbeat_at=timezone.now() - timedelta(minutes=5))

    assert Client().get("/health").status_code == 503


@pytest.mark.parametrize(("kinds", "missing"), [([], ["default", "device"]), (["default"], ["device"])])
def test_the_missing_workers_are_named_for_programs(kinds: list[str], missing: list[str]) -> None:
    for kind in kinds:
        a_worker(kind)

    assert Client().get("/health").json()["workers_missing"] == missing


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A database in a file: that of whoever connects anew, until the test is over."""
    path = tmp_path / "stenograf.sqlite3"
    with closing(sqlite3.connect(path)) as file:
        connection.ensure_connection()
        connection.connection.backup(file)
    asking = ThreadPoolExecutor(1)  # its thread has no connection yet
    monkeypatch.setattr(legacy, "_health_thread", asking)
    monkeypatch.setitem(connections.settings["default"], "NAME", str(path))
    yield path
    asking.shutdown()


@pytest.mark.sqlite
def test_a_broken_database_is_the_reason(database: Path) -> None:
    assert Client().get("/health").json()["workers"] == 0
    database.write_bytes(b"This was a database once. " * 10_000)

    answer = Client().get("/health")

    assert answer.status_code == 503
    assert answer.json() == {"status": "unhealthy", "ok": False, "error": "The database does not answer."}


@pytest.mark.sqlite
def test_a_locked_database_is_told_of_in_seconds_and_asked_again(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy, "HEALTH_SECONDS", 1.0)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE another (id)")
        for _ in range(2):  # the second question waits for the first, and no longer
            began = time.monotonic()
            answer = Client().get("/health")
            assert time.monotonic() - began < 5
            assert answer.status_code == 503
            assert answer.json()["error"] == "The database does not answer."
    wait_until(lambda: Client().get("/health").json().get("workers") == 0, 10)
