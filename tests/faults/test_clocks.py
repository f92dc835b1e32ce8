"""Machines whose clocks disagree: leases and waits are reckoned by the database's clock.

On PostgreSQL alone: an SQLite file belongs to one machine, whose clock is the database's.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.faults.test_races import Process
from tests.server import NANO, Server

pytestmark = [pytest.mark.two_machines, pytest.mark.needs("faketime")]

Start = Callable[[str], Process]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts a process whose clock is off by a `faketime` offset, such as +1h; all share one database."""
    server = Server(tmp_path_factory.mktemp("clocks") / "data", NANO)
    server.prepare()
    processes: list[Process] = []

    def begin(offset: str) -> Process:
        processes.append(Process(server, "faketime", "-f", offset))
        return processes[-1]

    yield begin
    for process in processes:
        process.child.communicate()


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_a_lease_lasts_as_long_whatever_the_workers_clock_says(start: Start, offset: str) -> None:
    astray, true = start(offset), start("+0")
    true.do("make_job", "transcribing", 1)
    assert astray.do("win", "claim_section")
    assert abs(astray.do("clock_error")) > 3500
    assert 50 < true.do("lease_left") <= 60
    astray.do("renew")
    assert 50 < true.do("lease_left") <= 60


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_a_sweep_takes_no_living_workers_lease_and_every_dead_ones(start: Start, offset: str) -> None:
    astray, true = start(offset), start("+0")
    true.do("make_job", "transcribing", 1)
    assert true.do("win", "claim_section")
    astray.do("sweep")
    assert true.do("state")["claims"] == 1
    true.do("run_out")
    astray.do("sweep")
    assert true.do("state")["claims"] == 0


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_what_was_given_on_a_machine_whose_clock_is_off_is_taken_at_once(start: Start, offset: str) -> None:
    astray, true = start(offset), start("+0")
    astray.do("make_job", "queued")
    assert true.do("win", "claim_job")


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_a_worker_whose_clock_is_off_counts_as_alive(start: Start, offset: str) -> None:
    astray = start(offset)
    astray.do("beat")
    assert start("+0").do("alive") == 2  # with the one that looks


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_a_wait_lasts_as_long_whatever_the_workers_clock_says(start: Start, offset: str) -> None:
    astray, true = start(offset), start("+0")
    true.do("make_job", "transcribing", 1)
    assert astray.do("win", "claim_section")
    astray.do("wait_for_space")
    assert not true.do("win", "claim_section")
    assert 20 < true.do("wait_left") <= 30
