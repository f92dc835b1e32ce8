"""Which process of a server is which, and how one dies."""

import contextlib
import os
import signal

from tests.server import Server, processes

# What is in the command line of each of a server's processes.
WORDS = {
    "web": "uvicorn",
    "default worker": "worker -Q default",
    "device worker": "worker -Q device",
    "runner": "transcription.whisper.runner",
    "speech finder": "transcription.whisper.vad",
}


def family(server: Server) -> dict[int, str]:
    """The command lines of all processes below a server's first, by their ids."""
    assert server.process is not None
    found: dict[int, str] = {}
    parents = {server.process.pid}
    everything = processes()
    while parents:
        children = {pid: words for pid, parent, words in everything if parent in parents and "defunct" not in words}
        found |= children
        parents = set(children)
    return found


def pid_of(server: Server, victim: str) -> int:
    """The id of one of a server's processes, or 0 while it is not there."""
    return next((pid for pid, words in family(server).items() if WORDS[victim] in words), 0)


def kill(server: Server, victim: str) -> int:
    """Kill -9 one of a server's processes; return its id, or 0 when it was not there."""
    pid = pid_of(server, victim)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pid
