"""The API's description, for everybody: /api/schema/ for programs, /api/docs/ for people."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView

from transcription.api import own_address
from transcription.api.errors import wrong_method
from transcription.api.v1 import schema

schema.describe()

View = Callable[..., HttpResponseBase]


def only_read(view: View) -> View:
    """A view for GET and HEAD; any other method gets the API's refusal."""

    @csrf_exempt  # it changes nothing, and a POST must get 405, not an error about a cookie
    @wraps(view)
    def answer(request: HttpRequest, **named: Any) -> HttpResponseBase:
        if request.method in ("GET", "HEAD"):
            return view(request, **named)
        return wrong_method(request.path_info, "GET, HEAD")

    return answer


@only_read
def docs(request: HttpRequest) -> HttpResponse:
    """A page that shows the description and tries calls out, by the dashboard's session or a key."""
    return render(request, "api_docs.html", {"openai": own_address.absolute(request, f"{reverse('dashboard')}v1")})


described = SpectacularAPIView.as_view(permission_classes=[], authentication_classes=[])


@only_read
def schema_file(request: HttpRequest) -> HttpResponseBase:
    """The description; there is one version of it, in the language that the request's headers ask for."""
    request.GET = QueryDict()  # the view would put any `version` into a header, and look for a catalogue of any `lang`
    answer: HttpResponseBase = described(request)
    return answer


urlpatterns = [
    path("schema/", schema_file, name="schema"),
    path("docs/", docs, name="api-docs"),
]
