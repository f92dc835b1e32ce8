"""How this program starts another one."""

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
CLOSE_SECONDS = 5  # a child that has closed its output is given to end

Pipe = IO[bytes] | int | None  # as Popen takes it: a file, subprocess.PIPE or DEVNULL, or ours


def start(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: Pipe = None,
    stdout: Pipe = None,
    stderr: Pipe = None,
) -> subprocess.Popen[bytes]:
    """Start a program named by its absolute path.

    On a Mac a fork of a process with threads or Metal may crash the child before it runs, so Popen must be left free to
    use posix_spawn, which it does only for an absolute path without close_fds, cwd, a new session or preexec_fn. No
    descriptor leaks for it: Python opens every one as not inheritable. On Linux the child gets a session of its own: a
    Ctrl-C in the terminal reaches its owner alone, who then decides what becomes of it.
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
    """Within what this process's PID names one process: the machine's boot and its PID namespace; empty outside Linux.

    Containers may share a hostname and count their processes from 1 each; so do machines of one name.
    """
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def started(pid: int) -> int:
    """When a process of this namespace was started, in clock ticks since the boot; 0 where that is not known."""
    try:
        if (PROC / "self").readlink() != Path(str(os.getpid())):
            return 0  # /proc is another namespace's, where `pid` names somebody else
        # The program's name, in parentheses, may hold spaces and parentheses; the 22nd field is the 20th after it.
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def is_running(pid: int, *, since: int) -> bool:
    """Whether the process of this namespace that `started` at `since` runs: not another that has its number now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and it may be ours in a container
        pass
    now = started(pid)
    return not (since and now) or since == now


# Nothing leaves the machine: onnxruntime's wheels carry a reporter of their use that is on unless told otherwise, and
# marks the temporary folder with a .ses file; huggingface_hub names itself to the hub.
SILENT = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


class LineChild:
    """A child that speaks JSON lines with this process (`transcription.whisper.json_lines`).

    `on_line` gets each line it says, in a thread of this child's own, and None when it will say no more. What `on_line`
    raises ends the child.
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
        """Hand over what the child says; whatever ends that ends the child, and who waits for it is told at once."""
        assert self._process.stdout is not None  # noqa: S101  (it is a pipe)
        patience = CLOSE_SECONDS
        try:
            for line in self._process.stdout:
                if line.endswith(b"\n"):  # one that does not was cut off by its death
                    on_line(json.loads(line))
        except Exception:  # noqa: BLE001  (whatever it is: a child that nobody hears must not go on)
            if not self._is_silent:  # stop() has not closed the pipe
                log.exception("what %s said was not understood", self._process.args)
            patience = 0
        self._is_silent = True  # first: who is told of the end may ask at once whether this child still runs
        try:
            on_line(None)
        finally:
            self._end(patience)

    def _end(self, patience: float) -> None:
        """Kill it unless it ends by itself in so many seconds, with a status of its own."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False from its last line on: a dying process closes its pipes a moment before the kernel calls it dead."""
        return not self._is_silent and self._process.poll() is None

    def say(self, line: dict[str, Any]) -> None:
        """Raises OSError when it is gone."""
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(json.dumps(line).encode() + b"\n")
        self._process.stdin.flush()

    def wait(self) -> int:
        return self._process.wait()

    def stop(self) -> None:
        """End it now; nothing of it is left."""
        self._is_silent = True
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # a line may still be in the buffer
                    pipe.close()
