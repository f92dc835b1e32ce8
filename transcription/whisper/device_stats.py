"""What a device is called, how much memory it has and uses, and how busy it is.

Asked in the runner, in a thread beside the engine. No library is needed for it: NVIDIA's own program tells of its GPUs
(`nvidia-smi --help-query-gpu`), the kernel of the rest. What a machine does not tell stays None.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MIB = 1024**2
ANSWER_SECONDS = 10  # a driver that hangs must not hold the thread for ever
NVIDIA_FIELDS = "name,memory.total,memory.used,utilization.gpu"


@dataclass(frozen=True)
class Reading:
    """A device now. Memory in MiB, `utilization` 0-100."""

    name: str = ""
    memory_total_mb: int | None = None
    memory_used_mb: int | None = None
    utilization: int | None = None


def read(device: str, held: int | None = None) -> Reading:
    """Look at a device: `cpu`, `mps`, `cuda:1`. `held`: bytes of its memory that the engine knows to hold itself."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return _nvidia(int(index or 0))
    total, used = _memory()
    return Reading(
        name=_processor(),
        memory_total_mb=total,
        memory_used_mb=used if held is None else held // MIB,
        # The load is of the machine's cores: of an Apple GPU nobody tells without a password.
        utilization=_load() if kind == "cpu" else None,
    )


# ------------------------------------------------------------------ NVIDIA


def _nvidia(index: int) -> Reading:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Reading()
    query = (f"--query-gpu={NVIDIA_FIELDS}", "--format=csv,noheader,nounits", "-i", _nvidia_id(index))
    return nvidia_reading(_output([str(Path(program).absolute()), *query]))


def _nvidia_id(index: int) -> str:
    """What NVIDIA's programs call the GPU that CUDA counts as `index` here: a number or a UUID."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[index] if index < len(visible) and visible[index] else str(index)


def nvidia_reading(line: str) -> Reading:
    """One line of nvidia-smi's CSV without units: `NVIDIA GeForce RTX 4090, 24564, 1024, 12`; `[N/A]` is unknown."""
    words = [word.strip() for word in line.strip().rsplit(",", 3)]
    if len(words) != 4:  # a sentence that says why there is no answer
        return Reading()
    numbers = [int(word) if word.isdecimal() else None for word in words[1:]]
    return Reading(words[0], *numbers)


# ------------------------------------------------------------------ the machine itself


@cache
def _processor() -> str:
    """What the processor is called; on Apple silicon the GPU bears the same name."""
    if platform.system() == "Darwin":  # not sys.platform, by which mypy takes what follows for unreachable
        return _output(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]).strip() or platform.machine()
    try:
        return processor_in(Path("/proc/cpuinfo").read_text()) or platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def processor_in(cpuinfo: str) -> str:
    """The name in Linux's /proc/cpuinfo; empty where a processor has none there (most ARMs)."""
    found = re.search(r"^model name\s*:\s*(.+?)\s*$", cpuinfo, re.MULTILINE)
    return found[1] if found else ""


def _memory() -> tuple[int | None, int | None]:
    """The machine's memory and what of it is in use, in MiB."""
    try:
        return memory_in(Path("/proc/meminfo").read_text())
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB, None


def memory_in(meminfo: str) -> tuple[int | None, int | None]:
    """Linux's /proc/meminfo: what is used is all but what a program could still have."""
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.MULTILINE)}
    total, available = kib.get("MemTotal"), kib.get("MemAvailable")
    if total is None:
        return None, None
    return total // 1024, None if available is None else (total - available) // 1024


def _load() -> int:
    return round(100 * min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def _output(arguments: Sequence[str]) -> str:
    """What a program prints; nothing when it cannot."""
    try:
        # Without close_fds a Mac spawns instead of forking, which it could not beside Metal's threads.
        ended = subprocess.run(
            arguments, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False, close_fds=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout if ended.returncode == 0 else ""
