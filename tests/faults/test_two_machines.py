"""Two machines over one PostgreSQL, one Redis and one folder of recordings: either may die at any moment."""

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import postgres
from tests.faults import victims
from tests.faults.test_soak import SEGMENTS_IN_ORDER, SENTENCES, WRONG
from tests.server import NANO, QUICKLY, Server, files_below, wait_until

pytestmark = pytest.mark.two_machines

AT_WORK = """
    SELECT DISTINCT hostname FROM transcription_worker AS worker
    JOIN transcription_section AS section ON section.worker_id = worker.id WHERE section.status = 'transcribing'
"""


WORKERS = "SELECT hostname, kind FROM transcription_worker ORDER BY hostname, kind"
EVERY_WORKER = [("first", "default"), ("first", "device"), ("second", "default"), ("second", "device")]


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Server]]:
    """Two servers that were started at the same moment over a new database."""
    shared = {
        "DATABASE_URL": postgres.new_database(),
        "RECORDINGS_DIR": str(tmp_path / "recordings"),
        "UPLOADS_DIR": str(tmp_path / "uploads"),
        "DJANGO_SETTINGS_MODULE": "tests.faults.another_machine",
        "LEASE_SECONDS": "15",
    }
    servers = [
        Server(tmp_path / name, NANO, DEFAULT_MODEL="nano", MACHINE=name, **shared) for name in ("first", "second")
    ]
    for server in servers:
        server.data.mkdir()  # nothing is prepared: each makes everything itself
    with ThreadPoolExecutor() as threads:
        list(threads.map(Server.start, servers))
    for server in servers:
        server.token = next(one.token for one in servers if one.token)  # one of them made the key
    wait_until(lambda: servers[0].rows(WORKERS) == EVERY_WORKER, 60)
    yield servers
    for server in servers:
        server.stop()


def kill(server: Server) -> None:
    """Kill -9 all processes of a server, its supervisor first."""
    assert server.process is not None
    family = victims.family(server)
    server.process.kill()
    server.process.wait()
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_two_first_starts_at_once_make_one_installation(machines: list[Server]) -> None:
    first, second = machines
    assert first.rows("SELECT username FROM auth_user WHERE is_superuser") == [("admin",)]
    assert first.rows("SELECT count(*) FROM transcription_apitoken WHERE is_from_file") == [(1,)]
    job = first.submit(SENTENCES[0], **QUICKLY)
    assert second.wait(job["id"])["status"] == "done"
    with second.client() as client:
        assert client.get(f"/api/v1/jobs/{job['id']}/audio/").content == SENTENCES[0].read_bytes()


def test_of_a_machine_that_is_killed_nothing_is_lost_and_nothing_double(
    machines: list[Server], long_recording: Path, lecture: Path
) -> None:
    first, second = machines
    recordings = [lecture, long_recording, *SENTENCES * 2]
    jobs = {first.submit(recording, **QUICKLY)["id"]: recording for recording in recordings}
    wait_until(lambda: first.rows(AT_WORK) == [("first",), ("second",)] or ("second",) in first.rows(AT_WORK), 60)

    kill(second)

    texts: dict[Path, set[str]] = {}
    for job_id, recording in jobs.items():
        job = first.wait(job_id, 180)
        assert job["status"] == "done", job
        texts.setdefault(recording, set()).add(job["text"])
    assert all(len(texts[sentence]) == 1 for sentence in SENTENCES), texts
    for question in WRONG:
        assert first.rows(question) == [], question
    assert first.rows("SELECT count(*) FROM transcription_event WHERE kind = 'returned'") != [(0,)]
    joined: dict[str, str] = {}
    for job_id, text in first.rows(SEGMENTS_IN_ORDER):
        joined[job_id] = joined.get(job_id, "") + text
    for job_id, text in first.rows("SELECT id, text FROM transcription_job"):
        assert text == joined[job_id].strip()
    folder = Path(first.environment["RECORDINGS_DIR"])
    kept = sorted(name.replace("-", "") for name in files_below(folder) if not name.endswith(".part"))
    assert kept == sorted(row[0] for row in first.rows("SELECT id FROM transcription_recording"))


def test_a_database_that_is_started_anew_costs_nothing(nano_server: Server, long_recording: Path) -> None:
    job_id = nano_server.submit(long_recording, language="en")["id"]
    for segments in (1, 3, 5):
        wait_until(lambda least=segments: len(nano_server.segments(job_id)) >= least, 90)
        postgres.end_connections(nano_server.environment["DATABASE_URL"])
    assert nano_server.wait(job_id, 180)["status"] == "done"
    for question in WRONG:
        assert nano_server.rows(question) == [], question
    wait_until(nano_server.is_healthy)
