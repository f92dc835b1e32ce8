"""Many recordings of many people: all done, none twice, in turn; and one that kills its runner harms nobody else."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults import victims
from tests.server import NANO, QUICKLY, Server, wait_until

pytestmark = pytest.mark.slow

SENTENCES = [NANO / "nano" / name for name in ("bears.wav", "mice.wav", "apples.ogg", "sugar.ogg", "dogs.ogg")]
AT_ONCE = {"anna": 30, "boris": 15, "vera": 5}
MAKE_USERS = """
from django.contrib.auth.models import User
from transcription.models import ApiToken
for name in ("anna", "boris", "vera"):
    print(ApiToken.make(User.objects.create_user(name)))
"""
SECTIONS_IN_ORDER = """
    SELECT username, job.id FROM transcription_section AS section
    JOIN transcription_job AS job ON job.id = job_id JOIN auth_user ON auth_user.id = owner_id
    ORDER BY section.started_at
"""
# How many of a lecture's sections came to their end while another job's first was ready and not begun.
WAITED_FOR = """
    SELECT count(*) FROM transcription_section AS lecture
    JOIN transcription_section AS message ON message.job_id = ? AND message."index" = 0
    JOIN transcription_job AS job ON job.id = message.job_id
    WHERE lecture.job_id = ? AND lecture.finished_at > job.transcribing_at AND lecture.finished_at <= message.started_at
"""
BEGUN_LATER = """
    SELECT count(*) FROM transcription_section AS lecture
    JOIN transcription_section AS message ON message.job_id = ?
    WHERE lecture.job_id = ? AND lecture.started_at > message.started_at
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("fairness") / "data", NANO, DEFAULT_MODEL="nano")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def people(server: Server) -> Iterator[dict[str, httpx.Client]]:
    """Three users' clients."""
    made = server.manage("shell", "-v", "0", "-c", MAKE_USERS)
    tokens = dict(zip(AT_ONCE, made.stdout.split(), strict=True))
    clients = {
        name: httpx.Client(base_url=server.url, headers={"Authorization": f"Token {token}"}, timeout=120)
        for name, token in tokens.items()
    }
    yield clients
    for client in clients.values():
        client.close()


def submit(client: httpx.Client, path: Path, **parameters: str) -> str:
    """Post a recording; return the job's id as the rows have it."""
    with path.open("rb") as file:
        answer = client.post("/api/v1/jobs/", files={"file": file}, data=parameters)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"]).replace("-", "")


def of_job(server: Server, job: str, *columns: str) -> tuple[Any, ...]:
    return server.rows(f"SELECT {', '.join(columns)} FROM transcription_job WHERE id = ?", job)[0]


def has_ended(server: Server, *jobs: str) -> bool:
    return all(of_job(server, job, "status")[0] in ("done", "failed", "cancelled") for job in jobs)


@contextmanager
def held_up(server: Server, victim: str) -> Iterator[None]:
    """One of the server's processes stands still meanwhile."""
    pid = victims.pid_of(server, victim)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_fifty_recordings_at_once_are_done_once_each_and_in_turn(
    server: Server, people: dict[str, httpx.Client]
) -> None:
    def post_all(name: str) -> list[str]:
        client, count = people[name], AT_ONCE[name]
        return [submit(client, SENTENCES[i % len(SENTENCES)], **QUICKLY) for i in range(count)]

    with held_up(server, "device worker"):
        with ThreadPoolExecutor() as threads:
            jobs = [job for posted in threads.map(post_all, people) for job in posted]
        wait_until(lambda: all(of_job(server, job, "status")[0] == "transcribing" for job in jobs), 60)
    wait_until(lambda: has_ended(server, *jobs), 120)
    assert {of_job(server, job, "status")[0] for job in jobs} == {"done"}
    order = server.rows(SECTIONS_IN_ORDER)
    assert sorted(job for _, job in order) == sorted(jobs)  # short as they are, each is one section, begun once
    assert {row[0] for row in server.rows("SELECT attempts FROM transcription_section")} == {1}
    done = "SELECT job_id FROM transcription_event WHERE kind = 'done'"
    assert sorted(row[0] for row in server.rows(done)) == sorted(jobs)
    assert_fair([name for name, _ in order])


def assert_fair(turns: list[str]) -> None:
    """While two people both have work waiting, neither gets two turns more than the other."""
    begun = Counter[str]()
    for name in turns:
        begun[name] += 1
        waiting = [person for person in AT_ONCE if begun[person] < AT_ONCE[person]]
        assert all(abs(begun[one] - begun[other]) <= 2 for one, other in combinations(waiting, 2)), turns
    assert max(place for place, name in enumerate(turns, start=1) if name == "vera") <= 3 * AT_ONCE["vera"] + 2


def test_a_voice_message_waits_for_no_more_than_the_rest_of_a_section(
    server: Server, people: dict[str, httpx.Client], lecture: Path
) -> None:
    long = submit(people["anna"], lecture, language="en", temperature="[0]")
    begun = "SELECT count(*) FROM transcription_section WHERE job_id = ? AND started_at IS NOT NULL"
    wait_until(lambda: server.rows(begun, long) != [(0,)], 60)
    own, anothers = (submit(people[name], SENTENCES[0], language="en") for name in ("anna", "boris"))
    wait_until(lambda: has_ended(server, long, own, anothers), 120)
    for message in (own, anothers):
        assert server.rows(WAITED_FOR, message, long)[0][0] <= 1
        assert server.rows(BEGUN_LATER, message, long)[0][0] >= 1  # the lecture did go on afterwards


def test_a_recording_that_kills_its_runner_fails_and_anothers_is_done_meanwhile(
    server: Server, people: dict[str, httpx.Client], long_recording: Path
) -> None:
    poison = submit(people["anna"], long_recording, language="en")
    wait_until(lambda: kill_on(server, poison, attempt=1))
    message = submit(people["boris"], SENTENCES[0], **QUICKLY)
    wait_until(lambda: kill_on(server, poison, attempt=2))
    wait_until(lambda: has_ended(server, message), 60)  # well before the third attempt, or instead of it
    wait_until(lambda: kill_on(server, poison, attempt=3), 60)
    wait_until(lambda: has_ended(server, poison))
    assert of_job(server, message, "status") == ("done",)
    assert of_job(server, poison, "status", "error_code") == ("failed", "runner_died")
    assert of_job(server, message, "finished_at") < of_job(server, poison, "finished_at")


def kill_on(server: Server, job: str, *, attempt: int) -> bool:
    """Kill the runner if it is on the job's section for so many times; return whether it was."""
    running = "SELECT attempts FROM transcription_section WHERE job_id = ? AND status = 'transcribing'"
    return server.rows(running, job) == [(attempt,)] and victims.kill(server, "runner") != 0
