"""Real reverse proxies on loopback: nginx and Caddy, with the configuration that docs/proxy.md gives."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.server import ROOT, free_port, wait_until

NAME = "stt.test"
NGINX = """
daemon off;
master_process off;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""
CADDY = """
{{
	admin off
	auto_https disable_redirects
	skip_install_trust
}}
{servers}
"""


def examples(language: str) -> list[str]:
    """The blocks of the documentation in one language, in their order."""
    page = (ROOT / "docs" / "proxy.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def make_certificate(folder: Path) -> Path:
    """A key and a certificate of NAME and localhost, signed by itself, in one file."""
    names = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},DNS:localhost"]
    key, file = folder / "key.pem", folder / "certificate.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", "-x509", *kind, *names, "-keyout", str(key), "-out", str(file)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    both = folder / "both.pem"
    both.write_text(key.read_text() + file.read_text())
    return both


def nginx_server(example: str, *, port: int, upstream: int, certificate: Path, more: str = "") -> str:
    """A documented server, or one around a documented location, at a port of the tests'."""
    if not example.startswith("server"):
        example = (
            "server {\n    listen 443 ssl;\n    server_name stenograf.example.org;\n"
            "    ssl_certificate /etc/ssl/stenograf.pem;\n    ssl_certificate_key /etc/ssl/stenograf.key;\n"
            f"{example}}}\n"
        )
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl; {more}",
        "stenograf.example.org": NAME,
        "/etc/ssl/stenograf.pem": str(certificate),
        "/etc/ssl/stenograf.key": str(certificate),
        "http://127.0.0.1:8801": f"http://127.0.0.1:{upstream}",
    }
    return _changed(example, changes)


def caddy_site(example: str, *, name: str, port: int, upstream: int, certificate: Path) -> str:
    changes = {
        " {\n": f":{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {certificate}\n",
        "127.0.0.1:8801": f"127.0.0.1:{upstream}",
    }
    changed = _changed(example, changes)
    return re.sub(r"^[\w.]*example\.org", name, changed, count=1)


def _changed(example: str, changes: dict[str, str]) -> str:
    for written, ours in changes.items():
        assert written in example, f"docs/proxy.md has no {written!r} any more"
        example = example.replace(written, ours, 1)
    return example


@contextmanager
def running(program: str, configuration: str, folder: Path, ports: list[int]) -> Iterator[None]:
    """nginx or Caddy with this configuration, until the end; it has ended then."""
    folder.mkdir()
    file = folder / "configuration"
    file.write_text(configuration)
    nginx = [str(shutil.which("nginx")), "-p", str(folder), "-c", str(file), "-e", "stderr"]
    caddy = [str(shutil.which("caddy")), "run", "--config", str(file), "--adapter", "caddyfile"]
    environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            nginx if program == "nginx" else caddy, env=environment, cwd=folder, stdout=log, stderr=log
        )
    try:
        wait_until(lambda: child.poll() is not None or all(map(_listens, ports)), 20)
        assert child.poll() is None, (folder / "log").read_text()[-3000:]
        yield
    finally:
        child.terminate()
        try:
            child.wait(10)
        finally:
            child.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class To(httpx.HTTPTransport):
    """Connects to a port of loopback, whatever the name in the address is, as a line in /etc/hosts would."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        super().__init__(verify=False, local_address=source)
        self.port = port

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        there = httpx.Request(
            request.method,
            request.url.copy_with(host="127.0.0.1", port=self.port),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": request.url.host},
        )
        return super().handle_request(there)


def ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return sorted(found)
