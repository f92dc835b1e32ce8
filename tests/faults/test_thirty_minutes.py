"""Half an hour of speech, whole and with a process killed on the way: every sentence once, in order, nothing redone."""

import difflib
import random
import re
import time
import wave
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import nano
from tests.faults import victims
from tests.server import NANO, QUICKLY, Server, wait_until

pytestmark = [pytest.mark.needs("espeak-ng"), pytest.mark.slow]

MINUTES = 30
SENTENCES = 40  # different ones, said in one order after another until the time is full
HEARD = 0.5  # of a sentence's words: the tests' model mishears some
# Preparing costs the same with every model, a quarter of the time with the tests' own, which decodes a minute in half a
# second. With the widest beam, the times of words and every window decoded four times, because none is good enough, it
# is slower, and still far faster than any model that people use.
SLOWLY = {
    "language": "en",
    "beam_size": "16",
    "word_timestamps": "true",
    "temperature": "[0, 0, 0, 0]",
    "logprob_threshold": "0",
}
# Who is killed, and after how many finished sections; 0: while the recording is still prepared.
PLACES = {"default worker": 0, "runner": 1, "device worker": 3, "web": 2}
BEGUN = """
    SELECT count(*) FROM transcription_section JOIN transcription_segment ON section_id = transcription_section.id
    WHERE transcription_section.job_id = ? AND status = 'transcribing'
"""
SECTIONS = """
    SELECT id, status, attempts, started_at, finished_at FROM transcription_section WHERE job_id = ? ORDER BY "index"
"""


@dataclass(frozen=True)
class Talk:
    path: Path
    sentences: list[str]  # in the order in which they are said


@dataclass(frozen=True)
class Heard:
    """What an event stream gave; seconds since the upload was answered."""

    job_id: str
    first_segment: float
    end: float


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Talk:
    """Half an hour of sentences with pauses between them; what of a pause is longer than two seconds is not decoded."""
    folder, chance = tmp_path_factory.mktemp("talk"), random.Random(1)
    texts: list[str] = []
    while len(texts) < SENTENCES:
        text = nano.sentence(chance)[1]
        texts += [] if text.startswith("Call") else [text]  # digits are hard to hear
    spoken = {text: _samples(nano.speak(text, "en", folder / "sentence.wav", voice="+f3")) for text in texts}
    said: list[str] = []
    with wave.open(str(folder / "talk.wav"), "wb") as talk:
        talk.setnchannels(1)
        talk.setsampwidth(2)
        talk.setframerate(16000)
        while talk.tell() < MINUTES * 60 * 16000:
            for text in chance.sample(texts, SENTENCES):
                talk.writeframes(spoken[text] + bytes(2 * int(16000 * chance.uniform(1.5, 4))))
                said.append(text)
    return Talk(folder / "talk.wav", said)


def _samples(path: Path) -> bytes:
    with wave.open(str(path)) as sentence:
        return sentence.readframes(sentence.getnframes())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("thirty") / "data", NANO, DEFAULT_MODEL="nano")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def undisturbed(server: Server, talk: Talk) -> Heard:
    """The talk transcribed while nobody interferes, as its event stream tells it."""
    job_id = server.submit(talk.path, **SLOWLY)["id"]
    began = time.monotonic()
    first = 0.0
    with server.client() as client, client.stream("GET", f"/api/v1/jobs/{job_id}/events/") as stream:
        for line in stream.iter_lines():
            if line == "event: segment" and not first:
                first = time.monotonic() - began
    return Heard(job_id, first, time.monotonic() - began)


def test_the_first_words_come_in_the_first_quarter_of_the_time(undisturbed: Heard) -> None:
    print(undisturbed)
    assert 0 < undisturbed.first_segment < undisturbed.end / 4


def test_every_sentence_is_there_once_and_in_order(server: Server, undisturbed: Heard, talk: Talk) -> None:
    assert server.job(undisturbed.job_id)["status"] == "done"
    sections = sections_of(server, undisturbed.job_id)
    assert len(sections) >= 5
    assert {(status, attempts) for _, status, attempts, *_ in sections} == {("done", 1)}
    assert_each_sentence_once(server, undisturbed.job_id, talk)


@pytest.mark.parametrize("victim", PLACES)
def test_a_process_killed_on_the_way_costs_nothing(server: Server, talk: Talk, victim: str) -> None:
    job_id = server.submit(talk.path, **{**QUICKLY, "beam_size": "5"})["id"]
    wait_until(lambda: is_there(server, job_id, PLACES[victim]), 120)
    stored = server.segments(job_id)
    finished = [section for section in sections_of(server, job_id) if section[1] == "done"]
    killed = victims.kill(server, victim)
    assert killed
    wait_until(lambda: victims.pid_of(server, victim) not in (0, killed))
    wait_until(server.is_healthy)
    assert server.job(job_id)["status"] != "done"
    assert server.wait(job_id, 240)["status"] == "done"
    assert server.segments(job_id)[: len(stored)] == stored
    sections = sections_of(server, job_id)
    assert sections[: len(finished)] == finished
    assert sum(attempts for _, _, attempts, *_ in sections) <= len(sections) + (victim in ("runner", "device worker"))
    assert_each_sentence_once(server, job_id, talk)


def is_there(server: Server, job_id: str, finished: int) -> bool:
    """Whether so many sections are finished and the next is begun; for none, whether the recording is prepared."""
    if not finished:
        return server.job(job_id)["status"] == "preparing"
    done = [status == "done" for _, status, *_ in sections_of(server, job_id)]
    return sum(done) >= finished and server.rows(BEGUN, job_id.replace("-", ""))[0][0] > 0


def sections_of(server: Server, job_id: str) -> list[tuple[Any, ...]]:
    return server.rows(SECTIONS, job_id.replace("-", ""))


def assert_each_sentence_once(server: Server, job_id: str, talk: Talk) -> None:
    segments = sorted(server.segments(job_id))  # speech that got no text is decoded again after the rest of its section
    starts = [start for start, *_ in segments]
    assert starts == sorted(set(starts))
    said = [(word, place) for place, sentence in enumerate(talk.sentences) for word in words(sentence)]
    heard = [word for _, _, text, _ in segments for word in words(text)]
    matcher = difflib.SequenceMatcher(None, [word for word, _ in said], heard, autojunk=False)
    in_order = Counter(
        said[index][1] for match in matcher.get_matching_blocks() for index in range(match.a, match.a + match.size)
    )
    found = [in_order[place] >= HEARD * len(words(sentence)) for place, sentence in enumerate(talk.sentences)]
    print(f"{sum(found)} of {len(found)} sentences, {len(heard)} of {len(said)} words")
    assert sum(found) >= 0.9 * len(found)
    assert len(heard) <= 1.02 * len(said)  # none is there twice


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())
