"""The child's side of the pipes between a child process and its parent: one JSON object a line.

Commands come on standard input, events go to standard output. The child ends when its standard input is closed, so it
ends with its parent, however the parent died.
"""

import json
import os
import queue
import signal
import sys
import threading
from typing import Any

Line = dict[str, Any]


class Parent:
    """The process that started this one. Takes over standard input and output, so `main` creates it, once."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's to handle
        self.commands: queue.SimpleQueue[Line] = queue.SimpleQueue()
        # Standard output carries events only; what a library prints goes to standard error.
        self._events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._write_lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Queue the parent's commands. End the process when the parent is gone, whatever the main thread is doing."""
        try:
            for line in sys.stdin:
                self.commands.put(json.loads(line))
        finally:
            os._exit(0)  # also after a line that is no JSON: a child that gets no more commands must not live on

    def say(self, event: Line) -> None:
        """Send an event. Raises ValueError for NaN and infinity, which are no JSON that the parent could read."""
        line = json.dumps(event, allow_nan=False) + "\n"
        with self._write_lock:
            self._events.write(line)
            self._events.flush()
