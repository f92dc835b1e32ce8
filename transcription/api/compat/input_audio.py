"""A request in JSON with the recording in Base64, which some programs send where others send a form.

{"model": "whisper-1", "language": "ru", "input_audio": {"data": "UklGRi…", "format": "wav"}}

The Base64 is decoded to the disk as it is read, so that a request takes no more memory than its other fields.
"""

import binascii
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any, Protocol

from django.http import HttpRequest
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _

from transcription.api.file_names import clean_name
from transcription.api.serializers import parameters
from transcription.api.upload_handler import HashedUpload
from transcription.templatetags.stenograf import size

FIELD = "input_audio"
LONGEST_BASE64 = 64 * 1024**2
LONGEST_BODY = 80 * 1024**2  # JSON may have the letters escaped, or in lines
BLOCK = 256 * 1024
LONGEST_STRING = 64 * 1024  # of the other fields' values; a longer one is the recording
LONGEST_REST = 1024**2

UP_TO_A_QUOTE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
CUT_ESCAPE = re.compile(rb"\\(u[0-9a-fA-F]{0,3})?\Z")
DATA_URL = re.compile(rb"\A\s*data:[^,]{0,200},")
WHITESPACE = b" \t\r\n"
FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class Body(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Unreadable(Exception):
    """The request is no JSON object of fields with a recording; the text is a sentence."""

    def __init__(self, message: str, *, status: int = 400, field: str | None = FIELD) -> None:
        super().__init__(message)
        self.status, self.field = status, field


def is_json(request: HttpRequest) -> bool:
    """Whether a request is in JSON; a body with a boundary is a form, whatever its label says."""
    return request.content_type == "application/json" and "boundary" not in (request.content_params or {})


def read(body: Body) -> tuple[MultiValueDict[str, Any], HashedUpload]:
    """The fields beside the recording, and the recording as a file. Raises Unreadable, DiskFull, FileTooLarge."""
    upload = HashedUpload("recording")
    try:
        fields = _fields(body, upload)
        upload.finish()
    except BaseException:
        upload.close()
        raise
    return fields, upload


def _fields(body: Body, upload: HashedUpload) -> MultiValueDict[str, Any]:
    """The fields of a request without its recording, which is written to a file with its name."""
    recording = _Base64(upload)
    stand_in = secrets.token_hex()
    rest = _without_recording(body, recording, stand_in)
    try:
        fields = parameters(rest)
    except ValueError as error:
        raise _unreadable() from error
    audio = fields.pop(FIELD, [None])[-1]
    if not isinstance(audio, dict) or not isinstance(audio.get("data"), str) or not audio["data"]:
        raise Unreadable(_("There is no file. Send it in a form, or its Base64 as `data` in `input_audio`."))
    if audio["data"] != stand_in:
        if recording.is_begun:
            raise _unreadable()
        recording.add(audio["data"])
    recording.finish()
    kind = audio.get("format")
    upload.name = clean_name(f"audio.{kind}" if isinstance(kind, str) and kind.isalnum() else "")
    return fields


def too_long() -> str:
    """The sentence about a recording over LONGEST_BASE64."""
    message = _("The Base64 of a recording has at most %(size)s. Send the file in a form instead.")
    return message % {"size": size(LONGEST_BASE64)}


def _unreadable() -> Unreadable:
    return Unreadable(_("The request could not be read. Check its form and send it again."), field=None)


def _without_recording(body: Body, recording: "_Base64", stand_in: str) -> bytes:
    """The JSON text with a stand-in for its one long string, which is the recording."""
    rest = bytearray()
    string: bytearray | None = None  # the string that is being read, as it is written
    is_recording = False
    for part in _parts(body):
        if part != b'"':
            (rest if string is None else string).extend(part)
        elif string is None:
            string = bytearray()
        else:
            if is_recording:
                recording.add_written(bytes(string), is_last=True)
            rest += b'"%b"' % (stand_in.encode() if is_recording else bytes(string))
            string, is_recording = None, False
        if string is not None and len(string) > LONGEST_STRING:
            if recording.is_begun and not is_recording:
                raise _unreadable()  # there is one recording
            is_recording = True
            string = bytearray(recording.add_written(bytes(string)))
        if len(rest) > LONGEST_REST:
            raise _unreadable()
    if string is not None:
        raise _unreadable()  # it breaks off
    return bytes(rest)


def _parts(body: Body) -> Iterator[bytes]:
    """A JSON text in parts: each quote that begins or ends a string, and what is between them."""
    cut = b""  # a backslash at the end of a block
    while block := body.read(BLOCK):
        block, at, cut = cut + block, 0, b""
        while at < len(block):
            if text := UP_TO_A_QUOTE.match(block, at)[0]:  # type: ignore[index]  # it matches the empty text too
                yield text
                at += len(text)
            elif block[at : at + 1] == b'"':
                yield b'"'
                at += 1
            else:
                cut, at = block[at:], len(block)


class _Base64:
    """Decodes Base64 into a file as it comes."""

    def __init__(self, upload: HashedUpload) -> None:
        self.upload = upload
        self.is_begun = False
        self._count = 0  # of the letters so far
        self._rest = b""  # fewer than four letters, which are decoded with those after them
        self._is_ended = False

    def add_written(self, text: bytes, *, is_last: bool = False) -> bytes:
        """Add text as JSON writes it; return its end if it is a part of an escape, for the next time."""
        cut = None if is_last else CUT_ESCAPE.search(text)
        whole = text[: cut.start()] if cut else text
        try:
            plain = json.loads(f'"{whole.decode()}"', strict=False)
        except ValueError as error:
            raise _broken() from error
        self.add(plain)
        return text[len(whole) :]

    def add(self, text: str) -> None:
        """Raises Unreadable, DiskFull, FileTooLarge."""
        try:
            letters = text.encode("ascii")
        except UnicodeEncodeError as error:
            raise _broken() from error
        if not self.is_begun:
            letters = DATA_URL.sub(b"", letters, count=1)
            self.is_begun = True
        letters = self._rest + letters.translate(FROM_URL_SAFE, WHITESPACE)
        self._count += len(letters) - len(self._rest)
        if self._count > LONGEST_BASE64:
            raise Unreadable(too_long(), status=413)
        ready = len(letters) // 4 * 4
        # Python takes any number of `=` for padding.
        if (letters and self._is_ended) or letters[:ready].endswith(b"==="):
            raise _broken()
        try:
            self.upload.add(binascii.a2b_base64(letters[:ready], strict_mode=True) if ready else b"")
        except binascii.Error as error:
            raise _broken() from error
        self._is_ended = letters[:ready].endswith(b"=")
        self._rest = letters[ready:]

    def finish(self) -> None:
        if self._rest or not self._count:
            raise _broken()


def _broken() -> Unreadable:
    return Unreadable(_("`input_audio.data` is not the whole of a file in Base64. Encode it again, without cuts."))
