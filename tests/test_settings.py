"""What the settings promise."""

import pytest
from django.conf import settings
from django.utils.module_loading import import_string


@pytest.mark.parametrize("name", settings.MIDDLEWARE)
def test_no_middleware_makes_a_waiting_request_hold_a_thread(name: str) -> None:
    assert import_string(name).async_capable
