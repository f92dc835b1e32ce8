"""Stopping a job in the middle, and going on with it."""

import time
from pathlib import Path

from tests.server import NANO, Server, files_below, wait_until


def turn(server: Server, job_id: str, action: str) -> int:
    with server.client() as client:
        return client.post(f"/api/v1/jobs/{job_id}/{action}/").status_code


def test_a_cancelled_job_stops_within_seconds_and_its_text_is_kept(nano_server: Server, long_recording: Path) -> None:
    job_id = nano_server.submit(long_recording, language="en")["id"]
    wait_until(lambda: len(nano_server.segments(job_id)) >= 2)
    assert turn(nano_server, job_id, "cancel") == 200
    began = time.monotonic()
    assert nano_server.transcribe(NANO / "nano" / "bears.wav")["status"] == "done"  # the device is free again
    assert time.monotonic() - began < 10
    kept = nano_server.segments(job_id)
    time.sleep(1)
    assert nano_server.segments(job_id) == kept
    assert nano_server.job(job_id)["status"] == "cancelled"
    assert [name for name in files_below(nano_server.data / "recordings") if job_id in name] == []


def test_a_cancelled_job_that_is_tried_again_keeps_its_segments(nano_server: Server, long_recording: Path) -> None:
    job_id = nano_server.submit(long_recording, language="en")["id"]
    wait_until(lambda: len(nano_server.segments(job_id)) >= 2)
    turn(nano_server, job_id, "cancel")
    kept = nano_server.segments(job_id)
    assert turn(nano_server, job_id, "retry") == 200
    assert nano_server.wait(job_id)["status"] == "done"
    assert nano_server.segments(job_id)[: len(kept)] == kept
    assert len(nano_server.segments(job_id)) > len(kept)


def test_a_queued_job_that_is_cancelled_is_never_begun(nano_server: Server, long_recording: Path) -> None:
    first, second = (nano_server.submit(long_recording, language="en")["id"] for _ in range(2))
    assert turn(nano_server, second, "cancel") == 200
    turn(nano_server, first, "cancel")
    time.sleep(1)
    assert nano_server.segments(second) == []
    assert nano_server.job(second)["status"] == "cancelled"
