"""The native API, under /api/v1/."""

from django.urls import path

from transcription.api import events, media
from transcription.api.shelf import ModelViewSet
from transcription.api.viewsets import JobViewSet

app_name = "api"

urlpatterns = [
    path("jobs/", JobViewSet.as_view({"get": "list", "post": "create"}), name="jobs"),
    path("jobs/<uuid:pk>/", JobViewSet.as_view({"get": "retrieve", "delete": "destroy"}), name="job"),
    path("jobs/<uuid:pk>/cancel/", JobViewSet.as_view({"post": "cancel"}), name="cancel"),
    path("jobs/<uuid:pk>/retry/", JobViewSet.as_view({"post": "retry"}), name="retry"),
    path("jobs/<uuid:pk>/transcript.<slug:extension>", JobViewSet.as_view({"get": "transcript"}), name="transcript"),
    path("jobs/<uuid:pk>/events/", events.events, name="events"),
    path("jobs/<uuid:pk>/audio/", media.audio, name="audio"),
    path("models/", ModelViewSet.as_view({"get": "list"}), name="models"),
    path("models/<str:name>/", ModelViewSet.as_view({"delete": "destroy"}), name="model"),
    path("models/<str:name>/download/", ModelViewSet.as_view({"post": "download"}), name="model-download"),
]
