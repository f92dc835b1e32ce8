"""A minute of bad luck: messages lost and doubled, processes killed at random, people who change their minds.

Then the kills stop, and every job must come to the one end that its owner asked for. What the rows, the disk and the
process table must look like is asked in SQL, past all endpoints. SOAK_SECONDS=28800 soaks for a night; SOAK_SEED
repeats the order of what a failed run did.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults import victims
from tests.server import NANO, QUICKLY, Server, files_below, processes, wait_until

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
SEED = int(os.environ.get("SOAK_SEED", "9"))
ENDING_SECONDS = 330  # what lost its worker many times rests for up to five minutes

# How often each dies. The runner needs no restart by the supervisor, whose pauses grow with each death.
VICTIMS = {"runner": 6, "device worker": 4, "default worker": 4, "web": 3, "speech finder": 1}
SENTENCES = [NANO / "nano" / name for name in ("bears.wav", "mice.wav", "apples.ogg", "sugar.ogg", "books.ogg")]
MAKE_USERS = """
from django.contrib.auth.models import User
from transcription.models import ApiToken
for name in ("anna", "boris", "vera"):
    print(ApiToken.make(User.objects.create_user(name)))
"""
REMOVE_STRAYS = (
    "import time; from transcription.workers import retention; retention.remove_strays(time.time() + 2 * 86400)"
)


class People:
    """Three users who submit, cancel, try again and delete; they know what each of their jobs may come to."""

    def __init__(self, server: Server, chance: random.Random, long_recording: Path) -> None:
        self.server, self.chance = server, chance
        self.recordings = [*SENTENCES, long_recording]
        made = server.manage("shell", "-v", "0", "-c", MAKE_USERS)
        self.clients = [
            httpx.Client(base_url=server.url, headers={"Authorization": f"Token {token}"}, timeout=30)
            for token in made.stdout.split()
        ]
        assert len(self.clients) == 3, made.stderr
        self.owners: dict[str, httpx.Client] = {}
        self.may_be: dict[str, set[str]] = {}

    def do_something(self) -> None:
        turns: list[Callable[[], None]] = [self.submit, self.cancel, self.retry, self.delete]
        self.chance.choices(turns, (12, 3, 3, 1))[0]()

    def submit(self) -> None:
        client, recording = self.chance.choice(self.clients), self.chance.choice(self.recordings)
        # Short work, so that one death seldom meets another on the same section: with each it rests longer.
        parameters = self.chance.choice([QUICKLY, {"temperature": "[0]"}])
        with recording.open("rb") as file:
            answer = ask(lambda: client.post("/api/v1/jobs/", files={"file": file}, data=parameters))
        if answer is not None:
            assert answer.status_code == 202, answer.text
            self.owners[answer.json()["id"]] = client
            self.may_be[answer.json()["id"]] = {"done"}

    def cancel(self) -> None:
        self.turn("POST", "cancel/", "cancelled")

    def retry(self) -> None:
        self.turn("POST", "retry/", "done")

    def delete(self) -> None:
        self.turn("DELETE", "", "deleted")

    def turn(self, method: str, action: str, end: str) -> None:
        """Ask for another end of some job; without an answer nobody knows whether it was heard."""
        known = [job_id for job_id, ends in self.may_be.items() if "deleted" not in ends]
        if not known:
            return
        job_id = self.chance.choice(known)
        answer = ask(lambda: self.owners[job_id].request(method, f"/api/v1/jobs/{job_id}/{action}"))
        if answer is None:
            self.may_be[job_id].add(end)
        elif answer.status_code != 409:
            assert answer.is_success, answer.text
            self.may_be[job_id] = {end}

    def close(self) -> None:
        for client in self.clients:
            client.close()


def ask(request: Callable[[], httpx.Response]) -> httpx.Response | None:
    """The answer, or None when the web server died before it gave one."""
    try:
        return request()
    except httpx.TransportError:
        return None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(
        tmp_path_factory.mktemp("soak") / "data",
        NANO,
        DEFAULT_MODEL="nano",
        DJANGO_SETTINGS_MODULE="tests.faults.lossy",
        MAX_ATTEMPTS="50",
    )
    server.start()
    yield server
    server.stop()


def test_whatever_happens_each_job_comes_to_one_end(server: Server, long_recording: Path) -> None:
    print(f"SOAK_SECONDS={SECONDS:.0f} SOAK_SEED={SEED}")
    chance = random.Random(SEED)
    people = People(server, chance, long_recording)
    seen = soak(server, people, chance)
    assert_all_end(server)
    wait_until(server.is_healthy)
    people.close()
    assert_rows_are_right(server, people.may_be)
    assert_nothing_else_is_on_the_disk(server)
    seen |= victims.family(server)
    server.stop()
    assert_none_lives(seen, server)


def soak(server: Server, people: People, chance: random.Random) -> dict[int, str]:
    """Let people do things, and kill a process now and then; return all the server's processes that were seen."""
    seen: dict[int, str] = {}
    deaths: list[str] = []
    deck: list[str] = []
    began = time.monotonic()
    next_death = began + 3
    while (now := time.monotonic()) < began + SECONDS:
        people.do_something()
        if now >= next_death:
            seen |= victims.family(server)
            deck = deck or chance.sample(list(VICTIMS), k=sum(VICTIMS.values()), counts=list(VICTIMS.values()))
            if victim := next((victim for victim in deck if victims.kill(server, victim)), None):
                deck.remove(victim)
                deaths.append(victim)
            next_death = now + chance.uniform(1.5, 4.5)
        time.sleep(chance.uniform(0.1, 0.9))
    print({victim: deaths.count(victim) for victim in VICTIMS}, f"{len(people.may_be)} jobs")
    assert set(deaths) == set(VICTIMS)
    return seen


def assert_all_end(server: Server) -> None:
    """Nobody dies any more: what was accepted comes to its end; what does not is shown with all that its row says."""
    deadline = time.monotonic() + ENDING_SECONDS
    while left := server.rows(UNFINISHED):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def assert_rows_are_right(server: Server, may_be: dict[str, set[str]]) -> None:
    stored = dict(server.rows("SELECT id, status FROM transcription_job"))
    errors = server.rows("SELECT status, error_code, error_values FROM transcription_job WHERE error_code != ''")
    assert errors == []
    ends = {job_id: stored.get(job_id.replace("-", ""), "deleted") for job_id in may_be}
    assert {job_id: end for job_id, end in ends.items() if end not in may_be[job_id]} == {}
    assert set(stored.values()) <= {"done", "cancelled"}
    assert "done" in ends.values()
    for question in WRONG:
        assert server.rows(question) == [], question
    joined: dict[str, str] = {}
    for job_id, text in server.rows(SEGMENTS_IN_ORDER):
        joined[job_id] = joined.get(job_id, "") + text
    for job_id, text in server.rows("SELECT id, text FROM transcription_job WHERE status = 'done'"):
        assert text == joined.get(job_id, "").strip()


UNFINISHED = """
    SELECT job.id, job.status, job.claim, job.lease_until, job.attempts, job.next_attempt_at, job.waiting_for,
    section.id, section."index", section.status, section.claim, section.lease_until, section.attempts,
    section.next_attempt_at FROM transcription_job AS job LEFT JOIN transcription_section AS section ON job_id = job.id
    WHERE job.status NOT IN ('done', 'failed', 'cancelled')
"""
# Questions that have no answer while all is well.
WRONG = [
    """SELECT id FROM transcription_job WHERE status = 'done'
       AND (SELECT count(*) FROM transcription_event WHERE job_id = transcription_job.id AND kind = 'done') != 1""",
    """SELECT id FROM transcription_job WHERE status != 'done'
       AND EXISTS (SELECT 1 FROM transcription_event WHERE job_id = transcription_job.id AND kind = 'done')""",
    """SELECT section_id, "index" FROM transcription_segment GROUP BY 1, 2 HAVING count(*) > 1""",
    """SELECT later.id, earlier.start, earlier.end, later.start, later.end FROM transcription_segment AS later
       JOIN transcription_segment AS earlier ON earlier.section_id = later.section_id
       AND earlier."index" = later."index" - 1
       WHERE later.start <= earlier.start OR later.start < earlier.end - 0.05""",
    """SELECT segment.id FROM transcription_segment AS segment JOIN transcription_section AS section
       ON section.id = section_id WHERE segment.start < section.start - 0.05 OR segment.end > section.end + 0.05
       OR segment.job_id != section.job_id""",
    # Places without a gap: as many as the last one says.
    """SELECT section_id FROM transcription_segment GROUP BY 1 HAVING max("index") != count(*) - 1""",
    """SELECT section.id FROM transcription_section AS section JOIN transcription_job AS job ON job.id = job_id
       WHERE job.status = 'done' AND section.status != 'done'""",
    "SELECT id FROM transcription_job WHERE claim IS NOT NULL OR worker_id IS NOT NULL OR lease_until IS NOT NULL",
    "SELECT id FROM transcription_section WHERE claim IS NOT NULL OR worker_id IS NOT NULL OR lease_until IS NOT NULL",
    "SELECT id FROM transcription_recording WHERE id NOT IN (SELECT recording_id FROM transcription_job)",
    "SELECT id FROM transcription_section WHERE attempts > 50",
]
SEGMENTS_IN_ORDER = """
    SELECT segment.job_id, segment.text FROM transcription_segment AS segment
    JOIN transcription_section AS section ON section.id = section_id ORDER BY section."index", segment."index"
"""


def assert_nothing_else_is_on_the_disk(server: Server) -> None:
    """What a killed process could not remove, retention does a day later."""
    removing = server.manage("shell", "-v", "0", "-c", REMOVE_STRAYS)
    assert removing.returncode == 0, removing.stderr
    print(removing.stderr)
    recordings = sorted(row[0] for row in server.rows("SELECT id FROM transcription_recording"))
    assert [name.replace("-", "") for name in files_below(server.data / "recordings")] == recordings
    assert files_below(server.data / "uploads") == []


def assert_none_lives(seen: dict[int, str], server: Server) -> None:
    alive = {(pid, words) for pid, _, words in processes() if "defunct" not in words}
    assert alive & set(seen.items()) == set()
    assert [words for _, words in alive if "ffmpeg" in words and str(server.data) in words] == []
