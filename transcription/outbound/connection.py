"""One HTTP request over a connection with a deadline, which a server that answers byte by byte cannot prolong."""

import contextlib
import http.client
import io
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from transcription.outbound.addresses import Address, Place


@contextmanager
def request(
    method: str,
    address: Address,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    places: Sequence[Place],
    left: Callable[[], float],
    step_seconds: float | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """Send a request to the first of `places` that answers, over TLS if the address says so, and give the response.

    `left` gives the seconds that the next wait may last, and raises to end the exchange. With `step_seconds`,
    connecting to a place, the TLS handshake and sending may take that long each, and `left` is for the response alone.

    Raises OSError, HTTPException and what `left` raises.
    """

    def timeout() -> float:
        return left() if step_seconds is None else step_seconds

    with _connect(places, left, step_seconds) as plain, _secure(plain, address, timeout) as connected:
        http_connection = http.client.HTTPConnection(address.host, address.port)
        http_connection.sock = _DeadlineSocket(connected, timeout, left)  # or it would look the name up again
        everywhere = {"Host": address.authority, "Connection": "close"}
        http_connection.request(method, address.path, body, {**everywhere, **headers})
        with http_connection.getresponse() as response:
            yield response


def _connect(places: Sequence[Place], left: Callable[[], float], step_seconds: float | None) -> socket.socket:
    """Connect to the first place that answers; without `step_seconds` each gets an equal share of what is left."""
    problem: OSError = OSError("the name leads nowhere")
    for tried, (family, kind, protocol, _name, where) in enumerate(places):
        connection = socket.socket(family, kind, protocol)
        try:
            share = left() / (len(places) - tried) if step_seconds is None else step_seconds
            connection.settimeout(share)
            connection.connect(where)
            return connection
        except OSError as error:
            connection.close()
            problem = error
    raise problem


def _secure(
    connection: socket.socket, address: Address, timeout: Callable[[], float]
) -> AbstractContextManager[socket.socket]:
    """Wrap the connection in TLS, verified against the address's host; leave it as it is for plain HTTP."""
    if address.scheme == "http":
        return contextlib.nullcontext(connection)
    connection.settimeout(timeout())
    return ssl.create_default_context().wrap_socket(connection, server_hostname=address.host)


class _DeadlineSocket:
    """A connected socket as http.client uses one. `sending` and `receiving` give the timeout of the next wait.

    A wait for the response that times out begins again: `receiving` raises TimeoutError when all the time is used up.
    """

    def __init__(self, connection: socket.socket, sending: Callable[[], float], receiving: Callable[[], float]) -> None:
        self.connection, self.sending, self.receiving = connection, sending, receiving

    def sendall(self, chunk: Any) -> None:
        self.connection.settimeout(self.sending())
        self.connection.sendall(chunk)

    def recv_into(self, buffer: Any) -> int:
        while True:
            self.connection.settimeout(self.receiving())
            with contextlib.suppress(TimeoutError):
                return self.connection.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Do nothing: http.client closes its socket before it has read the response. `request` closes it later."""


class _Reader(io.RawIOBase):
    def __init__(self, connection: _DeadlineSocket) -> None:
        self.connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.connection.recv_into(buffer)
