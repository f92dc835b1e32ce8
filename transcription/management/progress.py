"""The progress of a download, printed by a command."""

import sys
from typing import Any


class Progress:
    """Prints how much has been downloaded: each percent on one line of a terminal, else a line for each tenth."""

    def __init__(self, out: Any) -> None:
        self.out = out
        self.percent = -1

    def __call__(self, done: int, whole: int) -> None:
        is_terminal = sys.stdout.isatty()
        step = 1 if is_terminal else 10
        percent = 100 * done // max(1, whole) // step * step
        if percent != self.percent:
            self.percent = percent
            text = f"  {percent:3d} % of {whole / 1024**2:.0f} MB"
            self.out.write(f"\r{text}" if is_terminal else text, ending="" if is_terminal else "\n")
            self.out.flush()

    def end(self) -> None:
        """Begin a new line on a terminal."""
        if self.percent >= 0 and sys.stdout.isatty():
            self.out.write("")
