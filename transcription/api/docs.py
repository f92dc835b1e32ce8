"""The API's description, for everybody: /api/schema/ for programs, /api/docs/ for people."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularAPIView

from transcription.api import schema

schema.describe()


@require_safe
def docs(request: HttpRequest) -> HttpResponse:
    """A page that shows the description and tries calls out, by the dashboard's session or a key."""
    return render(request, "api_docs.html", {"openai": request.build_absolute_uri("/v1")})


urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(permission_classes=[], authentication_classes=[]), name="schema"),
    path("docs/", docs, name="api-docs"),
]
