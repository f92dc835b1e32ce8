"""How this program starts another one."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

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
