"""A monitor asks whether all is well."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from transcription.models import Worker


def a_worker(kind: str, **values: object) -> Worker:
    return Worker.objects.create(kind=kind, queue=kind, hostname="here", pid=1, **values)


@pytest.mark.parametrize("address", ["/health", "/health/"])
def test_with_both_kinds_of_worker_all_is_well(db: None, address: str) -> None:
    a_worker("default")
    a_worker("device", model_loaded="nano")

    answer = Client().get(address)

    told = answer.json()
    assert answer.status_code == 200
    assert (told["status"], told["ok"], told["workers"]) == ("healthy", True, 2)
    assert (told["model_loaded"], told["model_name"], told["model"]) == (True, "nano", "whisper-nano")
    assert told["version"]


def test_a_model_is_named_before_it_is_loaded(db: None) -> None:
    a_worker("default")
    a_worker("device")

    told = Client().get("/health").json()

    assert (told["ok"], told["model_loaded"], told["model_name"]) == (True, False, "nano")


@pytest.mark.parametrize("kinds", [[], ["default"], ["device"]])
def test_without_a_worker_the_reason_is_told(db: None, kinds: list[str]) -> None:
    for kind in kinds:
        a_worker(kind)

    answer = Client().get("/health")

    assert answer.status_code == 503
    assert answer.json()["ok"] is False
    assert "in touch" in answer.json()["error"]


def test_a_worker_that_fell_silent_does_not_count(db: None) -> None:
    a_worker("default")
    a_worker("device", heartbeat_at=timezone.now() - timedelta(minutes=5))

    assert Client().get("/health").status_code == 503


def test_a_database_that_does_not_answer_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> None:
        raise OperationalError

    monkeypatch.setattr(Worker, "alive", silent)

    answer = Client().get("/health")

    assert answer.status_code == 503
    assert "database" in answer.json()["error"]
