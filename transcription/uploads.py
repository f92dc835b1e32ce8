"""A file that comes in chunks: begun, added to, given up.

A row says up to where its bytes are here. Bytes are on the disk before the row says so: what lies after its offset was
left by a process that died, and the next chunk is written over it. Whoever writes holds the file's lock, so that two
chunks for one place are never mixed.
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
    """The bytes of a chunk as they are read."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Sum:
    """What a client says that a chunk's bytes sum up to."""

    algorithm: str  # one that hashlib knows
    digest: bytes


class Gone(Exception):
    """The upload is not there any more, or its bytes are not."""


class Busy(Exception):
    """Another chunk of this upload is being written."""


class WrongOffset(Exception):
    """The chunk does not begin where the upload ends."""


class WrongSum(Exception):
    """The chunk did not come as it was sent."""


def begin(owner: AbstractBaseUser, name: str, size: int, metadata: str = "") -> Upload:
    """Make place for a file of so many bytes."""
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
    """Remove an upload; return False if it is not there any more, as when a job has taken it."""
    if not Upload.objects.filter(pk=upload.pk).delete()[0]:
        return False
    upload.path.unlink(missing_ok=True)
    return True


def add(upload: Upload, offset: int, chunk: Chunk, expected: Sum | None = None) -> Upload:
    """Write a chunk that begins at `offset`; return the upload as it is then. The last one costs a look at the whole.

    The caller sees to it that the chunk is not longer than what is missing. Whatever is raised, the offset is as it
    was. Raises Busy, DiskFull, Gone, WrongOffset, WrongSum.
    """
    with disk.full_disk_is_a_problem(), _held(upload) as file:
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
def _held(upload: Upload) -> Iterator[BufferedRandom]:
    """The upload's file, that nobody else is writing to."""
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
    """How many bytes there are of a chunk that is now on the disk."""
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
