"""Two processes at one row, hundreds of times: one wins, what the other writes late is refused, and neither waits for
the other for ever.

Run on PostgreSQL too (`DATABASE_URL`): SQLite lets one transaction in at a time.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server import NANO, ROOT, Server

# On SQLite, which lets one transaction in at a time, `make test` looks a little; SLOW=1 as long as on PostgreSQL.
IS_LONG = os.environ.get("SLOW") or os.environ.get("DATABASE_URL", "").startswith("postgres")
ROUNDS = int(os.environ.get("ROUNDS", "300" if IS_LONG else "20"))
FEW = max(20, ROUNDS // 6)


class Process:
    """A racer on the other end of two pipes."""

    def __init__(self, server: Server, *wrapper: str) -> None:
        self.child = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "tests.racer"],
            cwd=ROOT, env=server.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def begin(self, *act: object) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(act) + "\n")
        self.child.stdin.flush()

    def end(self) -> Any:
        """What came of the act that was begun. An error, such as a deadlock, fails the test."""
        assert self.child.stdout is not None
        answer = json.loads(self.child.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["answer"]

    def do(self, *act: object) -> Any:
        self.begin(*act)
        return self.end()


Pair = tuple[Process, Process]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two processes over one database."""
    server = Server(tmp_path_factory.mktemp("races") / "data", NANO)
    server.prepare()
    processes = Process(server), Process(server)
    yield processes
    for process in processes:
        process.child.communicate()
    server.stop()


def race(pair: Pair, one: tuple[object, ...], other: tuple[object, ...]) -> tuple[Any, Any]:
    """Have both do something at once; return what came of each."""
    pair[0].begin(*one)
    pair[1].begin(*other)
    return pair[0].end(), pair[1].end()


@pytest.mark.parametrize(
    ("rows", "claim"),
    [
        (("make_job", "queued"), "claim_job"),
        (("make_job", "finishing"), "claim_finished_job"),
        (("make_job", "transcribing", 1), "claim_section"),
        (("make_download",), "claim_download"),
        (("make_deliveries",), "claim_delivery"),
    ],
)
def test_one_of_two_wins_a_claim(pair: Pair, rows: tuple[object, ...], claim: str) -> None:
    for _ in range(ROUNDS):
        pair[0].do(*rows)
        assert sorted(race(pair, ("win", claim), ("win", claim))) == [False, True]


def test_two_sections_go_to_two_workers(pair: Pair) -> None:
    for _ in range(FEW):
        pair[0].do("make_job", "transcribing", 2)
        assert race(pair, ("win", "claim_section"), ("win", "claim_section")) == (True, True)


def test_nothing_is_written_under_a_claim_that_another_worker_has_by_now(pair: Pair) -> None:
    taken = 0
    for _ in range(ROUNDS):
        pair[0].do("make_job", "transcribing", 1)
        assert pair[0].do("win", "claim_section")
        pair[0].do("run_out")
        stored, seen = race(pair, ("store", 3), ("take_over",))
        if seen is not None:
            taken += 1
            assert pair[0].do("state")["segments"] == seen <= stored
    assert taken, "the second worker never came between"


@pytest.mark.parametrize("how", ["cancel", "fail", "delete"])
def test_ending_a_job_and_working_on_it_never_wait_for_each_other(pair: Pair, how: str) -> None:
    for number in range(ROUNDS):
        pair[0].do("make_job", "transcribing", 2)
        assert pair[0].do("win", "claim_section")
        work = ("store", 3) if number % 2 else ("close",)
        _, ended = race(pair, work, ("end", how))
        assert ended
        state = pair[0].do("state")
        assert state["claims"] == 0
        assert state["jobs"] == ([] if how == "delete" else ["cancelled" if how == "cancel" else "failed"])


def test_sweeping_and_working_never_wait_for_each_other(pair: Pair) -> None:
    for _ in range(FEW):
        pair[0].do("make_job", "transcribing", 2)
        assert pair[0].do("win", "claim_section")
        pair[0].do("run_out")
        race(pair, ("store", 2), ("sweep",))


def test_two_sweeps_return_a_section_once(pair: Pair) -> None:
    for _ in range(FEW):
        pair[0].do("make_job", "transcribing", 2)
        assert pair[0].do("win", "claim_section")
        pair[0].do("run_out")
        race(pair, ("sweep",), ("sweep",))
        assert pair[0].do("state")["claims"] == 0


@pytest.mark.parametrize("work", ["renew_download", "finish_download"])
def test_a_download_and_ending_the_jobs_that_wait_for_it_never_wait_for_each_other(pair: Pair, work: str) -> None:
    for _ in range(FEW):
        pair[0].do("make_download")
        assert pair[0].do("win", "claim_download")
        _, ended = race(pair, (work,), ("end", "cancel"))
        assert ended
        expected = {"renew_download": ["cancelled", "downloading"], "finish_download": ["cancelled", "queued"]}
        assert pair[0].do("state")["jobs"] == expected[work]


def test_a_job_that_comes_to_wait_for_a_model_just_as_it_arrives_is_not_forgotten(pair: Pair) -> None:
    for _ in range(FEW):
        pair[0].do("make_download")
        assert pair[0].do("win", "claim_download")
        pair[1].do("requeue")
        assert pair[1].do("win", "claim_job")
        race(pair, ("finish_download",), ("wait_for_model",))
        pair[0].do("sweep")
        state = pair[0].do("state")
        assert state["downloads"] or state["jobs"] == ["queued", "queued"]
