"""Recognises a request that is repeated (`jobs.RequestKey`); every endpoint that makes a job uses this.

A client whose connection broke sends its request again with the same Idempotency-Key, and gets the job that it made.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _

from transcription.jobs import RequestKey

HEADER = "Idempotency-Key"
LONGEST_KEY = 255


class KeyTooLong(Exception):
    def __init__(self) -> None:
        super().__init__(_("An Idempotency-Key has at most %(longest)s characters.") % {"longest": LONGEST_KEY})


def key_taken() -> str:
    """The sentence for `jobs.KeyTaken`."""
    return _("This Idempotency-Key was given to another request before. Send this one with a new key.")


def key_in(headers: Mapping[str, str]) -> str:
    """The key that a client gave its request; empty if none. Raises KeyTooLong."""
    key = headers.get(HEADER, "").strip()
    if len(key) > LONGEST_KEY:
        raise KeyTooLong
    return key


def as_sent(path: str, headers: Mapping[str, str], *sources: MultiValueDict[str, Any]) -> RequestKey | None:
    """The request key made of an address and all that was sent to it; None without a client's key. Raises KeyTooLong.

    It does not depend on what the values mean: the default model may change, or an upload in chunks expire.
    """
    key = key_in(headers)
    if not key:
        return None
    sent = [sorted(source.lists()) for source in sources]
    return RequestKey(_digest([path.rstrip("/"), sent]), key)


def as_meant(headers: Mapping[str, str], **asking: Any) -> RequestKey:
    """The request key made of everything that a text depends on, with or without a client's key. Raises KeyTooLong."""
    return RequestKey(_digest(asking), key_in(headers))


def _digest(content: Any) -> str:
    def sum_of(file: UploadedFile) -> str:
        return str(file.sha256)  # type: ignore[attr-defined]  # set by HashingUploadHandler

    return hashlib.sha256(json.dumps(content, default=sum_of, sort_keys=True).encode()).hexdigest()
