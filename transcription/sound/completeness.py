"""Whether a file has all the bytes that it says it has, by what its container declares. Nothing is decoded.

FFmpeg reports no error for half an upload, and a length in seconds alone proves nothing: a picture may go on after the
sound, and a program that cuts files may leave the length of the whole in the header.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MOST_BOXES = 200_000  # that are read of an MP4; one in fragments has two or so a second
UNKNOWN_RIFF = 2**31 - 2**20  # a program that writes into a pipe declares the highest possible size
MOST_ELEMENTS = 100  # before a Matroska's content
BOXES = (b"ftyp", b"moov", b"free", b"skip", b"wide", b"mdat", b"styp")  # that an MP4 may begin with
MATROSKA = b"\x1a\x45\xdf\xa3"
SEGMENT = b"\x18\x53\x80\x67"
VOID = b"\xec"


@dataclass(frozen=True)
class Claims:
    """What a file's first bytes say of the rest. `is_whole` is None when they do not say it.

    `missing_factor` is the size that a RIFF file (WAV, AVI) declares, divided by its size on disk. FFmpeg goes by the
    size on disk, so it would take half of a WAV for a whole one. An MP4 in fragments may be from the middle of a
    broadcast, and its stamps may begin anywhere.
    """

    is_whole: bool | None
    missing_factor: float = 1.0
    is_in_fragments: bool = False


def read(path: Path) -> Claims:
    """Read a file's claims. Any bytes will do."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"FLV\x01":
            return Claims(_is_whole_flv(file, size))
        if head[4:8] in BOXES:
            return _read_boxes(file, size)
        declared = _declared_size(file, head, size)
    if declared is None:
        return Claims(None)
    return Claims(declared <= size, missing_factor=max(1.0, declared / size) if head[:4] == b"RIFF" else 1.0)


def _declared_size(file: BinaryIO, head: bytes, size: int) -> int | None:
    """The size that a file declares for itself, in bytes; None when it declares none."""
    if head[:4] == b"RIFF":
        declared = int.from_bytes(head[4:8], "little") + 8
        return declared if len(head) >= 8 and declared < UNKNOWN_RIFF else None
    if head[:4] == b"FORM":
        return int.from_bytes(head[4:8]) + 8
    return _matroska_size(file, size) if head[:4] == MATROSKA else _mp3_size(file, head)


def _is_whole_flv(file: BinaryIO, size: int) -> bool:
    """Whether the file ends with the size of a tag that is there."""
    file.seek(max(0, size - 4))
    length = int.from_bytes(file.read(4))
    if not 11 <= length <= size - 4:
        return False
    file.seek(size - 4 - length)
    return int.from_bytes(file.read(4)[1:]) == length - 11


def _matroska_size(file: BinaryIO, size: int) -> int | None:
    file.seek(4)
    for _ in range(MOST_ELEMENTS):
        length = _matroska_length(file)
        if length is None or length > size:
            return None
        file.seek(length, 1)
        name = file.read(1)
        if name != VOID:  # which may come between
            segment = _matroska_length(file) if name + file.read(3) == SEGMENT else None
            return None if segment is None else file.tell() + segment
    return None


def _matroska_length(file: BinaryIO) -> int | None:
    """Read an element's length: as many bytes as the first has leading zeros, and one. All ones: it is unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    rest = file.read(more)
    number = int.from_bytes(first + rest) - (1 << 7 * (more + 1))
    return None if len(rest) < more or number == (1 << 7 * (more + 1)) - 1 else number


def _read_boxes(file: BinaryIO, size: int) -> Claims:
    """The claims of an MP4, by its boxes at the top level. What follows the last one and is none is not the file's."""
    end, is_in_fragments = 0, False
    for _ in range(MOST_BOXES):
        file.seek(end)
        header = file.read(16)
        length = int.from_bytes(header[:4])
        if length == 1:  # it is in the next eight bytes
            length = int.from_bytes(header[8:])
        if len(header) < 8 or not header[4:8].isalnum() or length < 8:  # 0: the box goes on to the file's end
            return Claims(True, is_in_fragments=is_in_fragments)
        is_in_fragments = is_in_fragments or header[4:8] == b"moof"
        end += length
        if end > size:
            return Claims(False, is_in_fragments=is_in_fragments)
    return Claims(None, is_in_fragments=is_in_fragments)


def _mp3_size(file: BinaryIO, head: bytes) -> int | None:
    """The size by the header that encoders write into an MP3's first frame, Xing's or LAME's."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        start = 10 + sum((byte & 127) << 7 * place for place, byte in enumerate(reversed(head[6:10])))
    file.seek(start)
    frame = file.read(64).ljust(64, b"\0")
    if frame[:1] != b"\xff":
        return None
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    flags = frame[place + 7] if 0 <= place < 48 else 0
    if not flags & 2:  # it says nothing of bytes
        return None
    place += 12 if flags & 1 else 8
    return start + int.from_bytes(frame[place : place + 4])
