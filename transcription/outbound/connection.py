"""A connection as http.client uses one, whose owner says how long each wait may be: a drip of bytes gains no time."""

import io
import socket
from collections.abc import Callable
from typing import Any


class DeadlineSocket:
    """Wraps a connected socket. `left` gives the seconds that the next wait may last, or raises to end it all.

    With `sending`, so many seconds are for what is sent. With `is_patient`, a wait for the answer that is over is begun
    anew: `left` is asked again, and looks at the clock.
    """

    def __init__(
        self,
        connection: socket.socket,
        left: Callable[[], float],
        *,
        sending: float | None = None,
        is_patient: bool = False,
    ) -> None:
        self.connection, self.left = connection, left
        self.sending, self.is_patient = sending, is_patient

    def sendall(self, chunk: Any) -> None:
        self.connection.settimeout(self.left() if self.sending is None else self.sending)
        self.connection.sendall(chunk)

    def recv_into(self, buffer: Any) -> int:
        while True:
            self.connection.settimeout(self.left())
            try:
                return self.connection.recv_into(buffer)
            except TimeoutError:
                if not self.is_patient:
                    raise

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """The connection is closed by who made it: http.client lets go of it before it has read the answer."""


class _Reader(io.RawIOBase):
    def __init__(self, connection: DeadlineSocket) -> None:
        self.connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.connection.recv_into(buffer)
