"""A device's name, its memory, and how busy it is.

The runner reads them in a thread beside the engine. No library is needed: `nvidia-smi` reports on NVIDIA's GPUs
(`nvidia-smi --help-query-gpu`), and the kernel on the rest. What a machine does not report stays None.
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
    """The state of a device at one moment. Memory in MiB, `utilization` 0-100."""

    name: str = ""
    memory_total_mb: int | None = None
    memory_used_mb: int | None = None
    utilization: int | None = None


def read(device: str, held: int | None = None) -> Reading:
    """Read the state of `cpu`, `mps` or `cuda:1`. `held` is the memory in bytes that the engine itself holds."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return _read_nvidia(int(index or 0))
    total, used = _machine_memory()
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    return Reading(
        name=_processor_name(),
        memory_total_mb=total,
        memory_used_mb=used if held is None else held // MIB,
        # macOS reports the load of its GPU to administrators only.
        utilization=round(100 * min(1.0, load)) if kind == "cpu" else None,
    )


# ------------------------------------------------------------------ NVIDIA


def _read_nvidia(index: int) -> Reading:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Reading()
    # CUDA counts only the visible GPUs, which the variable names by number or UUID; nvidia-smi counts all.
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    gpu = visible[index] if index < len(visible) and visible[index] else str(index)
    query = (f"--query-gpu={NVIDIA_FIELDS}", "--format=csv,noheader,nounits", "-i", gpu)
    return parse_nvidia_smi(_output_of([str(Path(program).absolute()), *query]))


def parse_nvidia_smi(line: str) -> Reading:
    """One line of nvidia-smi's CSV without units: `NVIDIA GeForce RTX 4090, 24564, 1024, 12`; `[N/A]` is unknown."""
    columns = [column.strip() for column in line.strip().rsplit(",", 3)]
    if len(columns) != 4:  # an error message instead
        return Reading()
    return Reading(columns[0], *(int(column) if column.isdecimal() else None for column in columns[1:]))


# ------------------------------------------------------------------ the machine itself


@cache
def _processor_name() -> str:
    """The name of the processor; on Apple silicon the GPU has the same one."""
    if platform.system() == "Darwin":  # not sys.platform: mypy would call the rest unreachable
        return _output_of(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]).strip() or platform.machine()
    try:
        return parse_cpuinfo(Path("/proc/cpuinfo").read_text()) or platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def parse_cpuinfo(cpuinfo: str) -> str:
    """The processor's name in Linux's /proc/cpuinfo; empty where it has none there (most ARMs)."""
    match = re.search(r"^model name\s*:\s*(.+?)\s*$", cpuinfo, re.MULTILINE)
    return match[1] if match else ""


def _machine_memory() -> tuple[int | None, int | None]:
    """The machine's memory and how much of it is in use, in MiB."""
    try:
        return parse_meminfo(Path("/proc/meminfo").read_text())
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB, None


def parse_meminfo(meminfo: str) -> tuple[int | None, int | None]:
    """Total and used memory in MiB from Linux's /proc/meminfo. What a program could still get counts as free."""
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.MULTILINE)}
    total, available = kib.get("MemTotal"), kib.get("MemAvailable")
    if total is None:
        return None, None
    return total // 1024, None if available is None else (total - available) // 1024


def _output_of(arguments: Sequence[str]) -> str:
    """The output of a program; empty when it fails."""
    try:
        # With close_fds Python forks on a Mac, which must not happen beside Metal's threads; without it, it spawns.
        result = subprocess.run(
            arguments, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False, close_fds=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout if result.returncode == 0 else ""
