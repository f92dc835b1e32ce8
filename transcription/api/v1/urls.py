"""The native API, under /api/v1/."""

from django.urls import path

from transcription.api import media
from transcription.api.v1 import events
from transcription.api.v1.batches import BatchViewSet
from transcription.api.v1.jobs import JobViewSet
from transcription.api.v1.models import ModelViewSet
from transcription.api.v1.overview import QueueViewSet, StatsViewSet, WorkerViewSet
from transcription.api.v1.recordings import RecordingViewSet
from transcription.api.v1.segments import SegmentViewSet
from transcription.api.v1.shares import ShareViewSet
from transcription.api.v1.tokens import TokenViewSet
from transcription.api.v1.uploads import UploadViewSet
from transcription.api.v1.webhooks import DeliveryViewSet, WebhookViewSet

app_name = "api"

urlpatterns = [
    path("jobs/", JobViewSet.as_view({"get": "list", "post": "create"}), name="jobs"),
    path(
        "jobs/<uuid:pk>/",
        JobViewSet.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}),
        name="job",
    ),
    path("jobs/<uuid:pk>/cancel/", JobViewSet.as_view({"post": "cancel"}), name="cancel"),
    path("jobs/<uuid:pk>/retry/", JobViewSet.as_view({"post": "retry"}), name="retry"),
    path("jobs/<uuid:pk>/transcript.<slug:extension>", JobViewSet.as_view({"get": "transcript"}), name="transcript"),
    path("jobs/<uuid:pk>/events/", events.events, name="events"),
    path("jobs/<uuid:pk>/audio/", media.audio, name="audio"),
    path("jobs/<uuid:pk>/peaks/", JobViewSet.as_view({"get": "peaks"}), name="peaks"),
    path("jobs/<uuid:job_pk>/segments/", SegmentViewSet.as_view({"get": "list"}), name="segments"),
    path("jobs/<uuid:job_pk>/segments/<int:pk>/", SegmentViewSet.as_view({"patch": "partial_update"}), name="segment"),
    path("jobs/<uuid:job_pk>/share/", ShareViewSet.as_view({"get": "list", "post": "create"}), name="shares"),
    path("jobs/<uuid:job_pk>/share/<uuid:pk>/", ShareViewSet.as_view({"delete": "destroy"}), name="share"),
    path("batches/", BatchViewSet.as_view({"get": "list", "post": "create"}), name="batches"),
    path("batches/<uuid:pk>/", BatchViewSet.as_view({"get": "retrieve"}), name="batch"),
    path("batches/<uuid:pk>/archive.zip", BatchViewSet.as_view({"get": "archive"}), name="archive"),
    path("recordings/", RecordingViewSet.as_view({"get": "list"}), name="recordings"),
    path("recordings/<uuid:pk>/", RecordingViewSet.as_view({"get": "retrieve", "delete": "destroy"}), name="recording"),
    path("workers/", WorkerViewSet.as_view({"get": "list"}), name="workers"),
    path("queue/", QueueViewSet.as_view({"get": "retrieve"}), name="queue"),
    path("stats/", StatsViewSet.as_view({"get": "retrieve"}), name="stats"),
    path("uploads/", UploadViewSet.as_view({"options": "capabilities", "post": "create"}), name="uploads"),
    path(
        "uploads/<uuid:pk>/",
        UploadViewSet.as_view({"get": "retrieve", "head": "state", "patch": "add", "delete": "destroy"}),
        name="upload",
    ),
    path("webhook/", WebhookViewSet.as_view({"get": "retrieve", "put": "update", "delete": "destroy"}), name="webhook"),
    path("webhook/secret/", WebhookViewSet.as_view({"post": "secret"}), name="webhook-secret"),
    path("webhook/test/", WebhookViewSet.as_view({"post": "test"}), name="webhook-test"),
    path("deliveries/", DeliveryViewSet.as_view({"get": "list"}), name="deliveries"),
    path("deliveries/<uuid:pk>/", DeliveryViewSet.as_view({"get": "retrieve"}), name="delivery"),
    path("deliveries/<uuid:pk>/replay/", DeliveryViewSet.as_view({"post": "replay"}), name="delivery-replay"),
    path("models/", ModelViewSet.as_view({"get": "list"}), name="models"),
    path("models/<str:name>/", ModelViewSet.as_view({"delete": "destroy"}), name="model"),
    path("models/<str:name>/download/", ModelViewSet.as_view({"post": "download"}), name="model-download"),
    path("tokens/", TokenViewSet.as_view({"get": "list", "post": "create"}), name="tokens"),
    path("tokens/<int:pk>/", TokenViewSet.as_view({"delete": "destroy"}), name="token"),
]
