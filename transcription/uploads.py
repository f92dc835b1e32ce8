"""A file that is uploaded in chunks: begin, add, discard.

The row's offset says how many bytes have arrived. Bytes are synced to the disk before the offset moves, so whatever
lies after it was left by a process that died, and the next chunk overwrites it. A lock on the file keeps two chunks
from being written at once.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BufferedRandom
from typing import Protocol

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.utils import timezone

from transcription import disk
from transcription.models import Upload

BLOCK = 256 * 1024


class Chunk(Protocol):
    """A chunk's bytes, read as they arrive."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Sum:
    """The checksum of a chunk, as its client sent it."""

    algorithm: str  # one that hashlib knows
    digest: bytes


class Gone(Exception):
    """The upload or its file no longer exists."""


class Busy(Exception):
    """Another chunk of this upload is being written."""


class WrongOffset(Exception):
    """The chunk does not begin where the upload ends."""


class WrongSum(Exception):
    """The chunk's bytes do not have the checksum that the client sent."""


def begin(owner: AbstractBaseUser, name: str, size: int, metadata: str = "") -> Upload:
    """Create an upload for a file of `size` bytes. Raises DiskFull."""
    upload = Upload(owner_id=owner.pk, original_name=name, bytes=size, metadata=metadata, expires_at=_expiry())
    if not size:
        upload.sha256 = hashlib.sha256().hexdigest()
    settings.UPLOADS_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
    with disk.full_disk_is_a_problem():
        upload.path.touch(mode=0o600, exist_ok=False)
        try:
            upload.save(force_insert=True)
        except BaseException:
            upload.path.unlink()
            raise
    return upload


def discard(upload: Upload) -> bool:
    """Remove an upload; return False if it is gone, for example because a job has taken it."""
    if not Upload.objects.filter(pk=upload.pk).delete()[0]:
        return False
    upload.path.unlink(missing_ok=True)
    return True


def add(upload: Upload, offset: int, chunk: Chunk, expected: Sum | None = None) -> Upload:
    """Write a chunk that begins at `offset` and return the changed upload. The last chunk costs reading the whole file.

    The caller makes sure that the chunk is not longer than what is missing. Any exception leaves the offset as it was.
    Raises Busy, DiskFull, Gone, WrongOffset, WrongSum.
    """
    with disk.full_disk_is_a_problem(), _locked_file(upload) as file:
        now = Upload.objects.filter(pk=upload.pk).first()
        if now is None:
            raise Gone
        if now.offset != offset:
            raise WrongOffset
        now.offset += _write(file, offset, chunk, expected)
        now.expires_at = _expiry()
        if now.is_complete:
            file.seek(0)
            now.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        changes = {"offset": now.offset, "sha256": now.sha256, "expires_at": now.expires_at}
        if not Upload.objects.filter(pk=now.pk, offset=offset).update(**changes):
            raise Gone
        return now


@contextmanager
def _locked_file(upload: Upload) -> Iterator[BufferedRandom]:
    """Open the upload's file and lock it. Raises Gone, Busy."""
    try:
        file = upload.path.open("r+b")
    except FileNotFoundError as error:
        raise Gone from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy from error
        yield file


def _write(file: BufferedRandom, offset: int, chunk: Chunk, expected: Sum | None) -> int:
    """Write a chunk and sync it to the disk; return its length. Raises WrongSum."""
    digest = hashlib.new(expected.algorithm, usedforsecurity=False) if expected else None
    file.seek(offset)
    while block := chunk.read(BLOCK):
        file.write(block)
        if digest:
            digest.update(block)
    if expected and digest and digest.digest() != expected.digest:
        raise WrongSum
    file.flush()
    os.fsync(file.fileno())
    return file.tell() - offset


def _expiry() -> datetime:
    return timezone.now() + timedelta(hours=settings.UPLOAD_EXPIRES_HOURS)
