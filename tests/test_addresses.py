"""Where a webhook may go."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import pytest

from transcription.outbound.addresses import Address, Allowed, check, is_public, look_up
from transcription.parameters import InvalidParameter

PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "198.18.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "::1",
    "::",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001::1",
    "2001:db8::1",
    "3fff::1",
    "fd00::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "100::1",
    "5f00::1",
]
PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4010::8a", "::ffff:8.8.8.8"]


def leading_to(*places: str) -> Callable[..., list[Any]]:
    """A resolver for which every name has these places."""

    def resolve(host: str, port: int, **_: object) -> list[Any]:
        kinds = [(socket.AF_INET6 if ":" in place else socket.AF_INET, place) for place in places]
        return [(kind, socket.SOCK_STREAM, 6, "", (place, port)) for kind, place in kinds]

    return resolve


def unknown(*_: object, **__: object) -> list[Any]:
    raise socket.gaierror(socket.EAI_NONAME, "unknown")


@pytest.mark.parametrize("place", PRIVATE)
def test_what_is_not_on_the_public_internet_is_refused(place: str) -> None:
    with pytest.raises(InvalidParameter, match="url leads to hook.example.org, which is not on the public internet"):
        check("https://hook.example.org/", (), name="url", resolve=leading_to(place))


@pytest.mark.parametrize("place", PUBLIC)
def test_what_is_public_may_be_sent_to(place: str) -> None:
    check("https://hook.example.org/", (), name="url", resolve=leading_to(place))


def test_a_name_with_two_places_of_which_one_is_private_is_refused() -> None:
    with pytest.raises(InvalidParameter):
        check("https://hook.example.org/", (), name="url", resolve=leading_to("8.8.8.8", "127.0.0.1"))


def test_a_name_that_nobody_knows_now_may_be_saved() -> None:
    check("https://hook.example.org/", (), name="url", resolve=unknown)


@pytest.mark.parametrize(
    "url",
    [
        "", "hook", "ftp://example.org/", "file:///etc/passwd", "gopher://8.8.8.8/", "http://", "http:///path",
        "//example.org/", "javascript:alert(1)", "http://example.org:0/", "http://example.org:99999/",
        "http://example.org/\r\nX: y", "http://example.org/a b", "http://exa\tmple.org/", "http://[::1/", "http://[x]/",
        "http:\\\\example.org", f"http://{'a' * 64}.org/", "http://example.org/" + "a" * 2000, "http://a..b/",
    ],
)  # fmt: skip
def test_what_is_no_address_on_the_web_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="callback_url is a web address of at most 2000 characters"):
        check(url, (), name="callback_url", resolve=leading_to("8.8.8.8"))


@pytest.mark.parametrize("url", ["http://user@example.org/", "http://user:secret@example.org/", "http://@example.org/"])
def test_an_address_with_a_password_is_refused(url: str) -> None:
    with pytest.raises(InvalidParameter, match="holds a user name or a password"):
        check(url, (), name="url", resolve=leading_to("8.8.8.8"))


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "0177.0.0.1", "①②⑦.0.0.1", "127.1", "localhost", "[::ffff:7f00:1]"]
)
def test_other_ways_to_write_this_machine_are_refused(host: str) -> None:
    """With this machine's own resolver."""
    with pytest.raises(InvalidParameter):
        check(f"http://{host}/", (), name="url")


@pytest.mark.parametrize(
    ("entry", "url", "place"),
    [
        ("nas.local", "http://nas.local:8080/", "192.168.1.7"),
        ("nas.local", "http://NAS.local/", "10.0.0.1"),
        ("nas.local:8080", "http://nas.local:8080/", "192.168.1.7"),
        ("192.168.1.0/24", "http://nas.local/", "192.168.1.7"),
        ("192.168.1.7", "http://192.168.1.7:5678/", "192.168.1.7"),
        ("192.168.1.7:5678", "http://192.168.1.7:5678/", "192.168.1.7"),
        ("127.0.0.1", "http://localhost/", "::ffff:127.0.0.1"),
        ("::1", "http://[::1]/", "::1"),
        ("[::1]:9000", "http://[::1]:9000/", "::1"),
        ("fd00::/8", "http://nas.local/", "fd00::7"),
        ("дом.local", "http://дом.local/", "10.0.0.1"),
    ],
)
def test_what_the_administrator_named_may_be_sent_to(entry: str, url: str, place: str) -> None:
    check(url, [Allowed.read(entry)], name="url", resolve=leading_to(place))


@pytest.mark.parametrize(
    ("entry", "url", "place"),
    [
        ("nas.local", "http://other.local/", "192.168.1.7"),
        ("nas.local:8080", "http://nas.local/", "192.168.1.7"),
        ("192.168.1.0/24", "http://nas.local/", "192.168.2.7"),
        ("192.168.1.7:5678", "http://192.168.1.7/", "192.168.1.7"),
        ("local", "http://nas.local/", "192.168.1.7"),
        ("::1", "http://localhost/", "127.0.0.1"),
    ],
)
def test_nothing_beside_what_was_named_may(entry: str, url: str, place: str) -> None:
    with pytest.raises(InvalidParameter):
        check(url, [Allowed.read(entry)], name="url", resolve=leading_to(place))


@pytest.mark.parametrize(
    "entry", ["http://nas.local", "nas.local/", "a b", "nas.local:port", "user@nas", "", "*", "10.0.0.0/8:80"]
)
def test_an_entry_that_says_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (the settings say the rest)
        Allowed.read(entry)


def test_an_address_is_taken_apart_for_the_wire() -> None:
    address = Address.read("https://Пример.рф:8443/крюк?а=б&c=%20#below")
    assert (address.host, address.port) == ("xn--e1afmkfd.xn--p1ai", 8443)
    assert address.path == "/%D0%BA%D1%80%D1%8E%D0%BA?%D0%B0=%D0%B1&c=%20"
    assert address.authority == "xn--e1afmkfd.xn--p1ai:8443"
    assert Address.read("http://[2606:4700::1111]").authority == "[2606:4700::1111]"


def test_the_name_is_looked_up_once() -> None:
    asked = []

    def rebinding(host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        return leading_to("8.8.8.8" if len(asked) == 1 else "127.0.0.1")(host, port)

    places = look_up(Address.read("https://hook.example.org/"), (), resolve=rebinding)
    assert [place[4][0] for place in places] == ["8.8.8.8"]
    assert len(asked) == 1


def test_the_lists_are_of_one_mind() -> None:
    assert not any(is_public(ipaddress.ip_address(place.partition("%")[0])) for place in PRIVATE if "ffff" not in place)
