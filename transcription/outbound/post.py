"""Carries a message to an address: one POST to a place that was checked, all of it within one deadline.

The name is looked up once, and the connection goes to one of the places found: a name that leads elsewhere a moment
later (DNS rebinding) changes nothing. No redirect is followed and no proxy asked; TLS is verified against the name.
"""

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from transcription.outbound.addresses import Address, Allowed, LookUp, Place, look_up
from transcription.outbound.connection import DeadlineSocket
from transcription.parameters import InvalidParameter

MOST_OF_AN_ANSWER = 16 * 1024  # bytes; nothing but the status is of interest


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

    Looking a name up has the system's own limits, and counts.
    """
    deadline = time.monotonic() + seconds
    try:
        address = Address.read(url)
        places = look_up(address, allowed, resolve=resolve)
    except InvalidParameter as refused:
        raise Undelivered("not_allowed") from refused
    except OSError as error:
        raise Undelivered("unresolved") from error
    try:
        with _connect(places, deadline) as plain, _secure(plain, address, deadline) as connected:
            return _ask(DeadlineSocket(connected, partial(_left, deadline)), address, body, headers)
    except TimeoutError as error:
        raise Undelivered("timeout", seconds=f"{seconds:g}") from error
    except ssl.SSLError as error:
        detail = getattr(error, "verify_message", "") or error.reason or str(error)
        raise Undelivered("not_secure", detail=detail) from error
    except OSError as error:
        raise Undelivered("unreachable", detail=error.strerror or str(error)) from error
    except http.client.HTTPException as error:
        raise Undelivered("not_http") from error


def _connect(places: Sequence[Place], deadline: float) -> socket.socket:
    """The first place that answers; each gets its share of the time. Raises OSError."""
    problem: OSError = OSError("the name leads nowhere")
    for tried, (family, kind, protocol, _name, where) in enumerate(places):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left(deadline) / (len(places) - tried))
            connection.connect(where)
            return connection
        except OSError as error:
            connection.close()
            problem = error
    raise problem


def _secure(
    connection: socket.socket, address: Address, deadline: float
) -> contextlib.AbstractContextManager[socket.socket]:
    if address.scheme == "http":
        return contextlib.nullcontext(connection)
    connection.settimeout(_left(deadline))
    return ssl.create_default_context().wrap_socket(connection, server_hostname=address.host)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _ask(connected: DeadlineSocket, address: Address, body: bytes, headers: Mapping[str, str]) -> int:
    asking = http.client.HTTPConnection(address.host, address.port)
    asking.sock = connected  # or it would look the name up again
    asking.request("POST", address.path, body, {"Host": address.authority, "Connection": "close", **headers})
    with asking.getresponse() as answer:
        # A receiver that is cut off in its answer may take that for a failure; what it says is nobody's business here.
        with contextlib.suppress(OSError, http.client.HTTPException):
            answer.read(MOST_OF_AN_ANSWER)
        return answer.status
