"""Receives an upload: it is written straight to its own disk, and its SHA-256 computed meanwhile."""

import errno
import hashlib
import tempfile
import unicodedata
from pathlib import PurePosixPath
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.utils.translation import gettext as _

from transcription import errors
from transcription.templatetags.stenograf import size

LONGEST_NAME = 255  # bytes, what a file system and our column take
LONGEST_EXTENSION = 16
JOINERS = ("\N{ZERO WIDTH NON-JOINER}", "\N{ZERO WIDTH JOINER}")


def clean_name(name: str) -> str:
    """A name that is safe to store, to show and to put into a header: never empty, at most 255 bytes of UTF-8.

    Control and bidi characters are removed (an override would show `3pm.exe` as `exe.mp3`), and so is a path.
    """
    composed = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    visible = "".join(character for character in composed if _is_visible(character)).strip()
    if visible.strip(".") == "":
        return "recording"
    extension = PurePosixPath(visible).suffix
    if len(extension.encode()) > LONGEST_EXTENSION:
        extension = ""
    stem = visible[: len(visible) - len(extension)]
    longest = LONGEST_NAME - len(extension.encode())
    return stem.encode()[:longest].decode(errors="ignore") + extension  # no character is cut in half


def _is_visible(character: str) -> bool:
    # Cc control, Cf format (bidi, zero width), Cs lone surrogates, Zl and Zp line ends; Persian needs the joiners.
    return character in JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


class FileTooLarge(BadRequest):
    """Wherever the form is read, Django answers this with `errors.bad_request`, in the shape of the endpoint."""

    def __init__(self) -> None:
        message = _("The file is over %(size)s. Split it, or ask the administrator to raise the limit.")
        super().__init__(message % {"size": size(settings.MAX_UPLOAD_BYTES)})


class HashedUpload(TemporaryUploadedFile):
    """An upload on our disk, with its SHA-256."""

    sha256: str

    def __init__(self, name: str, content_type: str | None, charset: str | None, extra: dict[str, Any] | None) -> None:
        settings.UPLOADS_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Without any part of the given name: its extension may be too long for a file system.
        file = tempfile.NamedTemporaryFile(suffix=".upload", dir=settings.UPLOADS_DIR)  # noqa: SIM115
        UploadedFile.__init__(self, file, name, content_type, 0, charset, extra)


class HashingUploadHandler(TemporaryFileUploadHandler):
    """Writes each upload to UPLOADS_DIR, so that keeping it needs no copy; the uploaded file has `sha256`.

    Raises DiskFull and FileTooLarge. The gate's limit is for the body, which is a little larger than its file.
    """

    file: HashedUpload

    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        # Browsers and curl escape these three characters in a form, and no `%`.
        name = file_name.replace("%22", '"').replace("%0A", "\n").replace("%0D", "\r")
        super(TemporaryFileUploadHandler, self).new_file(field_name, clean_name(name), *args, **kwargs)
        self.digest = hashlib.sha256()
        self.file = HashedUpload(self.file_name or "", self.content_type, self.charset, self.content_type_extra)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if start + len(raw_data) > settings.MAX_UPLOAD_BYTES:
            self.upload_interrupted()  # Django would leave the file to the garbage collector
            raise FileTooLarge
        self.digest.update(raw_data)
        try:
            super().receive_data_chunk(raw_data, start)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.upload_interrupted()
                raise errors.DiskFull from error
            raise

    def file_complete(self, file_size: int) -> UploadedFile | None:
        self.file.sha256 = self.digest.hexdigest()
        return super().file_complete(file_size)
