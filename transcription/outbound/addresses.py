"""Where a webhook may go: an address is parsed, looked up and checked.

A user names an address and this server connects to it. Without a check they could reach the router, a cloud's metadata
or a database behind the firewall. So every place that a name leads to is checked, and `post.py` connects to one of
these. Free of Django: the settings read their list with it.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlsplit

from transcription.parameters import InvalidParameter

LONGEST = 2000
PORTS = {"http": 80, "https": 443}
# What `quote` leaves alone: characters with a meaning in a path or a query, and % for what is quoted already.
UNQUOTED = "/%?=&:;,+$!*'()@~[]|"

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Place = tuple[Any, ...]  # as socket.getaddrinfo gives it: family, type, protocol, name, and what `connect` takes
LookUp = Callable[..., list[Any]]  # socket.getaddrinfo, or a test's

# Our own lists: `is_global` of Python 3.11 takes NAT64, 6to4 and multicast for public.
# https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry
NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
)  # fmt: skip
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # the only IPv6 addresses of machines on the internet


def _(sentence: str) -> str:
    """Mark a sentence for translation; the endpoints translate it for the reader."""
    return sentence


NOT_AN_ADDRESS = _("%(name)s is a web address of at most %(longest)s characters, such as https://example.org/hook.")
HAS_A_PASSWORD = _("%(name)s holds a user name or a password. Leave it out: every message is signed instead.")
NOT_ALLOWED = _(
    "%(name)s leads to %(host)s, which is not on the public internet. Ask the administrator to name it in "
    "WEBHOOK_ALLOWED_HOSTS."
)


@dataclass(frozen=True)
class Address:
    """The parts of a web address. `path` includes the query; the host is in ASCII, an IPv6 one without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def read(cls, url: str, *, name: str = "url") -> Self:
        """Parse a URL. Raises InvalidParameter if it is no web address; `name` is the field that it was sent in."""
        try:
            if not 0 < len(url) <= LONGEST or re.search(r"[\x00-\x20\x7f-\x9f\\\ud800-\udfff]", url):
                raise ValueError(url)
            parts = urlsplit(url)
            if parts.scheme not in PORTS or not parts.hostname or parts.port == 0:
                raise ValueError(url)
            host = _ascii(parts.hostname)
        except ValueError as error:
            raise InvalidParameter(NOT_AN_ADDRESS, name=name, longest=LONGEST) from error
        if "@" in parts.netloc:
            raise InvalidParameter(HAS_A_PASSWORD, name=name)
        query = f"?{parts.query}" if parts.query else ""
        path = quote((parts.path or "/") + query, safe=UNQUOTED)
        return cls(parts.scheme, host, parts.port or PORTS[parts.scheme], path)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The value of a browser's Origin header."""
        return f"{self.scheme}://{self.authority}"

    @property
    def url(self) -> str:
        return self.origin + self.path


def _ascii(host: str) -> str:
    """Raises ValueError if it is no host's name."""
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    return host.encode("idna").decode("ascii").lower()  # UnicodeError is a ValueError


@dataclass(frozen=True)
class Allowed:
    """An entry of WEBHOOK_ALLOWED_HOSTS: a host by its name or a network, on one port or on any."""

    host: str = ""
    network: Network | None = None
    port: int | None = None

    @classmethod
    def read(cls, entry: str) -> Self:
        """Parse `nas.local`, `nas.local:80`, `192.168.1.7:80`, `[::1]:80` or `192.168.1.0/24`. Raises ValueError."""
        if (network := _network(entry)) is not None:
            return cls(network=network)
        parts = urlsplit(f"//{entry}")
        if not parts.hostname or parts.netloc != entry or "@" in entry or not re.fullmatch(r"[\w.:\[\]-]+", entry):
            raise ValueError(entry)
        host = _ascii(parts.hostname)
        network = _network(host)
        return cls(host="" if network else host, network=network, port=parts.port)

    def covers(self, address: Address, place: IP) -> bool:
        is_covered = self.host == address.host if self.network is None else place in self.network
        return is_covered and self.port in (None, address.port)


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def server_url(host: str, port: int, *, everywhere: str) -> str:
    """The URL of a server that listens at `host`; `everywhere` names the machine if that is every interface."""
    name = everywhere if host in ("0.0.0.0", "::") else host  # noqa: S104
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def look_up(
    address: Address, allowed: Iterable[Allowed], *, name: str = "url", resolve: LookUp = socket.getaddrinfo
) -> list[Place]:
    """Every place that an address leads to, all of them checked.

    Raises InvalidParameter if this server may not connect to one of them, and OSError if the name is not known.
    """
    try:
        places = resolve(address.host, address.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(str(error)) from error
    for place in places:
        ip = _ip(place)
        if not is_public(ip) and not any(entry.covers(address, ip) for entry in allowed):
            raise InvalidParameter(NOT_ALLOWED, name=name, host=address.host)
    return places


def _ip(place: Place) -> IP:
    ip = ipaddress.ip_address(str(place[4][0]).partition("%")[0])
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def is_public(ip: IP) -> bool:
    """Whether this is the address of one machine on the public internet."""
    if isinstance(ip, ipaddress.IPv6Address) and ip not in GLOBAL_UNICAST:
        return False
    return not any(ip in network for network in NOT_PUBLIC)


def check(url: str, allowed: Iterable[Allowed], *, name: str, resolve: LookUp = socket.getaddrinfo) -> None:
    """Check an address when it is saved. Raises InvalidParameter if nothing would be sent to it.

    A name that is not known now is accepted: the network may be down or the receiver not set up yet, and the address is
    checked again before anything is sent.
    """
    address = Address.read(url, name=name)
    try:
        look_up(address, allowed, name=name, resolve=resolve)
    except OSError:
        return
