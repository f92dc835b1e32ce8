"""Workers, the queue and a user's statistics over the native API."""

from datetime import timedelta
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from transcription.api.serializers import JobInList
from transcription.api.v1.base import NativeViewSet
from transcription.models import Job, Recording, Worker
from transcription.queue import forecast

NEXT_AT_MOST = 200


class WorkerSerializer(serializers.ModelSerializer[Worker]):
    class Meta:
        model = Worker
        fields = (
            "id", "kind", "queue", "device", "device_name", "hostname", "engine", "model_loaded", "model_states",
            "compute_types", "threads", "memory_total_mb", "memory_used_mb", "utilization",
            "started_at", "heartbeat_at",
        )  # fmt: skip


class WorkerViewSet(NativeViewSet[Worker]):
    """The living workers: those whose last heartbeat is not older than a lease."""

    serializer_class = WorkerSerializer

    def get_queryset(self) -> QuerySet[Worker]:
        return Worker.alive()

    def list(self, request: Request) -> Response:
        return Response({"results": self.get_serializer(self.get_queryset(), many=True).data})


class QueueViewSet(NativeViewSet[Job]):
    """The unfinished jobs: how many there are of all users, and the caller's own in the order of their turns."""

    def get_queryset(self) -> QuerySet[Job]:
        own = Job.objects.for_user(self.request.user).filter(status__in=Job.UNFINISHED)
        light = own.select_related("recording").prefetch_related("tags").defer("text", "recording__peaks", "searchable")
        return light.order_by()  # sorted in Python: to sort them SQLite would read through all jobs, finished ones too

    def retrieve(self, request: Request) -> Response:
        counted = Job.objects.filter(status__in=Job.UNFINISHED).order_by().values("status").annotate(count=Count("pk"))
        forecasts = forecast.latest()
        last = len(forecasts) + 1
        own = sorted(
            self.get_queryset(),
            key=lambda job: (forecasts[job.pk].position if job.pk in forecasts else last, job.created_at, job.pk),
        )
        return Response(
            {
                "everybody": {row["status"]: row["count"] for row in counted},
                "own": len(own),
                "jobs": JobInList(own[:NEXT_AT_MOST], many=True).data,
            }
        )


class StatsViewSet(NativeViewSet[Job]):
    """A user's statistics: of all time, and of the last thirty days."""

    def get_queryset(self) -> QuerySet[Job]:
        return Job.objects.for_user(self.request.user).order_by()

    def retrieve(self, request: Request) -> Response:
        own = self.get_queryset()
        recent = own.filter(created_at__gt=timezone.now() - timedelta(days=30))
        recordings = (
            Recording.objects.for_user(request.user)
            .filter(removed_at=None)
            .aggregate(count=Count("pk"), bytes=Sum("bytes", default=0))
        )
        return Response({"all": _figures(own), "last_30_days": _figures(recent), "recordings": recordings})


def _figures(jobs: QuerySet[Job]) -> dict[str, Any]:
    done = Q(status=Job.Status.DONE)
    sums = jobs.aggregate(
        recorded_seconds=Sum("recording__duration", filter=done, default=0.0),
        processing_seconds=Sum("processing_seconds", filter=done, default=0.0),
    )
    return {
        "jobs": {row["status"]: row["count"] for row in jobs.values("status").annotate(count=Count("pk"))},
        "models": _most_frequent(jobs.filter(done), "model"),
        "languages": _most_frequent(jobs.filter(done).exclude(language=""), "language"),
        **{name: round(value, 1) for name, value in sums.items()},
    }


def _most_frequent(jobs: QuerySet[Job], column: str) -> dict[str, int]:
    """The twenty most frequent values of a column, with the number of jobs that have each."""
    counted = jobs.values(column).annotate(count=Count("pk")).order_by("-count", column)
    return {row[column]: row["count"] for row in counted[:20]}
