"""The ASGI application: the gate, and Django behind it."""

import os
import tempfile
from collections.abc import Mapping
from typing import IO, Any

import django
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpResponseBase

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)

from config.gate import Gate, Receive  # noqa: E402  # it imports models, which need django.setup()


class Handler(ASGIHandler):
    """Django's own handler, with the body on another disk and its length in CONTENT_LENGTH."""

    async def read_body(self, receive: Receive) -> tempfile.SpooledTemporaryFile[bytes]:
        """Keep the body on the data disk, whose free space the gate has checked; /tmp may be small and in memory."""
        settings.UPLOADS_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = str(settings.UPLOADS_DIR)
        body = tempfile.SpooledTemporaryFile(settings.FILE_UPLOAD_MAX_MEMORY_SIZE, dir=folder)  # noqa: SIM115
        try:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestAborted
                body.write(message.get("body", b""))
                more = message.get("more_body", False)
        except BaseException:
            body.close()
            raise
        body.seek(0)
        return body

    def create_request(
        self, scope: Mapping[str, Any], body_file: IO[bytes]
    ) -> tuple[ASGIRequest, None] | tuple[None, HttpResponseBase]:
        created = super().create_request(scope, body_file)
        if created[0] is not None:
            # A chunked body comes without its length, and parsers would take it for an empty one.
            created[0].META["CONTENT_LENGTH"] = str(body_file.seek(0, os.SEEK_END))
            body_file.seek(0)
        return created


application = Gate(Handler())
