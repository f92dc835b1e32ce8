"""From where somebody asks: the address that counts, whether it is near, and how often it showed a wrong key."""

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
    """The address that a request counts for: its peer's, or what the last of NUM_PROXIES proxies of ours was told."""
    proxies = _proxies()
    forwarded = request.headers.get("X-Forwarded-For", "")
    if proxies and forwarded:
        addresses = forwarded.split(",")
        return addresses[-min(proxies, len(addresses))].strip()
    return str(request.META.get("REMOTE_ADDR", ""))


def is_near(request: HttpRequest) -> bool:
    """Whether a request comes from this machine or its private network, as far as that can be known.

    A request that went through a proxy which NUM_PROXIES does not count is of unknown origin, and so is one that did
    not go through those which it counts.
    """
    forwarded = request.headers.get("X-Forwarded-For", "")
    if proxies := _proxies():
        is_of_known_origin = bool(forwarded) and len(forwarded.split(",")) >= proxies
    else:
        is_of_known_origin = not any(name in request.headers for name in FORWARDED)
    # The peer's own too: whoever reaches this port past the proxy writes into that header what they like.
    addresses = (address_of(request), str(request.META.get("REMOTE_ADDR", "")))
    return is_of_known_origin and all(map(_is_private, addresses))


def _proxies() -> int:
    return cast(int, settings.REST_FRAMEWORK["NUM_PROXIES"])


def _is_private(text: str) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in NEAR)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address without what a proxy may add to it; a version 4 one in version 6's clothes as what it is."""
    try:
        address = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


class KeyThrottle:
    """How many wrong keys each address has shown lately: each makes it wait longer, and too many are not answered.

    A bucket that leaks: one is forgotten every LEAKS_EVERY seconds. A right key is never asked about here.
    """

    FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
    TOO_MANY = 20
    FULL = 2 * TOO_MANY  # more is not counted, so that a flood is forgotten within minutes
    LEAKS_EVERY = 10.0
    ADDRESSES = 10_000  # that are remembered; then the one that was quiet longest goes

    def __init__(self) -> None:
        self.shown: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, as of when

    def another(self, address: str, now: float | None = None) -> int:
        """Count a wrong key; the seconds until the address is answered again, 0 if it still is."""
        now = time.monotonic() if now is None else now
        place = _place(address)
        level = min(self.level(address, now) + 1, self.FULL)
        self.shown[place] = (level, now)
        self.shown.move_to_end(place)
        while len(self.shown) > self.ADDRESSES:
            self.shown.popitem(last=False)
        return math.ceil((level - self.TOO_MANY) * self.LEAKS_EVERY) if level > self.TOO_MANY else 0

    def pause(self, address: str, now: float | None = None) -> float:
        """Seconds that the refusal of a key waits."""
        level = self.level(address, time.monotonic() if now is None else now)
        return min(self.LONGEST_PAUSE, self.FIRST_PAUSE * 2 ** max(0.0, level - 1))

    def level(self, address: str, now: float) -> float:
        shown, since = self.shown.get(_place(address), (0.0, now))
        return max(0.0, shown - (now - since) / self.LEAKS_EVERY)


def _place(address: str) -> str:
    """What is counted as one: an address, or of version 6 the network of one household."""
    known = _address(address)
    if isinstance(known, IPv6Address):
        return str(ip_network((int(known), 64), strict=False))
    return str(known or "")
