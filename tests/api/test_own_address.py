"""A request comes by way of a proxy: the address that it was sent to, and what a refusal says is to be set."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.test import Client
from django.urls import get_script_prefix, set_script_prefix
from pytest_django import Settings

from config.asgi import application
from config.gate import Gate, Receive, Scope, Send
from tests.api.test_gate import ask
from transcription.outbound.addresses import Address
from transcription.proxies import Proxies

pytestmark = pytest.mark.django_db(transaction=True)

PROXY, STRANGER = ("172.18.0.2", 1), ("192.168.1.9", 1)


@pytest.fixture
def known(settings: Settings) -> None:
    settings.TRUSTED_PROXIES = Proxies.read([PROXY[0]])


def be_known_as(settings: Settings, url: str) -> None:
    public = Address.read(url)
    settings.PUBLIC_ADDRESS = public = replace(public, path=public.path.rstrip("/"))
    settings.NAMES_SERVED = ["localhost", public.host]
    settings.CSRF_TRUSTED_ORIGINS = [public.origin]
    settings.FORCE_SCRIPT_NAME = public.path


class Seeing:
    """Stands where Django does, and answers with what it is asked."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        told = {name: scope.get(name, "") for name in ("scheme", "path", "root_path")} | {
            name: headers.get(name, "") for name in ("host", "cookie")
        }
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})


def seen(path: str = "/", **named: Any) -> dict[str, str]:
    answer = ask(Gate(Seeing()), path, method="GET", **named)
    assert answer.status == 200, answer.body
    found: dict[str, str] = answer.json
    return found


# ------------------------------------------------------------------ which address


@pytest.mark.usefixtures("known")
def test_a_known_proxy_says_by_which_name_and_scheme_it_was_asked() -> None:
    told = {"x_forwarded_proto": "https", "x_forwarded_host": "testserver"}
    asked = seen(client=PROXY, host="localhost:8801", **told)
    assert (asked["scheme"], asked["host"]) == ("https", "testserver")
    asked = seen(client=PROXY, host="localhost:8801", x_forwarded_host="example.org")
    assert (asked["scheme"], asked["host"]) == ("http", "localhost:8801")  # a name that is not served
    asked = seen(client=STRANGER, host="localhost:8801", **told)
    assert (asked["scheme"], asked["host"]) == ("http", "localhost:8801")


@pytest.mark.usefixtures("known")
def test_traefik_says_it_in_its_own_headers(settings: Settings) -> None:
    be_known_as(settings, "https://example.org/stt/")
    told = {
        "x_forwarded_for": "192.168.1.20", "x_forwarded_host": "example.org", "x_forwarded_port": "443",
        "x_forwarded_prefix": "/stt", "x_forwarded_proto": "https", "x_forwarded_server": "traefik",
        "x_real_ip": "192.168.1.20",
    }  # fmt: skip
    asked = seen("/login/", client=PROXY, host="example.org", **told)
    assert (asked["scheme"], asked["host"], asked["path"]) == ("https", "example.org", "/stt/login/")
    settings.LEGACY_ANONYMOUS = True
    assert ask(application, "/models", method="GET", client=PROXY, host="example.org", **told).status == 200
    assert ask(application, "/models", method="GET", client=STRANGER, host="example.org", **told).status == 401


@pytest.mark.parametrize(
    ("url", "host", "scheme"),
    [
        ("https://example.org", "example.org", "https"),
        ("https://example.org", "example.org:443", "https"),
        ("https://example.org", "example.org:8801", "http"),  # past the proxy
        ("https://example.org:8443", "example.org:8443", "https"),
        ("https://example.org:8443", "example.org", "https"),  # nginx's $host
        ("http://example.org", "example.org", "http"),
        ("https://example.org", "localhost:8801", "http"),
    ],
)
def test_by_its_public_name_a_server_is_asked_by_its_public_scheme(
    settings: Settings, url: str, host: str, scheme: str
) -> None:
    be_known_as(settings, url)
    assert seen(host=host)["scheme"] == scheme


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("/", "/stt/"),
        ("/stt", "/stt/"),
        ("/stt/", "/stt/"),
        ("/login/", "/stt/login/"),
        ("/stt/login/", "/stt/login/"),
        ("/sttlogin/", "/stt/sttlogin/"),
    ],
)
def test_the_proxy_may_remove_the_path_before_ours_or_keep_it(settings: Settings, path: str, whole: str) -> None:
    be_known_as(settings, "https://example.org/stt/")
    asked = seen(path, host="example.org")
    assert (asked["path"], asked["root_path"]) == (whole, "/stt")


def test_of_cookies_with_one_name_ours_counts(settings: Settings) -> None:
    """Another program at the root of the same host may have set the second."""
    be_known_as(settings, "https://example.org/stt/")
    assert seen(host="example.org", cookie="sessionid=ours; a=1; sessionid=theirs")["cookie"] == "sessionid=ours; a=1"


@pytest.mark.parametrize("path", ["/", "/stt/"])
def test_an_upload_without_a_session_is_sent_to_sign_in_below_the_path(settings: Settings, path: str) -> None:
    be_known_as(settings, "https://example.org/stt/")
    answer = ask(application, path, [b"x"], host="example.org", content_length="1")
    assert (answer.status, answer.headers["location"]) == (303, "/stt/login/?next=/stt/")


@pytest.mark.parametrize("path", ["/api/v1/nothing/", "/stt/api/v1/nothing/"])
def test_a_refusal_keeps_the_shape_of_its_endpoint_below_a_path(settings: Settings, path: str) -> None:
    be_known_as(settings, "https://example.org/stt/")
    answer = ask(application, path, method="GET", host="example.org")
    assert (answer.status, answer.json) == (404, {"detail": "There is nothing at this address."})


def test_cookies_are_secure_by_https_alone(settings: Settings) -> None:
    be_known_as(settings, "https://example.org/stt/")
    for host, is_secure in (("example.org", True), ("localhost:8801", False)):
        cookie = ask(application, "/login/", method="GET", host=host).headers["set-cookie"]
        assert "Path=/stt/;" in f"{cookie};"
        assert ("Secure" in cookie) is is_secure


# ------------------------------------------------------------------ what a refusal says


def signing_in(**named: str) -> str:
    """The page that refuses to sign a person in, whose page came from another address."""
    client = Client(enforce_csrf_checks=True, headers=named)
    page = client.post("/login/", {"username": "a", "password": "b"})
    assert page.status_code == 403
    shown = re.search(r"<p>(.*?)</p>", page.content.decode(), re.DOTALL)
    assert shown is not None
    return shown[1].strip()


@pytest.mark.parametrize(("language", "part"), [("en", "set PUBLIC_URL to it"), ("ru", "задать в PUBLIC_URL")])
def test_a_page_from_another_address_is_told_to_set_the_public_one(language: str, part: str) -> None:
    shown = signing_in(origin="https://example.org", accept_language=language)
    assert part in shown
    assert "https://example.org" in shown
    assert "http://testserver" in shown


@pytest.mark.parametrize(("language", "part"), [("en", "open that one"), ("ru", "откройте его")])
def test_a_page_by_http_is_told_to_open_the_public_address(settings: Settings, language: str, part: str) -> None:
    be_known_as(settings, "https://example.org")
    shown = signing_in(origin="http://example.org", accept_language=language)
    assert part in shown
    assert "https://example.org" in shown


@pytest.mark.parametrize(("language", "part"), [("en", "add 127.0.0.5 to"), ("ru", "добавить 127.0.0.5 в")])
def test_a_proxy_that_is_not_known_is_named(language: str, part: str) -> None:
    client = Client(enforce_csrf_checks=True, REMOTE_ADDR="127.0.0.5")
    headers = {"origin": "https://testserver", "x_forwarded_proto": "https", "accept_language": language}
    page = client.post("/login/", headers=headers)
    assert page.status_code == 403
    assert f"{part} TRUSTED_PROXIES" in re.sub(r"\s+", " ", page.content.decode())


@pytest.mark.parametrize("template", ["403_csrf.html", "500.html"])
def test_a_page_without_a_context_leads_below_the_path_too(template: str) -> None:
    before = get_script_prefix()
    set_script_prefix("/stt/")
    try:
        assert 'href="/stt/"' in render_to_string(template)
    finally:
        set_script_prefix(before)


def test_a_form_without_its_token_is_out_of_date_as_ever(settings: Settings) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://example.org"]
    for origin in ({}, {"origin": "null"}, {"origin": "http://testserver"}, {"origin": "https://example.org"}):
        assert "Nothing was changed" in signing_in(**origin)


def test_the_api_says_it_as_a_sentence(owner: User) -> None:
    client = Client(enforce_csrf_checks=True, headers={"origin": "https://example.org"})
    client.force_login(owner)
    answer = client.post("/api/v1/batches/")
    assert answer.status_code == 403
    assert "set PUBLIC_URL to it" in answer.json()["detail"]


@pytest.mark.parametrize(("language", "part"), [("en", "Set PUBLIC_URL"), ("ru", "Задайте его адрес в PUBLIC_URL")])
def test_a_name_that_is_not_served_is_told_what_to_set(language: str, part: str) -> None:
    for path in ("/", "/api/v1/jobs/", "/v1/models"):
        page = ask(Gate(Seeing()), path, method="GET", host="stenograf.example.org", accept_language=language)
        assert page.status == 400
        assert part in page.body.decode()


def test_a_name_that_was_pointed_here_is_not_served_for_its_headers() -> None:
    """A page of another site, in a browser on this machine, whose address is believed as a proxy's."""
    told = {"x_forwarded_host": "localhost", "forwarded": "host=localhost"}
    assert ask(Gate(Seeing()), "/", method="GET", client=("127.0.0.1", 1), host="evil.example", **told).status == 400


# ------------------------------------------------------------------ who asks


def test_passwords_are_counted_for_the_client_that_a_known_proxy_saw(settings: Settings, owner: User) -> None:
    settings.TRUSTED_PROXIES = Proxies.read(["127.0.0.1"])
    wrong = {"username": owner.get_username(), "password": "wrong"}
    statuses = [
        Client(headers={"x_forwarded_for": "198.51.100.1"}).post("/login/", wrong).status_code for _ in range(6)
    ]
    assert statuses[-1] == 429
    assert Client(headers={"x_forwarded_for": "198.51.100.2"}).post("/login/", wrong).status_code == 200


def test_how_a_request_looks_is_told_to_the_doctor_alone(client: Client) -> None:
    for word in ("", "x", "a:b:c"):
        assert "seen" not in client.get("/health", headers={"x_stenograf_doctor": word}).json()
