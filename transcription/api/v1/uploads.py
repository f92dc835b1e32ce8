"""Large files in chunks over the native API: tus 1.0, https://tus.io/protocols/resumable-upload

OPTIONS /api/v1/uploads/     the largest file, and the extensions: creation, creation-with-upload, expiration,
                             checksum, termination
POST    /api/v1/uploads/     begins a file of Upload-Length bytes: 201, Location, and the upload as JSON. Its name is
                             `filename` or `name` in Upload-Metadata. A body of a chunk's type is its first chunk
HEAD    /api/v1/uploads/ID/  Upload-Offset, Upload-Length, Upload-Expires, and Upload-Metadata as it was sent
PATCH   /api/v1/uploads/ID/  the next chunk, application/offset+octet-stream, at most 8 MiB, from Upload-Offset on: 204
                             with the new offset. 409 if that is not where the upload ends, 423 while another chunk is
                             written, 460 if Upload-Checksum (sha1, sha256, md5) is wrong; then the offset is unchanged
DELETE  /api/v1/uploads/ID/  discards the upload
GET     /api/v1/uploads/ID/  id, name, bytes, offset, expires_at

All but the first and the last need `Tus-Resumable: 1.0.0` (412). Another user's upload does not exist (404), one that
has expired is gone (410). POST /api/v1/jobs/ takes a complete one as `upload`.
"""

from base64 import b64decode
from io import BytesIO
from typing import IO, Any, NoReturn, cast
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db.models import QuerySet
from django.http import Http404
from django.urls import reverse
from django.utils import timezone
from django.utils.http import http_date
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers, status
from rest_framework.exceptions import APIException
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import uploads
from transcription.api.file_names import repaired_name
from transcription.api.v1.base import NativeViewSet
from transcription.models import Upload
from transcription.templatetags.stenograf import size

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,checksum,termination"
ALGORITHMS = ("sha1", "sha256", "md5")
CHUNK_TYPE = "application/offset+octet-stream"
WRONG_SUM = 460


class TusError(APIException):
    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


class UploadSerializer(serializers.ModelSerializer[Upload]):
    name = serializers.CharField(source="original_name")

    class Meta:
        model = Upload
        fields = ("id", "name", "bytes", "offset", "expires_at")


class ChunkParser(BaseParser):
    """Leaves a chunk unread: `uploads.add` writes it from the stream to the disk."""

    media_type = CHUNK_TYPE

    def parse(self, stream: IO[Any], *_arguments: Any, **_named: Any) -> dict[str, Any]:
        return {}


class UploadViewSet(NativeViewSet[Upload]):
    """A user's uploads in chunks."""

    missing = gettext_lazy("There is no such upload. Begin it anew.")
    parser_classes = (ChunkParser,)
    serializer_class = UploadSerializer

    def get_queryset(self) -> QuerySet[Upload]:
        return Upload.objects.for_user(self.request.user)

    def get_object(self) -> Upload:
        upload = super().get_object()
        if upload.expires_at <= timezone.now():
            raise TusError(410, _("This upload has expired. Begin it anew."))
        return upload

    def initial(self, request: Request, *arguments: Any, **named: Any) -> None:
        super().initial(request, *arguments, **named)
        if request.method not in ("GET", "OPTIONS") and request.headers.get("Tus-Resumable") != VERSION:
            raise TusError(412, _("Send the header Tus-Resumable: %(version)s.") % {"version": VERSION})

    @property
    def default_response_headers(self) -> dict[str, str]:
        return {**super().default_response_headers, "Tus-Resumable": VERSION, "Tus-Version": VERSION}

    def capabilities(self, request: Request) -> Response:
        headers = {
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(settings.MAX_UPLOAD_BYTES),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        }
        return Response(status=status.HTTP_204_NO_CONTENT, headers=headers)

    def create(self, request: Request) -> Response:
        """Begin an upload, with its first chunk if one is sent along."""
        length, metadata = _length(request), request.headers.get("Upload-Metadata", "")
        name, checksum = _name(metadata), _checksum(request)
        if has_chunk := request.content_type == CHUNK_TYPE:
            _check_fits(request, 0, length)
        upload = uploads.begin(cast(AbstractBaseUser, request.user), name, length, metadata)
        if has_chunk:
            try:
                upload = _add(upload, 0, request, checksum)
            except BaseException:
                uploads.discard(upload)  # the client does not learn its address
                raise
        headers = {"Location": reverse("api:upload", args=(upload.pk,)), **_state(upload)}
        return Response(self.get_serializer(upload).data, status=status.HTTP_201_CREATED, headers=headers)

    def retrieve(self, request: Request, pk: UUID) -> Response:
        return Response(self.get_serializer(self.get_object()).data, headers={"Cache-Control": "no-store"})

    def state(self, request: Request, pk: UUID) -> Response:
        """The offset at which to continue."""
        upload = self.get_object()
        headers = {**_state(upload), "Upload-Length": str(upload.bytes), "Cache-Control": "no-store"}
        if upload.metadata:
            headers["Upload-Metadata"] = upload.metadata
        return Response(headers=headers)

    def add(self, request: Request, pk: UUID) -> Response:
        """Add the next chunk."""
        upload = self.get_object()
        if request.content_type != CHUNK_TYPE:
            raise TusError(415, _("Send a piece with Content-Type: %(type)s.") % {"type": CHUNK_TYPE})
        offset = _number(request, "Upload-Offset")
        if offset != upload.offset:
            _refuse_offset()
        _check_fits(request, offset, upload.bytes)
        upload = _add(upload, offset, request, _checksum(request))
        return Response(status=status.HTTP_204_NO_CONTENT, headers=_state(upload))

    def destroy(self, request: Request, pk: UUID) -> Response:
        """Discard an upload."""
        if not uploads.discard(self.get_object()):
            raise Http404
        return Response(status=status.HTTP_204_NO_CONTENT)


def _state(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset), "Upload-Expires": http_date(upload.expires_at.timestamp())}


def _add(upload: Upload, offset: int, request: Request, checksum: uploads.Sum | None) -> Upload:
    try:
        return uploads.add(upload, offset, request.stream or BytesIO(), checksum)
    except uploads.Busy as error:
        raise TusError(
            423, _("Another chunk of this upload is being written. Ask for its offset, then go on.")
        ) from error
    except uploads.WrongOffset:
        _refuse_offset()
    except uploads.WrongSum as error:
        raise TusError(WRONG_SUM, _("The chunk is not what Upload-Checksum says. Send it again.")) from error
    except uploads.Gone as error:
        raise Http404 from error


def _refuse_offset() -> NoReturn:
    raise TusError(
        409, _("The chunk does not begin where the upload ends. Ask for its offset by HEAD and go on there.")
    )


def _check_fits(request: Request, offset: int, length: int) -> None:
    if offset + int(request.META.get("CONTENT_LENGTH") or 0) > length:
        message = _("The chunk goes beyond the upload's length, which is %(bytes)s bytes.") % {"bytes": length}
        raise TusError(413, message)


# ------------------------------------------------------------------ headers


def _length(request: Request) -> int:
    if "Upload-Defer-Length" in request.headers:
        raise TusError(400, _("The length cannot be told later here. Send Upload-Length."))
    length = _number(request, "Upload-Length")
    if length > settings.MAX_UPLOAD_BYTES:
        message = _("The file is over %(size)s. Split it, or ask the administrator to raise the limit.")
        raise TusError(413, message % {"size": size(settings.MAX_UPLOAD_BYTES)})
    return length


def _number(request: Request, header: str) -> int:
    value = request.headers.get(header, "")
    if not (value.isdecimal() and len(value) < 20):
        raise TusError(400, _("Send the header %(name)s: a number of bytes.") % {"name": header})
    return int(value)


def _name(metadata: str) -> str:
    """The file's name in Upload-Metadata: keys, each with its value in Base64, separated by commas."""
    values = dict(pair.split(" ", 1) for pair in map(str.strip, metadata.split(",")) if " " in pair)
    try:
        return repaired_name(b64decode(values.get("filename") or values.get("name") or "", validate=True))
    except ValueError as error:
        raise TusError(400, _("The name in Upload-Metadata is in Base64.")) from error


def _checksum(request: Request) -> uploads.Sum | None:
    """The value of Upload-Checksum, or None."""
    value = request.headers.get("Upload-Checksum")
    if value is None:
        return None
    algorithm, _space, digest = value.partition(" ")
    try:
        if algorithm in ALGORITHMS:
            return uploads.Sum(algorithm, b64decode(digest, validate=True))
    except ValueError:
        pass
    known = ", ".join(ALGORITHMS)
    raise TusError(400, _("Upload-Checksum is one of %(known)s, then the sum in Base64.") % {"known": known})
