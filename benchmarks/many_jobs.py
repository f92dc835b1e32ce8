"""Fills a database with very many jobs of one user, and times requests for them: the inside of `benchmarks/api.py`."""

import json
import random
import statistics
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode

from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.server import NANO
from transcription.models import ApiToken, Job, Recording, Section, Tag, Worker
from transcription.queue import forecast
from transcription.text import search
from transcription.whisper.options import TranscriptionOptions

AIM = 30.0  # milliseconds, the median of a page of jobs
MOST_QUERIES = 2
NEWEST = datetime(2026, 11, 21, tzinfo=UTC)
APART = timedelta(minutes=15)  # from one job to the next: a hundred thousand jobs are three years
STORED_AT_ONCE = 1000
OTHER_USERS = 20
WAITING = 20  # queued jobs, both of the user and of all others together; they are on the first page
SHORTEST, LONGEST = 200, 8000  # characters of a text; the logarithms of the lengths are evenly distributed
RARE_WORD, RARE_TAG, ONE_IN = "Rumpelstilzchen", "court", 1000
ANEW = ", and the forecast anew"  # a forecast is kept for two seconds
TAGS = ("interview", "lecture", "meeting", "podcast", "radio")
OPTIONS = TranscriptionOptions().to_json()


@dataclass(frozen=True)
class Measured:
    """The milliseconds of each repetition of a request, and its number of queries, without those for its key."""

    name: str
    times: list[float]
    queries: int

    def show(self) -> None:
        slow = sorted(self.times)[int(0.95 * len(self.times))]
        print(f"{self.name:44}{statistics.median(self.times):9.1f}{slow:9.1f}{self.queries:9}", flush=True)


def main(jobs: int, others: int, times: int) -> None:
    """Fill the database if it is empty, ask, print a table; exit with 1 where a page of jobs misses the aim."""
    if not User.objects.exists():
        began = time.monotonic()
        _fill(jobs, others)
        print(f"made in {time.monotonic() - began:.0f} s", flush=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(length(text)) / count(*) FROM transcription_job WHERE text != ''")
        characters = cursor.fetchone()[0]
    owner = User.objects.get(username="anna")
    print(f"{owner.jobs.count()} jobs of a user, {Job.objects.count()} of all, {characters} characters a text\n")
    print(f"{'':44}{'median':>9}{'p95':>9}{'queries':>9}")
    Worker.objects.update(heartbeat_at=timezone.now())
    client = Client(headers={"Authorization": f"Token {ApiToken.make(owner)}"})
    measured = [_measure(client, name, address, times) for name, address in _addresses(owner)]
    missed = [request.name for request in measured if _misses_aim(request)]
    if missed:
        print(f"\nThe aim, {AIM:g} ms and {MOST_QUERIES} queries, is MISSED by: {', '.join(missed)}.")
        sys.exit(1)
    print(f"\nThe aim, a median of {AIM:g} ms and {MOST_QUERIES} queries for the first page, is met.")


# ------------------------------------------------------------------ the rows


def _fill(jobs: int, others: int) -> None:
    chance = random.Random(11)
    anna = User.objects.create_user("anna")
    crowd = User.objects.bulk_create(User(username=f"user {number}") for number in range(OTHER_USERS))
    tags = {user: [Tag.objects.create(owner=user, name=name) for name in (*TAGS, RARE_TAG)] for user in (anna, *crowd)}
    worker = Worker.objects.create(kind="device", queue="device.cpu", device="cpu", hostname="here", pid=1)
    step = APART * jobs / max(others, 1)
    for owners, count, apart in (([anna], jobs, APART), (crowd, others, step)):
        jobs_to_store = (
            _job(chance, number, owners[number % len(owners)], NEWEST - apart * number, worker)
            for number in range(count)
        )
        while batch := list(islice(jobs_to_store, STORED_AT_ONCE)):
            _store(batch, tags, chance)


def _job(chance: random.Random, number: int, owner: User, at: datetime, worker: Worker) -> Job:
    is_waiting = number < WAITING
    failed = not is_waiting and chance.random() < 0.02
    language = chance.choice(("ru", "en"))
    text = "" if is_waiting or failed else _text(chance, language, number)
    seconds = 5.0 + len(text) / 14
    name = f"{chance.choice(TAGS)} {chance.randrange(10_000):04}.m4a"
    recording = Recording(
        owner=owner, original_name=name, bytes=int(seconds * 8000), sha256=f"{chance.getrandbits(256):064x}",
        container="mov,mp4,m4a", codec="aac", sample_rate=44100, channels=1, duration=seconds, created_at=at,
        peaks=[chance.randrange(100) for _ in range(240)],
    )  # fmt: skip
    served = None if is_waiting else at + timedelta(seconds=2)
    return Job(
        owner=owner, recording=recording, name=name, status="queued" if is_waiting else "failed" if failed else "done",
        progress=0 if is_waiting else 1, model=chance.choice(("turbo", "small", "large-v3")), options=OPTIONS,
        error_code="no_audio" if failed else "", language="" if is_waiting else language, language_probability=0.98,
        text=text, searchable=search.folded(f"{name}\n{text}"), engine="faster-whisper", device="cpu",
        versions={"faster-whisper": "1.2.1", "ctranslate2": "4.6.0"}, weights_sha256="ab" * 32, created_at=at,
        preparing_at=served, transcribing_at=served, finishing_at=served, finished_at=served, served_at=served,
        processing_seconds=seconds / 10, request_digest=f"{chance.getrandbits(256):064x}", worker=worker,
    )  # fmt: skip


def _text(chance: random.Random, language: str, number: int) -> str:
    length = SHORTEST * (LONGEST / SHORTEST) ** chance.random()
    sentences = chance.choices(SENTENCES[language], k=int(length / 35) + 1)
    return " ".join([*sentences, RARE_WORD] if number % ONE_IN == ONE_IN - 1 else sentences)


def _sentences() -> dict[str, list[str]]:
    """The sentences of the tests' voices with their words in other orders, so that there are many different ones."""
    chance, sentences = random.Random(7), dict[str, list[str]](ru=[], en=[])
    for spoken in json.loads((NANO / "nano" / "sentences.json").read_text()):
        words = spoken["text"].rstrip(".").split()
        for _ in range(500):
            sentences[spoken["language"]].append(" ".join(chance.sample(words, len(words))).capitalize() + ".")
    return sentences


SENTENCES = _sentences()


def _store(jobs: list[Job], tags: dict[User, list[Tag]], chance: random.Random) -> None:
    with transaction.atomic():
        Recording.objects.bulk_create([job.recording for job in jobs])
        Job.objects.bulk_create(jobs)
        Job.tags.through.objects.bulk_create(_tagged(jobs, tags, chance))
        Section.objects.bulk_create(_section(job) for job in jobs if job.finished_at)


def _tagged(jobs: list[Job], tags: dict[User, list[Tag]], chance: random.Random) -> Iterator[Any]:
    for job in jobs:
        *common, rare = tags[job.owner]
        job_tags = chance.sample(common, chance.randrange(3)) + ([rare] if chance.randrange(ONE_IN) == 0 else [])
        yield from (Job.tags.through(job=job, tag=tag) for tag in job_tags)


def _section(job: Job) -> Section:
    seconds = job.recording.duration or 0.0
    return Section(
        job=job, index=0, start=0, end=seconds, spans=[[0, seconds]], seconds=seconds, status="done", device="cpu",
        transcribed=seconds, attempts=1, processing_seconds=seconds / 10, started_at=job.served_at,
        finished_at=job.finished_at,
    )  # fmt: skip


# ------------------------------------------------------------------ the requests


def _addresses(owner: User) -> Iterator[tuple[str, str]]:
    """The name and the address of each request."""
    middle = owner.jobs.order_by("-created_at").values_list("created_at", flat=True)[owner.jobs.count() // 2]
    job = owner.jobs.filter(status="done").values_list("pk", flat=True).first()
    jobs = "/api/v1/jobs/"
    yield "jobs", jobs
    yield f"jobs{ANEW}", jobs
    yield "jobs, a page in the middle", f"{jobs}?cursor={_cursor(str(middle))}"
    yield "jobs, a page of 200", f"{jobs}?page_size=200"
    yield "jobs, status=done", f"{jobs}?status=done"
    yield "jobs, status=failed", f"{jobs}?status=failed"
    yield "jobs, status=cancelled (there is none)", f"{jobs}?status=cancelled"
    yield "jobs, status=queued,transcribing", f"{jobs}?status=queued,transcribing"
    yield "jobs, tag=meeting", f"{jobs}?tag=meeting"
    yield f"jobs, tag={RARE_TAG} (one of {ONE_IN})", f"{jobs}?tag={RARE_TAG}"
    yield "jobs, created_after", f"{jobs}?created_after={middle:%Y-%m-%d}"
    yield "jobs, language=ru", f"{jobs}?language=ru"
    yield "jobs, model=nano (there is none)", f"{jobs}?model=nano"
    yield "jobs, ordering=created_at", f"{jobs}?ordering=created_at"
    yield "jobs, ordering=name", f"{jobs}?ordering=name"
    yield "jobs, ordering=name, a page in the middle", f"{jobs}?ordering=name&cursor={_cursor('meeting 5000.m4a')}"
    yield "jobs, search, in many", f"{jobs}?search={quote('елена')}"
    yield f"jobs, search, in one of {ONE_IN}", f"{jobs}?search={RARE_WORD}"
    yield "jobs, search, in none", f"{jobs}?search=nowhere"
    yield "jobs/ID", f"{jobs}{job}/"
    yield "recordings", "/api/v1/recordings/"
    yield "queue", "/api/v1/queue/"
    yield "stats", "/api/v1/stats/"


def _cursor(position: str) -> str:
    return quote(b64encode(urlencode({"p": position}).encode()).decode())


def _measure(client: Client, name: str, address: str, times: int) -> Measured:
    """Send a request many times, and print a line about it."""
    milliseconds = []
    client.get(address)
    for _ in range(times):
        if name.endswith(ANEW):
            forecast.forget()
        began = time.perf_counter()
        answer = client.get(address)
        milliseconds.append(1000 * (time.perf_counter() - began))
        assert answer.status_code == 200, (address, answer.content)
    if name.endswith(ANEW):
        forecast.forget()
    with CaptureQueriesContext(connection) as captured:
        client.get(address)
    queries = sum("apitoken" not in query["sql"] for query in captured.captured_queries)
    measured = Measured(name, milliseconds, queries)
    measured.show()
    return measured


def _misses_aim(request: Measured) -> bool:
    has_aim = request.name in ("jobs", "jobs, a page in the middle")
    return has_aim and (statistics.median(request.times) > AIM or request.queries > MOST_QUERIES)
