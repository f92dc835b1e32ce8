"""What a reverse proxy has changed about a request is put back before anything looks at it."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.utils.datastructures import CaseInsensitiveMapping

from transcription import proxies
from transcription.outbound.addresses import PORTS

Scope = dict[str, Any]


def as_the_client_sent_it(scope: Scope) -> Scope:
    """A request's ASGI scope with the host, the scheme and the path that its client used, as far as that is known.

    The client's address stays the connection's: `client_address` needs both.
    """
    headers: dict[str, str] = {}
    for name, value in ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]):
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    said = proxies.Said((), "", "")
    if settings.TRUSTED_PROXIES.has(str((scope.get("client") or ("",))[0])):
        said = proxies.read(CaseInsensitiveMapping(headers))
    host = headers.get("host", "")
    # A page of another site can point its name at this machine and write any header, but not its Host.
    if said.host and is_served(scope, headers.get("host")) and is_served(scope, said.host):
        host = said.host
    prefix = settings.FORCE_SCRIPT_NAME or ""
    scheme = said.scheme or scope.get("scheme", "http")
    changed: dict[bytes, bytes] = {}
    if host != headers.get("host", ""):
        changed[b"host"] = host.encode("latin-1")
    if prefix and "cookie" in headers:
        changed[b"cookie"] = _first_of_each_name(value for name, value in scope["headers"] if name == b"cookie")
    return {
        **scope,
        "headers": [*(header for header in scope["headers"] if header[0] not in changed), *changed.items()],
        "scheme": "https" if _public_scheme(host) == "https" else scheme,
        "path": _below(prefix, scope["path"]),
        "root_path": prefix,
    }


def is_served(scope: Mapping[str, Any], host: str | None) -> bool:
    """Whether the name in a Host header is one of this server's, or the address that the request came in by."""
    address = str((scope.get("server") or ("localhost",))[0]).removeprefix("::ffff:")
    address = f"[{address}]" if ":" in address else address
    domain, _port = split_domain_port(address if host is None else host)
    return bool(domain) and validate_host(domain, [*settings.NAMES_SERVED, address])


def _public_scheme(host: str) -> str:
    """The scheme of PUBLIC_URL for a request under its name; empty for another, which came by another way."""
    public = settings.PUBLIC_ADDRESS
    if public is None:
        return ""
    domain, port = split_domain_port(host)
    # Some proxies pass the name without the port.
    is_public = domain.strip("[]") == public.host and port in ("", str(public.port))
    # A client that asks this port itself names it, unless it is HTTP's own.
    is_direct = not port and PORTS["http"] == settings.PORT
    return public.scheme if is_public and not is_direct else ""


def _below(prefix: str, path: str) -> str:
    """The path with the prefix, which the proxy may have removed; a request from this machine never had it."""
    if path == prefix:
        return f"{prefix}/"
    return path if path.startswith(f"{prefix}/") else prefix + path


def _first_of_each_name(cookies: Iterable[bytes]) -> bytes:
    """Cookies of which several have one name, without those of shorter paths: a browser sends the longest path first.

    Django would take the last, which another program at the same host may have set.
    """
    first: dict[bytes, bytes] = {}
    for cookie in b";".join(cookies).split(b";"):
        first.setdefault(cookie.partition(b"=")[0].strip(), cookie.strip())
    return b"; ".join(first.values())
