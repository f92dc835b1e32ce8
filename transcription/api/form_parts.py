"""Multipart forms as clients send them, changed on the way into what Django's parser reads.

Django drops a part whose headers are not UTF-8, refuses one whose headers are over 1 KiB, and takes a part without a
file name for text of at most 1 MiB. So the headers of each file's part are read here, leniently, and written anew in
a few bytes of ASCII, and short texts in other encodings become UTF-8. The rest of the form passes as it is.
"""

import re
from collections.abc import Iterator
from email.message import Message
from typing import IO, Any
from urllib.parse import quote

from transcription.api.file_names import decoded, repaired_name

BLOCK = 64 * 1024
LONGEST_HEADERS = 64 * 1024
LONGEST_TYPE = 200
LONGEST_TEXT = 10_000  # as long as a prompt may be
# The fields whose content is a file also without a file name, unless it is a short text.
FILE_FIELDS = ("file", "audio_file")
END_OF_HEADERS = b"\r\n\r\n"


class RepairedForm:
    """A form's body whose files have numbers for names; `names` has what each is called."""

    def __init__(self, body: IO[bytes], boundary: bytes) -> None:
        self.names: list[str] = []
        self._body = body
        self._delimiter = b"--" + boundary
        self._blocks = self._repaired()

    def name_of(self, number: str) -> str:
        """The name of the file that is called by a number in the repaired form."""
        known = number.isdecimal() and len(number) < 10 and int(number) < len(self.names)
        # Otherwise Django found a file name where nobody else would.
        return self.names[int(number)] if known else repaired_name(number.encode(errors="ignore"))

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as many as are ready; empty at the end."""
        return next(self._blocks, b"")

    def _repaired(self) -> Iterator[bytes]:
        """The body in blocks, none of them empty."""
        kept, is_last = b"", False
        while not is_last:
            block = self._body.read(BLOCK)
            kept, is_last = kept + block, not block
            while (delimiter := kept.find(self._delimiter)) >= 0:
                start = delimiter + len(self._delimiter)
                end = kept.find(END_OF_HEADERS, start, start + LONGEST_HEADERS)
                content = end + len(END_OF_HEADERS)
                # Whether a part is a short text shows in the bytes after its headers.
                wanted = start + LONGEST_HEADERS if end < 0 else content + LONGEST_TEXT + len(self._delimiter)
                if kept[start : start + 2] != b"--" and len(kept) < wanted and not is_last:
                    break
                if end < 0 or kept[start : start + 2] == b"--":
                    yield kept[:start]  # the last delimiter, or one without headers that anybody could mean
                    kept = kept[start:]
                    continue
                text = kept[content : kept.find(self._delimiter, content, wanted)].removesuffix(b"\r\n")
                sent = kept[start:end]
                headers = self._headers(sent, is_text=_is_text(text))
                is_field = headers is sent and len(text) <= LONGEST_TEXT
                yield kept[:start] + headers + END_OF_HEADERS + (decoded(text).encode() if is_field else b"")
                kept = kept[content + (len(text) if is_field else 0) :]
            else:
                # All but what may be the beginning of a delimiter.
                unsure = 0 if is_last else len(self._delimiter) - 1
                if ready := kept[: len(kept) - unsure]:
                    yield ready
                kept = kept[len(ready) :]

    def _headers(self, sent: bytes, *, is_text: bool) -> bytes:
        """A part's headers: those of a file anew, any others as they were sent."""
        headers = _read(sent)
        disposition = _options(headers.get("content-disposition", b""))
        name = disposition.get("filename")
        field = decoded(disposition.get("name", b"")).strip()
        if not name and (is_text or field not in FILE_FIELDS):
            return sent
        number = len(self.names)
        self.names.append(repaired_name(name or b""))
        written = [f"Content-Disposition: form-data; name*=UTF-8''{quote(field or FILE_FIELDS[0])}; filename={number}"]
        for kept in ("content-type", "content-transfer-encoding"):
            value = headers.get(kept, b"").decode("latin-1").strip()
            if value and value.isascii() and value.isprintable() and len(value) <= LONGEST_TYPE:
                written.append(f"{kept}: {value}")
        return "\r\n".join(["", *written]).encode()


def _is_text(content: bytes) -> bool:
    """Whether it is empty or a short line, such as the name of a file that was meant, and no recording."""
    return len(content) <= LONGEST_TEXT and decoded(content).isprintable()


def _read(sent: bytes) -> dict[str, bytes]:
    """Headers by their names in lower case; lines that are none are left out."""
    unfolded = re.sub(rb"\r\n(?=[ \t])", b"", sent)
    lines = [line.partition(b":") for line in unfolded.split(b"\r\n")]
    return {name.decode("latin-1").strip().lower(): value for name, colon, value in lines if colon}


def _options(disposition: bytes) -> dict[str, bytes]:
    """The options of a Content-Disposition; of two file names the one with a charset (RFC 2231), in UTF-8."""
    header = Message()
    header["content-disposition"] = disposition.decode("latin-1")
    options: dict[str, bytes] = {}
    for name, value in _parameters(header):
        if isinstance(value, tuple):
            options[name] = _in_utf8(*value)
        elif name not in options:
            options[name] = value.encode("latin-1")
    return options


def _parameters(header: Message) -> list[tuple[str, Any]]:
    try:
        return [(name.lower(), value) for name, value in header.get_params([], "content-disposition") or []]
    except (ValueError, LookupError, TypeError):  # of an option that only resembles RFC 2231
        return []


def _in_utf8(charset: str | None, _language: str | None, text: str) -> bytes:
    """The bytes of an RFC 2231 value in UTF-8, or as they are if they are not in the charset that it names."""
    sent = text.encode("latin-1", errors="ignore")
    try:
        return sent.decode(charset or "utf-8").encode()
    except (LookupError, ValueError):
        return sent
