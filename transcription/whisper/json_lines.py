"""What a child process and its parent say to each other: JSON, a line at a time.

Commands come on standard input, events go to standard output. The child ends when its standard input does: with its
parent, however that one died.
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
    """The process that started this one. To make it is to own standard input and output: once, in `main`."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the parent's to handle
        self.commands: queue.SimpleQueue[Line] = queue.SimpleQueue()
        # Standard output is for events alone: what a library prints goes to standard error.
        self._events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._one_at_a_time = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Hand commands over; end the process at once when the parent is gone, whatever the main thread is doing."""
        try:
            for line in sys.stdin:
                self.commands.put(json.loads(line))
        finally:
            os._exit(0)  # also after a line that is no JSON: a child that hears nothing more must not live on

    def say(self, event: Line) -> None:
        """Raises ValueError for what is not JSON: better an error here than a line that the parent cannot read."""
        line = json.dumps(event, allow_nan=False) + "\n"
        with self._one_at_a_time:
            self._events.write(line)
            self._events.flush()
