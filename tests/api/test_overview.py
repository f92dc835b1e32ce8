"""A client asks what works here, how much there is to do, and what it has done."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from tests.api.rows import a_done_job, a_job
from transcription.models import Job, Worker
from transcription.queue import forecast


@pytest.fixture(autouse=True)
def _fresh_forecast() -> None:
    forecast.forget()


def test_workers_tell_their_devices_and_models(api: Client) -> None:
    facts = {"device_name": "Apple M4", "memory_total_mb": 16384, "model_states": {"base": "loaded"}}
    known = {"kind": "device", "queue": "device.mps", "device": "mps", "hostname": "mini", "pid": 1}
    Worker.objects.create(**known, engine="mlx-whisper", compute_types=["float16"], threads=8, **facts)
    long_ago = timezone.now() - timedelta(hours=1)
    Worker.objects.create(kind="default", queue="default", hostname="gone", pid=2, heartbeat_at=long_ago)

    (told,) = api.get("/api/v1/workers/").json()["results"]

    assert facts.items() <= told.items()
    assert (told["device"], told["engine"], told["hostname"]) == ("mps", "mlx-whisper", "mini")
    assert "pid" not in told


def test_the_queue_counts_everybodys_and_lists_ones_own_in_turn(api: Client, owner: User, stranger: User) -> None:
    a_job(stranger)
    a_done_job(owner)
    low = a_job(owner, name="low", priority=Job.Priority.LOW)
    high = a_job(owner, name="high", priority=Job.Priority.HIGH)

    told = api.get("/api/v1/queue/").json()

    assert (told["everybody"], told["own"]) == ({"queued": 3}, 2)
    assert [job["id"] for job in told["jobs"]] == [str(high.pk), str(low.pk)]
    assert [job["queue_position"] for job in told["jobs"]] == [1, 3]


def test_stats_add_up_ones_own(api: Client, owner: User, stranger: User) -> None:
    a_done_job(stranger)
    a_done_job(owner, processing_seconds=0.5)
    a_done_job(owner, processing_seconds=0.25, language="ru")
    a_job(owner, status="failed", processing_seconds=9)
    a_done_job(owner, created_at=timezone.now() - timedelta(days=60), model="base")

    told = api.get("/api/v1/stats/").json()

    assert told["all"] == {
        "jobs": {"done": 3, "failed": 1},
        "models": {"nano": 2, "base": 1},
        "languages": {"en": 2, "ru": 1},
        "recorded_seconds": 7.5,
        "processing_seconds": 0.8,
    }
    assert told["last_30_days"]["jobs"] == {"done": 2, "failed": 1}
    assert told["recordings"] == {"count": 4, "bytes": 16}


def test_without_anything_the_figures_are_noughts(api: Client) -> None:
    told = api.get("/api/v1/stats/").json()

    assert told["all"]["recorded_seconds"] == 0
    assert told["recordings"] == {"count": 0, "bytes": 0}
    assert api.get("/api/v1/queue/").json() == {"everybody": {}, "own": 0, "jobs": []}
