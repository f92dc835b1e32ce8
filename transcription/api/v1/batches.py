"""Batches over the native API: many files sent at once, followed together, and downloaded as one archive of texts."""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Iterable
from typing import IO, Any, cast
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Avg, Count, QuerySet
from django.http import HttpResponseBase, StreamingHttpResponse
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers, status
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import disk, jobs
from transcription.api.file_names import clean_name
from transcription.api.serializers import ParametersRequest, TagsField, always, without_controls
from transcription.api.v1.base import (
    Conflict,
    NativeViewSet,
    NewestFirst,
    PageQuestion,
    ParametersParser,
    Question,
    form_of,
)
from transcription.api.v1.jobs import export, stem
from transcription.models import Batch, Job
from transcription.text import exports

BLOCK = 256 * 1024
HELD_IN_MEMORY = 8 * 1024**2
DEFAULT_FORMATS = "txt,srt"


class BatchRequest(ParametersRequest):
    """The parameters of each of a batch's jobs, and the batch's name. The files are checked by their jobs."""

    tags = TagsField(required=False)
    several = frozenset({"tags"})
    name = serializers.CharField(
        required=False, max_length=255, error_messages=always(gettext_lazy("`name` has at most 255 characters."))
    )


class ArchiveQuestion(Question):
    """What an archive is to hold."""

    partial = serializers.BooleanField(  # type: ignore[assignment]  # a field, which DRF takes out of the class
        default=False, error_messages=always(gettext_lazy("`partial` is true or false."))
    )
    formats = serializers.CharField(default=DEFAULT_FORMATS)

    def validate_formats(self, value: str) -> list[str]:
        formats = list(dict.fromkeys(format.strip().lower() for format in value.split(",") if format.strip()))
        known = (*exports.FORMATS, "json")
        if not formats or any(format not in known for format in formats):
            message = _("`formats` are some of these, with commas: %(known)s.")
            raise serializers.ValidationError(message % {"known": ", ".join(known)})
        return formats


class BatchSerializer(serializers.ModelSerializer[Batch]):
    """A batch, and how far its jobs are together."""

    jobs = serializers.SerializerMethodField()
    progress = serializers.SerializerMethodField()
    is_ended = serializers.SerializerMethodField()
    links = serializers.SerializerMethodField()

    class Meta:
        model = Batch
        fields = ("id", "name", "created_at", "jobs", "progress", "is_ended", "links")

    def get_jobs(self, batch: Batch) -> dict[str, int]:
        """How many jobs there are in each status, and in total."""
        counted = {row["status"]: row["count"] for row in self._counted(batch)}
        return {"total": sum(counted.values()), **{str(name): counted.get(name, 0) for name in Job.Status}}

    def get_progress(self, batch: Batch) -> float:
        """0-1: the mean of the jobs' progress; a job that has ended counts as 1."""
        rows = self._counted(batch)
        total = sum(row["count"] for row in rows)
        done = sum(row["count"] * (row["progress"] if row["status"] in Job.UNFINISHED else 1) for row in rows)
        return round(done / total, 3) if total else 0.0

    def get_is_ended(self, batch: Batch) -> bool:
        return not any(row["status"] in Job.UNFINISHED for row in self._counted(batch))

    def get_links(self, batch: Batch) -> dict[str, str]:
        return {
            "self": reverse("api:batch", args=(batch.pk,)),
            "jobs": f"{reverse('api:jobs')}?batch={batch.pk}",
            "archive": reverse("api:archive", args=(batch.pk,)),
        }

    def _counted(self, batch: Batch) -> list[dict[str, Any]]:
        """The jobs' numbers by status, with one query a batch."""
        counts = self.context.setdefault("counts", {})
        if batch.pk not in counts:
            rows = batch.jobs.order_by().values("status").annotate(count=Count("pk"), progress=Avg("progress"))
            counts[batch.pk] = list(rows)
        return cast("list[dict[str, Any]]", counts[batch.pk])


class BatchViewSet(NativeViewSet[Batch]):
    """A user's batches."""

    missing = gettext_lazy("There is no such batch.")
    pagination_class = NewestFirst
    parser_classes = (MultiPartParser, ParametersParser)
    serializer_class = BatchSerializer

    def get_queryset(self) -> QuerySet[Batch]:
        return Batch.objects.for_user(self.request.user)

    def create(self, request: Request) -> Response:
        """Queue a job for each file, all with the same parameters; without files, a batch for jobs to come.

        All of the files are taken, or none.
        """
        owner = cast(AbstractBaseUser, request.user)
        form = MultiValueDict(dict(form_of(request).lists()))
        files = [file for name in ("file", "audio_file") for file in form.pop(name, [])]
        if not all(isinstance(file, UploadedFile) for file in files):
            raise serializers.ValidationError({"file": [_("`file` is a recording, sent as a form field.")]})
        batch_form = BatchRequest.of(form, request.query_params, owner=owner)
        batch_form.is_valid(raise_exception=True)
        name = " ".join(without_controls(batch_form.validated_data.get("name", "")).split())
        batch = Batch.objects.create(owner_id=owner.pk, name=name)
        try:
            job_parameters = batch_form.job_parameters
            job_parameters["batch"] = batch
            for file in files:
                jobs.submit(owner, file, **job_parameters)
        except BaseException:
            for job in batch.jobs.select_related("recording").defer("recording__peaks"):
                jobs.delete(job)
            batch.delete()
            raise
        headers = {"Location": reverse("api:batch", args=(batch.pk,))}
        code = status.HTTP_202_ACCEPTED if files else status.HTTP_201_CREATED
        return Response(self.get_serializer(batch).data, status=code, headers=headers)

    def list(self, request: Request) -> Response:
        PageQuestion.read(request)
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(self.get_serializer(page, many=True).data)

    def retrieve(self, request: Request, pk: UUID) -> Response:
        return Response(self.get_serializer(self.get_object()).data)

    def archive(self, request: Request, pk: UUID) -> HttpResponseBase:
        """A zip of the batch's transcripts in some formats, a file a job and format."""
        question = ArchiveQuestion.read(request)
        batch = self.get_object()
        batch_jobs = (
            batch.jobs.select_related("recording").defer("recording__peaks", "searchable").order_by("created_at", "pk")
        )
        if not question["partial"] and batch_jobs.filter(status__in=Job.UNFINISHED).exists():
            raise Conflict(_("Some jobs still run. Wait until they end, or add ?partial=true for what there is."))
        file = disk.temporary_file(in_memory=HELD_IN_MEMORY)  # closed when it is sent
        try:
            with disk.full_disk_is_a_problem():
                _pack(file, batch_jobs.iterator(chunk_size=50), question["formats"])
        except BaseException:
            file.close()
            raise
        length = file.tell()
        answer = StreamingHttpResponse(_Blocks(file), content_type="application/zip")
        answer["Content-Length"] = str(length)
        name = clean_name(f"{batch.name or 'transcripts'}.zip")
        answer["Content-Disposition"] = content_disposition_header(True, name) or "attachment"
        return answer


def _pack(file: IO[bytes], batch_jobs: Iterable[Job], formats: list[str]) -> None:
    """Write the transcripts of jobs into an archive, and a file that says why some have none. Raises DiskFull."""
    taken: set[str] = set()
    failed: list[str] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for job in batch_jobs:
            disk.check(settings.TEMPORARY_DIR)
            name = _free_name(stem(job), taken)
            if message := job.error_message or job.unknown_status_message:
                failed.append(f"{job.name}: {message}\n")
            for format in formats:
                archive.writestr(f"{name}.{format}", export(job, format)[0])
        if failed:
            archive.writestr("errors.txt", "".join(failed))


def _free_name(name: str, taken: set[str]) -> str:
    """A name that no other file in the archive has, also where a file system ignores case."""
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name} ({number})"
    taken.add(free.casefold())
    return free


class _Blocks:
    """A file's bytes; it is closed together with the response, also if nobody reads it.

    An async iterator: Django would collect a synchronous one into memory first.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.close = file.close

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.file.seek(0)
        while block := await asyncio.to_thread(self.file.read, BLOCK):
            yield block
