"""How a command tells how far something is."""

import sys
from typing import Any


class Progress:
    """Prints how much of a download is here: over itself on a terminal, a line a tenth when nobody watches one."""

    def __init__(self, out: Any) -> None:
        self.out = out
        self.shown = -1

    def __call__(self, done: int, whole: int) -> None:
        step = 1 if sys.stdout.isatty() else 10
        percent = 100 * done // max(1, whole) // step * step
        if percent != self.shown:
            self.shown = percent
            text = f"  {percent:3d} % of {whole / 1024**2:.0f} MB"
            self.out.write(f"\r{text}" if sys.stdout.isatty() else text, ending="" if sys.stdout.isatty() else "\n")
            self.out.flush()

    def end(self) -> None:
        """Leave the line that was written over."""
        if self.shown >= 0 and sys.stdout.isatty():
            self.out.write("")
