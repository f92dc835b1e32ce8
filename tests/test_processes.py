import os
import signal
import subprocess
import sys
import threading

import pytest

from transcription import processes


def test_on_a_mac_nothing_stands_in_the_way_of_posix_spawn(monkeypatch):
    spawned = []
    spawn = os.posix_spawn
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "posix_spawn", lambda *args, **kwargs: spawned.append(args[0]) or spawn(*args, **kwargs))

    process = processes.start(["/bin/sh", "-c", "echo hello"], env={"LC_ALL": "C"}, stdout=subprocess.PIPE)

    assert process.communicate()[0] == b"hello\n"
    assert spawned == ["/bin/sh"]


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac gives up the session for posix_spawn")
def test_elsewhere_a_ctrl_c_in_the_terminal_does_not_reach_the_child():
    process = processes.start(["/bin/sleep", "30"])
    try:
        assert os.getsid(process.pid) != os.getsid(0)
    finally:
        process.kill()
        process.wait()


def test_a_program_without_its_path_is_refused():
    with pytest.raises(ValueError, match="ffmpeg is no absolute path"):
        processes.start(["ffmpeg"])


WHO = """
import os
from transcription import processes
print(processes.namespace(), processes.started(os.getpid()), sep=";")
"""
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]


def another(*before: str) -> tuple[str, int]:
    """The namespace of a new process as itself sees it, and when it was started."""
    child = subprocess.run([*before, sys.executable, "-c", WHO], capture_output=True, text=True, check=True)
    where, _, when = child.stdout.partition(";")
    return where, int(when)


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has no PID namespaces")
def test_processes_that_count_by_themselves_are_told_apart():
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a PID namespace")
    here, before = processes.namespace(), processes.started(os.getpid())

    neighbour, after = another()
    container, inside = another(*UNSHARE, "--mount-proc")
    other, unknown = another(*UNSHARE)  # its /proc is the one outside, where its number means another process

    assert neighbour == here
    assert 0 < before <= after <= inside
    assert unknown == 0
    assert here not in (container, other)
    assert container.split()[0] == other.split()[0] == here.split()[0]


def test_a_process_is_running_until_it_ends():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    since = processes.started(child.pid)
    assert processes.is_running(child.pid, since=since)
    assert processes.is_running(child.pid, since=0)
    child.communicate(b"\n")
    assert not processes.is_running(child.pid, since=since)


def test_without_proc_only_the_number_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert processes.namespace() == ""
    assert processes.started(os.getpid()) == 0
    assert processes.is_running(os.getpid(), since=7)


class Ear:
    """Who waits for a child: the lines it was given, and whether it was told of the end."""

    def __init__(self) -> None:
        self.lines: list[object] = []
        self.is_over = threading.Event()

    def __call__(self, line: object) -> None:
        if line is None:
            self.is_over.set()
        elif line == "unheard-of":
            raise KeyError(line)
        else:
            self.lines.append(line)


@pytest.mark.parametrize(
    "said",
    [
        "print('\"unheard-of\"', flush=True)",
        "print('no JSON', flush=True)",
        "import os; os.write(1, bytes([255, 254, 10]))",
        "import os; os.close(1)",
    ],
    ids=["what its reader cannot bear", "no JSON", "no UTF-8", "nothing any more"],
)
def test_a_child_that_is_not_heard_any_more_ends_and_who_waits_is_told(monkeypatch, said):
    monkeypatch.setattr(processes, "CLOSE_SECONDS", 0.1)
    ear = Ear()
    child = processes.LineChild([sys.executable, "-c", f"print(1, flush=True); {said}; input()"], on_line=ear)
    try:
        assert ear.is_over.wait(20)
        assert not child.is_running
        assert ear.lines == [1]
        assert child.wait() == -signal.SIGKILL  # and not at the end of its input
    finally:
        child.stop()


def test_a_child_that_ends_by_itself_keeps_its_status():
    ear = Ear()
    child = processes.LineChild(
        [sys.executable, "-c", "print(1); print('[2', end='', flush=True); exit(3)"], on_line=ear
    )
    try:
        assert ear.is_over.wait(20)
        assert child.wait() == 3
        assert ear.lines == [1]
    finally:
        child.stop()


def test_a_child_that_is_stopped_is_no_failure_to_understand(caplog):
    ear = Ear()
    processes.LineChild([sys.executable, "-c", "input()"], on_line=ear).stop()
    assert ear.is_over.wait(20)
    assert not caplog.records
