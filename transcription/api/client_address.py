"""The address that a request comes from: which one counts, whether it is private, how often it showed a wrong key."""

import math
import time
from collections import OrderedDict
from ipaddress import IPv6Address, ip_network

from django.conf import settings
from django.http import HttpRequest

from transcription import proxies
from transcription.proxies import NEAR, Origin


def origin_of(request: HttpRequest) -> Origin:
    return proxies.origin_of(_peer(request), request.headers, settings.TRUSTED_PROXIES)


def address_of(request: HttpRequest) -> str:
    """The address that a request counts for: its peer's, or the client's that proxies of TRUSTED_PROXIES saw."""
    return origin_of(request).address


def is_near(request: HttpRequest) -> bool:
    """Whether a request is known to come from this machine or its private network, by whatever way."""
    origin = origin_of(request)
    if request.is_secure() and origin.address == _peer(request):
        return False  # HTTPS is a proxy's, and this one does not say whom it saw
    # The peer's address too: from a proxy elsewhere anybody may come.
    addresses = [proxies.parse(address) for address in (origin.address, _peer(request))]
    return origin.is_known and all(
        address is not None and any(address in network for network in NEAR) for address in addresses
    )


def _peer(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))


class KeyThrottle:
    """How many wrong keys each address has shown recently: each delays the answer longer, after too many there is none.

    A leaky bucket: one key is forgotten every LEAKS_EVERY seconds. Requests with a valid key never come here.
    """

    FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
    TOO_MANY = 20
    FULL = 2 * TOO_MANY  # more is not counted, so that a flood is forgotten within minutes
    LEAKS_EVERY = 10.0
    ADDRESSES = 10_000  # at most so many are remembered; the least recently used one is dropped

    def __init__(self) -> None:
        self.shown: OrderedDict[str, tuple[float, float]] = OrderedDict()  # by source: how many keys, at which time

    def another(self, address: str, now: float | None = None) -> int:
        """Count a wrong key. Return the seconds until the address is answered again; 0 if it still is."""
        now = time.monotonic() if now is None else now
        source = _source(address)
        level = min(self.level(address, now) + 1, self.FULL)
        self.shown[source] = (level, now)
        self.shown.move_to_end(source)
        while len(self.shown) > self.ADDRESSES:
            self.shown.popitem(last=False)
        return math.ceil((level - self.TOO_MANY) * self.LEAKS_EVERY) if level > self.TOO_MANY else 0

    def pause(self, address: str, now: float | None = None) -> float:
        """Seconds that the refusal of a key is delayed."""
        level = self.level(address, time.monotonic() if now is None else now)
        return min(self.LONGEST_PAUSE, self.FIRST_PAUSE * 2 ** max(0.0, level - 1))

    def level(self, address: str, now: float) -> float:
        """How many wrong keys of an address are not forgotten yet."""
        shown, since = self.shown.get(_source(address), (0.0, now))
        return max(0.0, shown - (now - since) / self.LEAKS_EVERY)


def _source(address: str) -> str:
    """What is counted as one: an IPv4 address, or the /64 network of an IPv6 address, which one household has."""
    parsed = proxies.parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed), 64), strict=False))
    return str(parsed or "")
