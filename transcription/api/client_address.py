"""The address that a request comes from: which one counts, whether it is private, how often it showed a wrong key."""

import math
import time
from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import cast

from django.conf import settings
from django.http import HttpRequest

NEAR = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
        "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip
FORWARDED = ("Forwarded", "X-Forwarded-For")


def address_of(request: HttpRequest) -> str:
    """The address that a request counts for: its peer's, or the one that the outermost of NUM_PROXIES proxies saw."""
    proxies = _trusted_proxies()
    forwarded = request.headers.get("X-Forwarded-For", "")
    if proxies and forwarded:
        addresses = forwarded.split(",")
        return addresses[-min(proxies, len(addresses))].strip()
    return str(request.META.get("REMOTE_ADDR", ""))


def is_near(request: HttpRequest) -> bool:
    """Whether a request is known to come from this machine or its private network.

    The origin is unknown if the request passed a proxy that NUM_PROXIES does not count, or did not pass all of those
    that it counts.
    """
    forwarded = request.headers.get("X-Forwarded-For", "")
    if proxies := _trusted_proxies():
        is_of_known_origin = bool(forwarded) and len(forwarded.split(",")) >= proxies
    else:
        is_of_known_origin = not any(name in request.headers for name in FORWARDED)
    # The peer's address too: a client that reaches this port past the proxy can write anything into that header.
    addresses = [_parse(address) for address in (address_of(request), str(request.META.get("REMOTE_ADDR", "")))]
    return is_of_known_origin and all(
        address is not None and any(address in network for network in NEAR) for address in addresses
    )


def _trusted_proxies() -> int:
    return cast(int, settings.REST_FRAMEWORK["NUM_PROXIES"])


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address without brackets and zone; an IPv4 address that is mapped into IPv6 becomes IPv4."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


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
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network((int(parsed), 64), strict=False))
    return str(parsed or "")
