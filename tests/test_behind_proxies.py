"""Through nginx and Caddy as docs/proxy.md sets them up: signing in, pages, uploads, events, below a path or not."""

import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from django.conf import LazySettings
from django.core import signing
from playwright.sync_api import expect, sync_playwright

from tests import proxies
from tests.proxies import NAME, To, examples
from tests.server import NANO, PASSWORD, ROOT, Server, wait_until
from tests.web.test_browser import QUIET
from transcription import doctor
from transcription.outbound.addresses import Address
from transcription.proxies import DOCTOR

pytestmark = [pytest.mark.needs("nginx", "caddy", "openssl"), pytest.mark.heavy]

BEARS = NANO / "nano" / "bears.wav"
PREFIX = "/stt"
PUBLIC = f"https://{NAME}{PREFIX}"
KNOWN, UNKNOWN = "127.0.0.2", "127.0.0.3"  # addresses of proxies


@dataclass(frozen=True)
class Way:
    """A proxy's port, and the address that a person opens there."""

    port: int
    url: str

    def client(self, source: str = "127.0.0.1") -> httpx.Client:
        return httpx.Client(base_url=self.url, transport=To(self.port, source), timeout=60)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return proxies.make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def below(nano_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One more web process over the server's rows, which is told that others know it by PUBLIC."""
    told = {"PUBLIC_URL": f"{PUBLIC}/", "TRUSTED_PROXIES": f"127.0.0.1,{KNOWN}", "LEGACY_ANONYMOUS": "true"}
    server = Server(nano_server.data, NANO)
    server.environment = {**nano_server.environment, **told, "PORT": str(server.port)}
    server.token = nano_server.token
    program = [sys.executable, "-m", "uvicorn", "config.asgi:application", "--port", str(server.port)]
    quiet = ["--no-proxy-headers", "--lifespan", "on", "--log-level", "warning", "--timeout-graceful-shutdown", "1"]
    with (tmp_path_factory.mktemp("below") / "log").open("wb") as log:
        server.process = subprocess.Popen([*program, *quiet], cwd=ROOT, env=server.environment, stdout=log, stderr=log)
    wait_until(server.is_healthy, 60)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def ways(
    nano_server: Server, below: Server, certificate: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Way]]:
    """Every way through a proxy, by its name."""
    whole, kept = examples("nginx")
    caddy_whole, caddy_kept = examples("caddyfile")
    removed = kept.replace("8801;", "8801/;")
    unaware = re.sub(r"(?m)^.*(Forwarded|_buffering|max_body).*\n", "", kept)  # as most people write it first
    nginx = {
        "nginx": (whole, nano_server, ""),
        "nginx below a path": (kept, below, f"proxy_bind {KNOWN};"),
        "nginx that removes the path": (removed, below, f"proxy_bind {KNOWN};"),
        "an unknown nginx": (unaware, below, f"proxy_bind {UNKNOWN};"),
    }
    caddy = {
        "caddy": (caddy_whole, nano_server),
        "caddy below a path": (caddy_kept, below),
        "caddy that removes the path": (caddy_kept.replace("handle ", "handle_path "), below),
    }
    named = dict(zip((*nginx, *caddy), proxies.ports(len(nginx) + len(caddy)), strict=True))
    servers = [
        proxies.nginx_server(example, port=named[name], upstream=server.port, certificate=certificate, more=more)
        for name, (example, server, more) in nginx.items()
    ]
    sites = [
        proxies.caddy_site(
            example,
            name=NAME if server is below else "localhost",
            port=named[name],
            upstream=server.port,
            certificate=certificate,
        )
        for name, (example, server) in caddy.items()
    ]
    folder = tmp_path_factory.mktemp("proxies")
    nginx_configuration = proxies.NGINX.format(folder=folder / "nginx", servers="".join(servers))
    caddy_configuration = proxies.CADDY.format(servers="".join(sites))
    with (
        proxies.running("nginx", nginx_configuration, folder / "nginx", [named[name] for name in nginx]),
        proxies.running("caddy", caddy_configuration, folder / "caddy", [named[name] for name in caddy]),
    ):
        at_root = {"nginx", "caddy"}
        yield {
            name: Way(port, f"https://localhost:{port}" if name in at_root else PUBLIC) for name, port in named.items()
        }


def sign_in(client: httpx.Client) -> httpx.Response:
    """As a browser does: the form, then the form filled in."""
    page = client.get("/login/")
    assert page.status_code == 200, page.text
    word = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert word is not None
    origin = f"{client.base_url.scheme}://{client.base_url.netloc.decode()}"
    form = {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": word[1]}
    return client.post("/login/", data=form, headers={"Origin": origin, "Referer": f"{client.base_url}login/"})


def addresses_in(page: str) -> set[str]:
    """The addresses of this server that a page names."""
    named = re.findall(r'\s(?:href|src|action|hx-get|data-url|data-row|data-events|data-schema)="([^"#]+)"', page)
    return {address.replace("&amp;", "&") for address in named}


THROUGH = (
    "nginx",
    "nginx below a path",
    "nginx that removes the path",
    "caddy",
    "caddy below a path",
    "caddy that removes the path",
)


@pytest.mark.parametrize("name", THROUGH)
def test_a_person_signs_in(ways: dict[str, Way], name: str) -> None:
    way = ways[name]
    prefix = PREFIX if way.url == PUBLIC else ""
    with way.client() as client:
        assert client.get("/").headers["Location"] == f"{prefix}/login/?next={prefix}/"
        signed_in = sign_in(client)
        assert (signed_in.status_code, signed_in.headers["Location"]) == (302, f"{prefix}/")
        for cookie in client.cookies.jar:
            assert (cookie.path, cookie.secure) == (f"{prefix}/", True), cookie
        page = client.get("/")
        assert page.status_code == 200
        styles = next(address for address in addresses_in(page.text) if address.endswith(".css"))
        assert styles.startswith(f"{prefix}/static/")
        assert client.get(f"https://{client.base_url.netloc.decode()}{styles}").status_code == 200


@pytest.mark.parametrize("name", ["nginx", "caddy that removes the path"])
def test_every_address_on_the_pages_is_there(ways: dict[str, Way], name: str, nano_server: Server) -> None:
    way = ways[name]
    job = nano_server.transcribe(BEARS, language="en")["id"]
    prefix = PREFIX if way.url == PUBLIC else ""
    with way.client() as client:
        sign_in(client)
        addresses: set[str] = set()
        for path in ("/", "/keys/", "/webhook/", "/api/docs/", "/admin/", f"/jobs/{job}/"):
            addresses |= addresses_in(client.get(path).text)
        assert len(addresses) > 20
        assert {address for address in addresses if not address.startswith(f"{prefix}/")} == set()
        for address in addresses:
            answer = client.head(f"https://{client.base_url.netloc.decode()}{address}")
            # Some answer to a POST alone, and a row of no job is nowhere.
            assert answer.status_code in (200, 302, 405) or "00000000-0000" in address, address
        described = yaml.safe_load(client.get("/api/schema/").text)
        assert described["servers"] == [{"url": way.url}]
        assert f"{way.url}/v1" in client.get("/api/docs/").text


@pytest.mark.parametrize("name", THROUGH)
def test_recordings_go_in_and_events_come_out_while_they_are_made(
    ways: dict[str, Way], name: str, nano_server: Server, lecture: Path
) -> None:
    way = ways[name]
    host = way.url.removesuffix(PREFIX)
    with way.client() as client:
        client.headers["Authorization"] = f"Token {nano_server.token}"
        with lecture.open("rb") as file:
            made = client.post("/api/v1/jobs/", files={"file": ("lecture.wav", file)}, data={"language": "en"})
        assert made.status_code == 202, made.text
        job = made.headers["Location"]
        assert job.removeprefix(host).startswith(f"{way.url.removeprefix(host)}/api/v1/jobs/")
        with client.stream("GET", f"/api/v1/jobs/{made.json()['id']}/events/") as events:
            assert events.headers["Content-Type"].startswith("text/event-stream")
            assert next(line for line in events.iter_lines() if line.startswith("data:"))
            # A proxy that kept the stream back would give it when the job has ended.
            assert nano_server.job(made.json()["id"])["status"] not in ("done", "failed")
        client.post(f"/api/v1/jobs/{made.json()['id']}/cancel/")

        content = BEARS.read_bytes()
        tus = {"Tus-Resumable": "1.0.0"}
        metadata = f"filename {b64encode(b'bears.wav').decode()}"
        begun = client.post(
            "/api/v1/uploads/", headers={**tus, "Upload-Length": str(len(content)), "Upload-Metadata": metadata}
        )
        place = begun.headers["Location"]
        assert place.startswith(f"{way.url.removeprefix(host)}/api/v1/uploads/")
        chunk = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        assert client.patch(f"{host}{place}", headers=chunk, content=content).status_code == 204
        heard = client.post("/api/v1/jobs/", json={"upload": begun.json()["id"], "language": "en"})
        assert heard.status_code == 202, heard.text

        share = client.post(f"/api/v1/jobs/{heard.json()['id']}/share/")
        assert share.status_code == 201, share.text
        assert share.json()["url"].startswith(f"{way.url}/s/")
        assert client.get(share.json()["url"]).status_code == 200


def test_signing_in_needs_no_more_than_the_public_address(ways: dict[str, Way]) -> None:
    with ways["an unknown nginx"].client() as client:
        assert sign_in(client).status_code == 302
        assert all(cookie.secure for cookie in client.cookies.jar)
        assert client.get("/").status_code == 200


def seen(server: Server, client: httpx.Client, **headers: str) -> dict[str, Any]:
    """How the server sees a request, as it tells `manage.py doctor`."""
    key = (server.data / "secret_key").read_text().strip()
    word = signing.dumps("", key=key, salt=DOCTOR)
    told = client.get("/health", headers={DOCTOR: word, **headers})
    assert told.status_code == 200, told.text
    found: dict[str, Any] = told.json()["seen"]
    return found


FORGED = {
    "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "localhost",
    "Forwarded": "for=127.0.0.1;proto=https;host=localhost",
}


def test_what_is_not_a_known_proxy_changes_nothing_by_its_headers(ways: dict[str, Way], below: Server) -> None:
    with httpx.Client(base_url=below.url, transport=httpx.HTTPTransport(local_address=UNKNOWN)) as client:
        direct, forged = seen(below, client), seen(below, client, **FORGED)
        assert forged == {**direct, "has_passed_a_proxy": True}
        assert (forged["client"], forged["scheme"]) == (UNKNOWN, "http")
        assert client.get("/models").status_code == 200  # LEGACY_ANONYMOUS
        for name, value in FORGED.items():
            assert client.get("/models", headers={name: value}).status_code == 401, name


@pytest.mark.parametrize("name", ["nginx below a path", "caddy below a path"])
def test_a_known_proxy_says_whom_it_saw_and_nobody_else_does(ways: dict[str, Way], below: Server, name: str) -> None:
    with ways[name].client("127.0.0.9") as client:
        assert (seen(below, client)["client"], seen(below, client)["scheme"]) == ("127.0.0.9", "https")
        forged = {name: value for name, value in FORGED.items() if name != "X-Forwarded-Host"}
        assert seen(below, client, **forged)["client"] == "127.0.0.9"
        assert client.get("/models").status_code == 200


def test_through_a_proxy_that_says_nothing_nobody_is_anonymous(ways: dict[str, Way]) -> None:
    with ways["an unknown nginx"].client() as client:
        assert client.get("/models").status_code == 401


# ------------------------------------------------------------------ manage.py doctor


@pytest.fixture
def asks(settings: LazySettings, nano_server: Server, below: Server) -> Callable[[Server, str], list[tuple[str, str]]]:
    """What the doctor of a server finds where PUBLIC_URL is this."""

    def ask(server: Server, url: str) -> list[tuple[str, str]]:
        settings.SECRET_KEY = (server.data / "secret_key").read_text().strip()
        settings.PORT = server.port
        settings.PUBLIC_ADDRESS = replace(Address.read(url), path=urlsplit(url).path)
        return [(finding.state.value, finding.sentence) for _, finding in doctor.examine(["public_address"])]

    return ask


Asks = Callable[[Server, str], list[tuple[str, str]]]


@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_the_doctor_finds_the_server_behind_its_proxy(
    ways: dict[str, Way],
    asks: Asks,
    nano_server: Server,
    certificate: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ((state, said),) = asks(nano_server, ways[name].url)
    assert (state, "The certificate at" in said, "SSL_CERT_FILE" in said) == ("wrong", True, True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    url = f"https://localhost:{ways[name].port}"
    assert asks(nano_server, url) == [("well", f"{url} leads here, and this machine is 127.0.0.1 there")]


def test_the_doctor_names_the_proxy_that_is_not_known(
    ways: dict[str, Way], asks: Asks, below: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    found = asks(below, f"https://localhost:{ways['an unknown nginx'].port}{PREFIX}")
    assert any(state == "wrong" and f"{UNKNOWN} to TRUSTED_PROXIES" in said for state, said in found), found


def test_the_doctor_tells_another_installation_from_this_one(
    ways: dict[str, Way], asks: Asks, nano_server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(signing, "dumps", lambda *_arguments, **_named: "signed:with:another-secret")
    ((state, said),) = asks(nano_server, f"https://localhost:{ways['nginx'].port}")
    assert (state, said.startswith("Another Stenograf answers at")) == ("wrong", True)


# ------------------------------------------------------------------ in a browser


@pytest.mark.needs("chromium")
def test_the_pages_work_below_a_path_in_a_browser(ways: dict[str, Way], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # the synchronous Playwright runs a loop in this thread
    complaints: list[str] = []
    way = ways["nginx that removes the path"]
    there = f"--host-resolver-rules=MAP {NAME}:443 127.0.0.1:{way.port}"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[*QUIET, there])
        page = chromium.new_context(locale="en-GB", ignore_https_errors=True).new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{PUBLIC}/")
        page.get_by_label("Name", exact=True).fill("admin")
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(f"{PUBLIC}/")
        page.set_input_files("input[type=file]", BEARS)
        row = page.locator(".job").filter(has=page.get_by_role("link", name=BEARS.name)).first
        expect(row).to_have_class(re.compile("is-done"), timeout=60_000)
        row.get_by_role("link").first.click()
        expect(page.locator(".transcript")).to_contain_text("Twelve bears")
        cookies = {cookie["name"]: (cookie["path"], cookie["secure"]) for cookie in page.context.cookies()}
        assert {path for path, _ in cookies.values()} == {f"{PREFIX}/"}
        assert cookies["sessionid"] == cookies["csrftoken"] == (f"{PREFIX}/", True)
        page.goto(f"{PUBLIC}/api/docs/")
        page.locator("#operations-tag-queue").click()
        page.locator(".opblock-summary-path[data-path='/api/v1/queue/']").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("200")
        page.screenshot(path="/tmp/api.png")
        page.goto(f"{PUBLIC}/")
        page.screenshot(path="/tmp/dash.png")
        chromium.close()
    assert complaints == []
