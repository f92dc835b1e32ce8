"""What every page knows."""

from django.conf import settings
from django.http import HttpRequest
from django.utils import translation

THEMES = ("light", "dark")


def page(request: HttpRequest) -> dict[str, object]:
    """The theme that was chosen (empty: as the system), the host, and where a form of the masthead comes back to."""
    here, theme = translation.get_language(), request.COOKIES.get("theme", "")
    return {
        "theme": theme if theme in THEMES else "",
        "host": request.get_host().rpartition(":")[0] or request.get_host(),
        "here": request.get_full_path() if request.method == "GET" else request.path,
        "other_languages": [(code, name) for code, name in settings.LANGUAGES if code != here],
    }
