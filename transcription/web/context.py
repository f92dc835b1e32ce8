"""The context that every template gets."""

from django.conf import settings
from django.http import HttpRequest
from django.utils import translation

THEMES = ("light", "dark")


def page(request: HttpRequest) -> dict[str, object]:
    """The chosen theme (empty: the system's), the host, and the page that the masthead's forms return to."""
    language, theme = translation.get_language(), request.COOKIES.get("theme", "")
    return {
        "theme": theme if theme in THEMES else "",
        "host": request.get_host().rpartition(":")[0] or request.get_host(),
        "here": request.get_full_path() if request.method == "GET" else request.path,
        "other_languages": [(code, name) for code, name in settings.LANGUAGES if code != language],
    }
