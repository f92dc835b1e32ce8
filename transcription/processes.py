"""Starting other programs, and telling whether a process still runs."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)

PROC = Path("/proc")
CLOSE_SECONDS = 5  # for a child to end after it has closed its output

Pipe = IO[bytes] | int | None  # as for Popen: a file, subprocess.PIPE or DEVNULL, or None for this process's own


def start(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: Pipe = None,
    stdout: Pipe = None,
    stderr: Pipe = None,
) -> subprocess.Popen[bytes]:
    """Start a program named by its absolute path.

    On a Mac a fork of a process with threads or Metal may crash the child before it runs, so Popen must be able to use
    posix_spawn, which it does only for an absolute path without close_fds, cwd, a new session or preexec_fn. No
    descriptor leaks because of that: Python opens all of them as not inheritable. On Linux the child gets a session of
    its own, so that a Ctrl-C in the terminal reaches the parent alone, which then stops the child.
    """
    if not arguments[0].startswith("/"):
        raise ValueError(f"{arguments[0]} is no absolute path")
    return subprocess.Popen(
        arguments,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        close_fds=False,
        start_new_session=sys.platform != "darwin",
    )


def namespace() -> str:
    """The machine's boot and the PID namespace, within which a PID names one process; empty outside Linux.

    A hostname is not enough: two containers, or two machines, may have the same one and the same PIDs.
    """
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def started(pid: int) -> int:
    """When a process of this namespace was started, in clock ticks since the boot; 0 if that is not known."""
    try:
        if (PROC / "self").readlink() != Path(str(os.getpid())):
            return 0  # /proc is another namespace's, where `pid` is another process
        # The program's name, in parentheses, may hold spaces and parentheses; the 22nd field is the 20th after it.
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def is_running(pid: int, *, since: int) -> bool:
    """Whether the process of this namespace that was `started` at `since` still runs; another may have its PID now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, but in a container that may still be our worker
        pass
    now = started(pid)
    return not (since and now) or since == now


# Turns off telemetry: onnxruntime's wheels report their use by default and write a .ses file into the temporary folder;
# huggingface_hub sends its name and version to the hub.
SILENT = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


class LineChild:
    """A child that speaks JSON lines with this process (`transcription.whisper.json_lines`).

    A thread calls `on_line` with each line that the child writes, and with None after the last. If `on_line` raises,
    the child is killed.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        on_line: Callable[[dict[str, Any] | None], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        env = {**os.environ, **SILENT, "PYTHONPATH": str(Path(__file__).parent.parent), **(environment or {})}
        self._process = start(arguments, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._is_silent = False
        threading.Thread(target=self._listen, args=(on_line,), daemon=True).start()

    def _listen(self, on_line: Callable[[dict[str, Any] | None], None]) -> None:
        """Pass the child's lines on, and None after the last one; if that fails, kill the child."""
        assert self._process.stdout is not None  # noqa: S101  (it is a pipe)
        patience = CLOSE_SECONDS
        try:
            for line in self._process.stdout:
                if line.endswith(b"\n"):  # a line without one was cut off by the child's death
                    on_line(json.loads(line))
        except Exception:  # noqa: BLE001  (whatever it is: a child without a reader must not go on)
            if not self._is_silent:  # stop() has not closed the pipe
                log.exception("what %s said was not understood", self._process.args)
            patience = 0
        self._is_silent = True  # before on_line(None), whose receiver may look at `is_running`
        try:
            on_line(None)
        finally:
            try:
                self._process.wait(patience)  # a child that ends by itself has a status of its own
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the child runs; False after its last line, since its pipes close a moment before the process ends."""
        return not self._is_silent and self._process.poll() is None

    def say(self, line: dict[str, Any]) -> None:
        """Write a line to the child. Raises OSError if the child is gone."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        self._process.stdin.flush()

    def wait(self) -> int:
        return self._process.wait()

    def stop(self) -> None:
        """Kill the child and close its pipes."""
        self._is_silent = True
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a line may still be in the buffer
                    pipe.close()
