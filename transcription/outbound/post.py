"""Sends a message: one POST to an address that was checked, all of it within one deadline.

The name is looked up once, and the connection goes to one of the places found, so a name that leads elsewhere a moment
later (DNS rebinding) changes nothing. Redirects are not followed and proxies are not used; TLS is verified against the
name.
"""

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterable, Mapping

from transcription.outbound import connection
from transcription.outbound.addresses import Address, Allowed, LookUp, look_up
from transcription.parameters import InvalidParameter

MOST_OF_AN_ANSWER = 16 * 1024  # bytes; only the status is of interest


class Undelivered(Exception):
    """A message did not arrive; `code` says why (`webhooks.SENTENCES`), `values` fill the places of its sentence."""

    def __init__(self, code: str, **values: object) -> None:
        self.code, self.values = code, values
        super().__init__(code)


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allowed: Iterable[Allowed],
    seconds: float,
    resolve: LookUp = socket.getaddrinfo,
) -> int:
    """Send a message; return the status of the answer, whatever it is. Raises Undelivered within `seconds`.

    Looking up a name has the system's own limits, and its time counts.
    """
    deadline = time.monotonic() + seconds

    def left() -> float:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining

    try:
        address = Address.read(url)
        places = look_up(address, allowed, resolve=resolve)
    except InvalidParameter as refused:
        raise Undelivered("not_allowed") from refused
    except OSError as error:
        raise Undelivered("unresolved") from error
    try:
        with connection.request("POST", address, body, headers, places=places, left=left) as response:
            # A receiver whose answer is cut off may take that for a failure, so the body is read and thrown away.
            with contextlib.suppress(OSError, http.client.HTTPException):
                response.read(MOST_OF_AN_ANSWER)
            return response.status
    except TimeoutError as error:
        raise Undelivered("timeout", seconds=f"{seconds:g}") from error
    except ssl.SSLError as error:
        detail = getattr(error, "verify_message", "") or error.reason or str(error)
        raise Undelivered("not_secure", detail=detail) from error
    except OSError as error:
        raise Undelivered("unreachable", detail=error.strerror or str(error)) from error
    except http.client.HTTPException as error:
        raise Undelivered("not_http") from error
