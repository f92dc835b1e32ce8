"""What `manage.py serve` does before and beside serving."""

import pytest
from django.conf import LazySettings

from tests.server import Server
from transcription.management.commands import serve


@pytest.mark.parametrize(
    ("host", "page"),
    [
        ("127.0.0.1", "http://localhost:8801/"),
        ("0.0.0.0", "http://localhost:8801/"),
        ("10.0.0.7", "http://10.0.0.7:8801/"),
        ("::1", "http://[::1]:8801/"),
    ],
)
def test_the_address_it_tells_can_be_opened(settings: LazySettings, host: str, page: str) -> None:
    settings.HOST, settings.PORT = host, 8801
    assert serve._page() == page


def test_a_proxy_for_the_world_outside_is_not_asked_for_ourselves(
    nano_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert serve._answers(f"{nano_server.url}/health")
