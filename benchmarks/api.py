"""Measures the native API's lists for a user with very many jobs.

    python -m benchmarks.api [--jobs 100000] [--others 20000] [--times 20] [--folder FOLDER]

The jobs have recordings, tags and texts of some thousand characters, and some of them are queued. A request goes
through all of Django in one process, so its time is the server's, without a network (`benchmarks/many_jobs.py`).
With `--folder` the database of more than a gigabyte is kept there, and used again the next time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from benchmarks.machine import machine
from tests.server import NANO, ROOT, Server


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the native API's lists with very many jobs.")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--others", type=int, default=20_000)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    print(f"{machine()}; load average {os.getloadavg()[0]:.2f}", flush=True)
    temporary = tempfile.TemporaryDirectory(prefix="stenograf-api-")
    with nullcontext(arguments.folder) if arguments.folder else temporary as folder:
        counts = f"{arguments.jobs}, {arguments.others}, {arguments.times}"
        program = f"from benchmarks import many_jobs; many_jobs.main({counts})"
        server = Server(Path(folder), NANO, DEFAULT_MODEL="nano", LOG_LEVEL="error", DATABASE_URL="", TZ="UTC")
        migrating = server.manage("migrate", "-v", "0")
        assert migrating.returncode == 0, migrating.stderr
        command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", program]
        sys.exit(subprocess.run(command, cwd=ROOT, env=server.environment, check=False).returncode)


if __name__ == "__main__":
    main()
