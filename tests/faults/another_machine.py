"""Settings of a server that takes itself for another machine than the one it runs on."""

import os
import socket


def _hostname() -> str:
    return os.environ["MACHINE"]


socket.gethostname = _hostname

from config.settings import *  # noqa: E402, F403
