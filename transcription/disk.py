"""Files on a disk: whether there is room, temporary files, remembered entries, and what must survive a power cut."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from django.conf import settings

from transcription import errors


def free_bytes(folder: Path) -> int:
    """How much is free on the disk of a folder, which need not be there yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check(folder: Path, needed: float = 0) -> None:
    """See that `needed` bytes fit onto the disk of `folder` and leave FREE_SPACE_RESERVE_BYTES. Raises DiskFull."""
    if free_bytes(folder) < needed + settings.FREE_SPACE_RESERVE_BYTES:
        raise errors.DiskFull


@contextmanager
def full_disk_is_a_problem() -> Iterator[None]:
    """Raise DiskFull in place of the system's error that a disk or a quota is used up."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise errors.DiskFull from error
        raise


def is_disk_full(error: Exception) -> bool:
    """Whether the system reports that a disk or a quota is used up."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def reports_full_disk(message: str) -> bool:
    """Whether another program's message says that a disk or a quota is used up."""
    return any(sentence in message for sentence in ("No space left on device", "Disk quota exceeded"))


def temporary_file(*, in_memory: int) -> IO[bytes]:
    """A file without a name, in memory up to `in_memory` bytes and on the data disk above. Raises DiskFull."""
    return tempfile.SpooledTemporaryFile(in_memory, dir=str(_temporary()))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder on the data disk, locked while it is used and removed at the end. Raises DiskFull."""
    with full_disk_is_a_problem():
        folder = Path(tempfile.mkdtemp(dir=_temporary()))
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def abandoned_folders(before: float) -> Iterator[Path]:
    """The temporary folders, unchanged since `before`, that nobody has locked: the process of each was killed."""
    folders = list(settings.TEMPORARY_DIR.iterdir()) if settings.TEMPORARY_DIR.is_dir() else []
    for folder in folders:
        with contextlib.suppress(OSError):  # not a folder, not ours, gone by now, or locked
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if folder.stat().st_ctime < before:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield folder
            finally:
                os.close(held)


def _temporary() -> Path:
    """The folder of all temporary files, made if it is missing. Raises DiskFull when there is no room left."""
    with full_disk_is_a_problem():
        settings.TEMPORARY_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    check(settings.TEMPORARY_DIR)
    return Path(settings.TEMPORARY_DIR)


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file to a second name, or copy it where no link can be; the target appears whole or not at all."""
    try:
        os.link(source, target)
    except OSError:  # two disks, or a file system without hard links
        draft = target.with_name(f"{target.name}.copy")
        try:
            shutil.copy(source, draft)
            sync_file(draft)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


def remembered(file: str) -> dict[str, dict[str, Any]]:
    """The entries of a JSON file in DATA_DIR; none when the file is missing or damaged."""
    try:
        entries = json.loads((settings.DATA_DIR / file).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def remember(file: str, key: str, entry: dict[str, Any]) -> None:
    """Store an entry in a JSON file in DATA_DIR, for all processes of this machine.

    Of two processes that write at once one may lose its entry, so only store what can be found out again.
    """
    # Not the PID: containers that share DATA_DIR have the same ones.
    draft = settings.DATA_DIR / f".{file}.{secrets.token_hex(8)}"
    settings.DATA_DIR.mkdir(parents=True, exist_ok=True)
    draft.write_text(json.dumps({**remembered(file), key: entry}, indent=1))
    draft.replace(settings.DATA_DIR / file)


def sync_file(path: Path) -> None:
    """Return when a file's bytes would survive a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder would survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network shares cannot do it for folders
            raise
    finally:
        os.close(descriptor)
