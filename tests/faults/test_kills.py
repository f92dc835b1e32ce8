"""Processes that die in the middle of a recording lose nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import NANO, QUICKLY, ROOT, Server, files_below, processes, wait_until

Spoken = list[tuple[float, float, str, int]]  # start, end, text, id


@pytest.fixture(scope="module")
def undisturbed(nano_server: Server, long_recording: Path) -> Spoken:
    """What the recording gives when nobody interferes."""
    job = nano_server.transcribe(long_recording, language="en")
    assert job["status"] == "done", job
    return nano_server.segments(job["id"])


def kill_in_the_middle(server: Server, recording: Path, pid_of: str) -> tuple[str, Spoken]:
    """Kill a process once two segments are stored; return the job's id, and what was stored by then."""
    job_id = server.submit(recording, language="en")["id"]
    wait_until(lambda: len(server.segments(job_id)) >= 2)
    pid = server.runner_pid() if pid_of == "runner" else server.worker_pid(pid_of)
    assert server.job(job_id)["status"] == "transcribing"
    stored = server.segments(job_id)
    os.kill(pid, signal.SIGKILL)
    return job_id, stored


def assert_it_went_on(before: Spoken, after: Spoken, undisturbed: Spoken) -> None:
    """What was stored is as it was, nothing is there twice, and the words are those of a run that nobody disturbed.

    Not to the letter: where decoding was taken up again the model heard another window.
    """
    assert after[: len(before)] == before
    assert [start for start, *_ in after] == sorted({start for start, *_ in after})
    heard, expected = ("".join(text for _, _, text, _ in run).split() for run in (after, undisturbed))
    assert differing(heard, expected) < 0.15 * len(expected)


def differing(heard: list[str], expected: list[str]) -> int:
    """How many words are wrong, missing or too many.

    The same sentence comes again and again, so what difflib finds in common depends on a single word.
    """
    row = list(range(len(expected) + 1))
    for number, word in enumerate(heard, start=1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(expected, start=1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (word != other))
    return row[-1]


@pytest.mark.parametrize("victim", ["runner", "device.cpu", "default"])
def test_a_process_killed_in_the_middle_costs_nothing(
    nano_server: Server, long_recording: Path, undisturbed: Spoken, victim: str
) -> None:
    job_id, stored = kill_in_the_middle(nano_server, long_recording, victim)
    job = nano_server.wait(job_id)
    assert job["status"] == "done", job
    assert_it_went_on(stored, nano_server.segments(job_id), undisturbed)
    wait_until(nano_server.is_healthy)


def test_a_web_server_killed_in_the_middle_comes_back(nano_server: Server, long_recording: Path) -> None:
    assert nano_server.process is not None
    children = [pid for pid, parent, words in processes() if parent == nano_server.process.pid and "uvicorn" in words]
    job_id = nano_server.submit(long_recording, language="en")["id"]
    os.kill(children[0], signal.SIGKILL)
    wait_until(nano_server.is_healthy)
    assert nano_server.wait(job_id)["status"] == "done"


def test_a_recording_being_prepared_when_its_worker_dies_is_prepared_again(
    nano_server: Server, long_recording: Path
) -> None:
    jobs = [nano_server.submit(long_recording, **QUICKLY)["id"] for _ in range(4)]
    os.kill(nano_server.worker_pid("default"), signal.SIGKILL)
    assert [nano_server.wait(job)["status"] for job in jobs] == ["done"] * 4


def test_a_deleted_job_stops_at_once_and_leaves_no_file(nano_server: Server, long_recording: Path) -> None:
    job_id = nano_server.submit(long_recording, language="en")["id"]
    recording = nano_server.job(job_id)["recording"]
    wait_until(lambda: nano_server.segments(job_id))
    with nano_server.client() as client:
        assert client.delete(f"/api/v1/jobs/{job_id}/").status_code == 204
        assert client.get(f"/api/v1/jobs/{job_id}/").status_code == 404
    left = wait_until(lambda: [name for name in files_below(nano_server.data) if job_id in name] == [])
    assert left
    assert recording["id"] not in files_below(nano_server.data / "recordings")


def test_what_has_ended_leaves_no_decoded_sound(nano_server: Server) -> None:
    assert [name for name in files_below(nano_server.data / "recordings") if ".pcm" in name] == []
    # An upload in chunks that its client has left waits there until it expires.
    assert [name for name in files_below(nano_server.data / "uploads") if not name.endswith(".part")] == []


@pytest.fixture(scope="module")
def _spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("spare") / "data", NANO, DEFAULT_MODEL="nano", STALL_SECONDS="8")
    yield server
    server.stop()


@pytest.fixture
def spare_server(_spare: Server) -> Server:
    """A running server that a test may stop or kill as a whole."""
    if _spare.process is None:
        _spare.start()
    return _spare


def test_ctrl_c_stops_everything_and_the_next_start_goes_on(
    spare_server: Server, long_recording: Path, undisturbed: Spoken
) -> None:
    job_id = spare_server.submit(long_recording, language="en")["id"]
    wait_until(lambda: spare_server.segments(job_id))
    stored = spare_server.segments(job_id)
    assert spare_server.process is not None
    family = descendants(spare_server.process.pid)
    spare_server.stop()
    assert len(family) >= 4
    assert not family & {pid for pid, _, words in processes() if "defunct" not in words}
    spare_server.start()
    assert spare_server.wait(job_id)["status"] == "done"
    assert_it_went_on(stored, spare_server.segments(job_id), undisturbed)
    attempts = "SELECT attempts FROM transcription_section WHERE job_id = ?"
    assert set(spare_server.rows(attempts, job_id.replace("-", ""))) == {(1,)}


def test_parts_do_not_outlive_a_supervisor_that_was_killed(spare_server: Server) -> None:
    assert spare_server.process is not None
    family = descendants(spare_server.process.pid)
    os.kill(spare_server.process.pid, signal.SIGKILL)
    spare_server.process.wait()
    spare_server.process = None
    wait_until(lambda: not family & {pid for pid, _, words in processes() if "defunct" not in words}, 30)


@pytest.mark.parametrize("ask", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line_asked_to_end_leaves_nothing(
    tmp_path: Path, nano_server: Server, long_recording: Path, ask: int
) -> None:
    environment = {**nano_server.environment, "TMPDIR": str(tmp_path)}
    program = [sys.executable, "manage.py", "transcribe", str(long_recording), "--model", "nano"]
    with subprocess.Popen(program, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as command:
        wait_until(lambda: any("runner" in words for _, parent, words in processes() if parent == command.pid))
        family = descendants(command.pid)
        command.send_signal(ask)
        assert command.stderr is not None
        assert b"Traceback" not in command.stderr.read()
    assert command.returncode == 128 + ask
    assert not family & {pid for pid, _, words in processes() if "defunct" not in words}
    assert files_below(tmp_path) == []


def descendants(pid: int) -> set[int]:
    children = {child for child, parent, _ in processes() if parent == pid}
    return children | {found for child in children for found in descendants(child)}


def test_no_finished_section_is_decoded_again(nano_server: Server, lecture: Path) -> None:
    job_id = nano_server.submit(lecture, **QUICKLY)["id"]
    sections = 'SELECT "index", status, finished_at FROM transcription_section WHERE job_id = ? ORDER BY "index"'
    key = job_id.replace("-", "")
    wait_until(lambda: [status for _, status, _ in nano_server.rows(sections, key)][:1] == ["done"], 60)
    stored, first = nano_server.segments(job_id), nano_server.rows(sections, key)[0]
    os.kill(nano_server.worker_pid("device.cpu"), signal.SIGKILL)
    assert nano_server.wait(job_id)["status"] == "done"
    assert len(nano_server.rows(sections, key)) >= 3
    assert nano_server.rows(sections, key)[0] == first
    after = nano_server.segments(job_id)
    assert after[: len(stored)] == stored
    assert [start for start, *_ in after] == sorted({start for start, *_ in after})


def test_a_runner_that_hangs_is_stopped_and_the_work_goes_on(spare_server: Server, long_recording: Path) -> None:
    job_id = spare_server.submit(long_recording, language="en")["id"]
    wait_until(lambda: len(spare_server.segments(job_id)) >= 2)
    hanging = spare_server.runner_pid()
    os.kill(hanging, signal.SIGSTOP)
    stored = spare_server.segments(job_id)
    assert spare_server.wait(job_id)["status"] == "done"
    assert spare_server.segments(job_id)[: len(stored)] == stored
    assert hanging not in {pid for pid, _, words in processes() if "defunct" not in words}
    kinds = "SELECT kind FROM transcription_event WHERE job_id = ?"
    assert ("retrying",) in spare_server.rows(kinds, job_id.replace("-", ""))
