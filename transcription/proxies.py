"""Which reverse proxies are believed, and what their headers say of a request.

A header may be forged by whoever sends it, so those of a proxy are read only if the connection comes from an address
that TRUSTED_PROXIES names. Free of Django: the settings read their list with it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self

IP = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# This machine and its private network.
NEAR = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
        "::1/128", "fc00::/7", "fe80::/10",
    )
)  # fmt: skip
# A request with one of these headers has passed a proxy.
SIGNS = (
    "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix",
    "X-Forwarded-Proto", "X-Forwarded-Server", "X-Real-IP",
)  # fmt: skip
# The header by which `manage.py doctor` asks this server, signed, how it sees the request.
DOCTOR = "X-Stenograf-Doctor"
# `name=value` or `name="value"`, and what ends it: a comma begins what the next proxy says. RFC 7239, section 4
PAIR = re.compile(r'\s*([\w-]+)=("(?:[^"\\]|\\.)*"|[^\s;,"]*)\s*([;,]|$)')


@dataclass(frozen=True)
class Proxies:
    """The proxies that are believed: those at addresses of `networks`, at most `most` of them in a row.

    Without a name there are those of this machine, which cannot be told from its other programs.
    """

    networks: tuple[Network, ...]
    most: int | None = None
    are_named: bool = True

    @classmethod
    def read(cls, entries: Iterable[str]) -> Self:
        """Parse addresses and networks. Raises ValueError if one is neither."""
        return cls(tuple(ip_network(entry.strip("[]"), strict=False) for entry in entries))

    def has(self, address: str) -> bool:
        ip = parse(address)
        return ip is not None and any(ip in network for network in self.networks)


ON_THIS_MACHINE = Proxies((ip_network("127.0.0.1/32"), ip_network("::1/128")), are_named=False)


@dataclass(frozen=True)
class Said:
    """What the headers of proxies say; empty where they say nothing."""

    addresses: tuple[str, ...]  # the client's first, then that of each proxy that another one saw
    scheme: str
    host: str


def read(headers: Mapping[str, str]) -> Said:
    """What the headers say, by X-Forwarded-… or else by Forwarded: most proxies write one and pass the other on."""
    if any(name in headers for name in ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host")):
        addresses = headers["X-Forwarded-For"].split(",") if "X-Forwarded-For" in headers else ()
        scheme, host = (headers.get(f"X-Forwarded-{name}", "").partition(",")[0].strip() for name in ("Proto", "Host"))
    else:
        elements = _elements(headers.get("Forwarded", ""))
        addresses = [element.get("for", "") for element in elements]
        scheme, host = (elements[0].get(name, "") if elements else "" for name in ("proto", "host"))
    scheme = scheme.lower()
    return Said(tuple(map(str.strip, addresses)), scheme if scheme in ("http", "https") else "", host)


def _elements(forwarded: str) -> list[dict[str, str]]:
    """What each proxy says in a Forwarded header; where that cannot be read, one that says nothing."""
    if not forwarded.strip():
        return []
    if PAIR.sub("", forwarded).strip():
        return [{}]
    elements: list[dict[str, str]] = [{}]
    for name, value, end in PAIR.findall(forwarded):
        elements[-1][name.lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        if end == ",":
            elements.append({})
    return elements


@dataclass(frozen=True)
class Origin:
    """Where a request comes from."""

    address: str  # the client's, or that of the last believed proxy if it does not tell the client's
    is_known: bool  # whether it is the client's for certain: nothing hints at a proxy that is not believed


def origin_of(peer: str, headers: Mapping[str, str], proxies: Proxies) -> Origin:
    """Follow what the believed proxies say of each other, from the connection's address towards the client."""
    told = list(read(headers).addresses)
    address, passed = peer, 0
    while told and passed != proxies.most and proxies.has(address):
        seen = parse(told[-1])
        if seen is None:
            break
        told.pop()
        address, passed = str(seen), passed + 1
    if not passed or not proxies.are_named:
        is_direct = not any(sign in headers for sign in SIGNS)
        # A proxy that was named and says nothing hides whose request this is.
        return Origin(address, is_direct and not (proxies.are_named and proxies.has(peer)))
    is_complete = passed == proxies.most if proxies.most else not proxies.has(address)
    is_contradicted = "X-Forwarded-For" in headers and "Forwarded" in headers
    return Origin(address, is_complete and not told and not is_contradicted)


def parse(text: str) -> IP | None:
    """An address without brackets, port and zone; an IPv4 address that is mapped into IPv6 becomes IPv4."""
    if (match := re.fullmatch(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+", text)) is not None:
        text = match[1] or match[2] or ""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
