"""What is believed of the headers of a proxy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcription.proxies import NEAR, ON_THIS_MACHINE, Origin, Proxies, Said, origin_of, parse, read

FAR, NEIGHBOUR, PROXY = "203.0.113.7", "192.168.1.20", "10.0.0.2"
NAMED = Proxies.read([PROXY, "172.18.0.0/16", "fd00::/64"])
COUNTED = Proxies(NEAR, most=1)


def told(*addresses: str) -> dict[str, str]:
    return {"X-Forwarded-For": ", ".join(addresses)}


@pytest.mark.parametrize(
    ("peer", "headers", "address", "is_known"),
    [
        (NEIGHBOUR, {}, NEIGHBOUR, True),
        (NEIGHBOUR, told("127.0.0.1"), NEIGHBOUR, False),  # whoever is no proxy says nothing about others
        (PROXY, told(NEIGHBOUR), NEIGHBOUR, True),
        (f"::ffff:{PROXY}", told(NEIGHBOUR), NEIGHBOUR, True),
        (PROXY, told(FAR, NEIGHBOUR), NEIGHBOUR, False),  # it may be another proxy, or have forged the first address
        (PROXY, told(FAR, "172.18.0.9"), FAR, True),  # through two that are ours
        (PROXY, told(f"{NEIGHBOUR}:51234"), NEIGHBOUR, True),
        (PROXY, told("[fd00:1::7]:51234"), "fd00:1::7", True),
        (PROXY, told("fd00::2%eth0"), "fd00::2", False),  # one of ours that says nothing
        (PROXY, told("unknown"), PROXY, False),
        (PROXY, told(NEIGHBOUR, "_secret"), PROXY, False),
        (PROXY, told(""), PROXY, False),
        (PROXY, {}, PROXY, False),
        (PROXY, {"Forwarded": f"for={NEIGHBOUR};proto=https"}, NEIGHBOUR, True),
        (PROXY, {"Forwarded": f'for={FAR}, for="[fd00::2]:80";by=x'}, FAR, True),
        (PROXY, {"Forwarded": f'for="{NEIGHBOUR}'}, PROXY, False),
        (PROXY, {**told(NEIGHBOUR), "Forwarded": f"for={FAR}"}, NEIGHBOUR, False),
        (PROXY, {**told(NEIGHBOUR), "Via": "2.0 Caddy"}, NEIGHBOUR, True),
        (NEIGHBOUR, {"Via": "1.1 squid"}, NEIGHBOUR, False),
        ("", told(NEIGHBOUR), "", False),
    ],
)
def test_what_the_named_proxies_say_is_followed_to_the_client(
    peer: str, headers: dict[str, str], address: str, is_known: bool
) -> None:
    found = origin_of(peer, headers, NAMED)
    assert (found.address if parse(peer) is None else str(parse(found.address)), found.is_known) == (address, is_known)


@pytest.mark.parametrize(
    ("peer", "headers", "origin"),
    [
        ("127.0.0.1", {}, Origin("127.0.0.1", True)),
        ("127.0.0.1", told(NEIGHBOUR), Origin(NEIGHBOUR, False)),  # it counts, but opens nothing
        ("127.0.0.2", told(NEIGHBOUR), Origin("127.0.0.2", False)),
        (NEIGHBOUR, told("127.0.0.1"), Origin(NEIGHBOUR, False)),
    ],
)
def test_a_proxy_of_this_machine_is_believed_though_none_is_named(
    peer: str, headers: dict[str, str], origin: Origin
) -> None:
    assert origin_of(peer, headers, ON_THIS_MACHINE) == origin


@pytest.mark.parametrize(
    ("peer", "headers", "origin"),
    [
        (PROXY, told(NEIGHBOUR), Origin(NEIGHBOUR, True)),
        (PROXY, told(FAR, NEIGHBOUR), Origin(NEIGHBOUR, False)),
        (PROXY, {}, Origin(PROXY, False)),
        (FAR, told(NEIGHBOUR), Origin(FAR, False)),
    ],
)
def test_of_proxies_that_are_counted_each_is_in_the_private_network(
    peer: str, headers: dict[str, str], origin: Origin
) -> None:
    assert origin_of(peer, headers, COUNTED) == origin


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-Forwarded-Proto": "HTTPS", "X-Forwarded-Host": "example.org"}, Said((), "https", "example.org")),
        ({"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "a.org, b"}, Said((), "https", "a.org")),
        ({"X-Forwarded-Proto": "gopher"}, Said((), "", "")),
        ({"Forwarded": f'for={FAR};host="a.org:8443";proto=https'}, Said((FAR,), "https", "a.org:8443")),
        ({"Forwarded": ""}, Said((), "", "")),
        ({}, Said((), "", "")),
    ],
)
def test_the_first_proxy_says_what_it_was_asked(headers: dict[str, str], said: Said) -> None:
    assert read(headers) == said


NAMES = st.sampled_from(["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Via"])


@given(st.dictionaries(NAMES, st.text(st.characters(max_codepoint=255), max_size=60)))
def test_no_header_brings_a_stranger_into_the_private_network(headers: dict[str, str]) -> None:
    for proxies in (NAMED, COUNTED, ON_THIS_MACHINE):
        assert origin_of(FAR, headers, proxies).address == FAR


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_what_a_client_adds_before_the_proxys_word_does_not_change_it(forged: str) -> None:
    """A proxy appends what it saw to a header that the client sent."""
    for headers in (told(forged, FAR), {"Forwarded": f"{forged}, for={FAR}"}):
        assert origin_of(PROXY, headers, NAMED) in (
            Origin(FAR, not forged.strip()),
            Origin(FAR, False),
            Origin(PROXY, False),
        )
