"""Receives an upload: it is written straight to its own disk, and its SHA-256 computed meanwhile."""

import hashlib
import tempfile
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import BadRequest
from django.core.files.uploadedfile import TemporaryUploadedFile, UploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import QueryDict
from django.http.multipartparser import MultiPartParser
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _

from transcription import disk
from transcription.api.form_parts import RepairedForm
from transcription.templatetags.stenograf import size


class FileTooLarge(BadRequest):
    """Wherever the form is read, Django answers this with `errors.bad_request`, in the shape of the endpoint."""

    def __init__(self) -> None:
        message = _("The file is over %(size)s. Split it, or ask the administrator to raise the limit.")
        super().__init__(message % {"size": size(settings.MAX_UPLOAD_BYTES)})


class HashedUpload(TemporaryUploadedFile):
    """An upload on our disk, with its SHA-256."""

    sha256: str

    def __init__(
        self,
        name: str,
        content_type: str | None = None,
        charset: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        settings.UPLOADS_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Without any part of the given name: its extension may be too long for a file system.
        file = tempfile.NamedTemporaryFile(suffix=".upload", dir=settings.UPLOADS_DIR)  # noqa: SIM115
        UploadedFile.__init__(self, file, name, content_type, 0, charset, extra)
        self._digest = hashlib.sha256()

    def add(self, content: bytes) -> None:
        """Write the next bytes. Raises DiskFull and FileTooLarge, and then the file is gone."""
        try:
            self.size = (self.size or 0) + len(content)
            # The gate's limit is for the body, which is a little larger than its file.
            if self.size > settings.MAX_UPLOAD_BYTES:
                raise FileTooLarge
            self._digest.update(content)
            with disk.full_disk_is_a_problem():
                self.write(content)
        except BaseException:
            self.close()  # Django would leave the file to the garbage collector
            raise

    def finish(self) -> None:
        """Bring all of it to the disk. Raises DiskFull."""
        with disk.full_disk_is_a_problem():
            self.seek(0)
        self.sha256 = self._digest.hexdigest()


class HashingUploadHandler(TemporaryFileUploadHandler):
    """Writes each upload to UPLOADS_DIR, so that keeping it needs no copy; the uploaded file has `sha256`.

    Raises DiskFull and FileTooLarge.
    """

    file: HashedUpload
    form: RepairedForm | None = None

    def handle_raw_input(
        self,
        input_data: IO[bytes],
        META: Mapping[str, Any],  # noqa: N803  # Django's name
        content_length: int,
        boundary: Any,  # bytes, but Django's stubs say str
        encoding: str | None = None,
    ) -> tuple[QueryDict, MultiValueDict[str, UploadedFile]] | None:
        """Have Django parse the form as it is repaired, with this handler again."""
        if self.form is not None:
            return None
        self.form = RepairedForm(input_data, boundary)
        return MultiPartParser(META, self.form, [self], encoding).parse()  # type: ignore[arg-type]  # it only reads

    def new_file(self, field_name: str, file_name: str, *args: Any, **kwargs: Any) -> None:
        assert self.form is not None  # noqa: S101  # every form passes handle_raw_input
        name = self.form.name_of(file_name)
        super(TemporaryFileUploadHandler, self).new_file(field_name, name, *args, **kwargs)
        self.file = HashedUpload(self.file_name or "", self.content_type, self.charset, self.content_type_extra)

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self.file.add(raw_data)

    def file_complete(self, file_size: int) -> UploadedFile | None:
        self.file.finish()
        return self.file
