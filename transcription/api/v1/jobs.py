"""Jobs over the native API."""

from collections.abc import Callable
from pathlib import PurePath
from typing import Any, cast
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser
from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.urls import reverse
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers, status
from rest_framework.exceptions import NotFound
from rest_framework.parsers import JSONParser, MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from transcription import errors, jobs, sentences
from transcription.api import idempotency, transcript
from transcription.api.file_names import clean_name
from transcription.api.responses import Json
from transcription.api.serializers import MOST_TAGS, JobChanges, JobInList, JobSerializer, NewJobRequest, always
from transcription.api.v1.base import (
    Conflict,
    MomentField,
    NativeViewSet,
    NewestFirst,
    PageQuestion,
    ParametersParser,
    form_of,
)
from transcription.models import Job
from transcription.parameters import BY_NAME, InvalidParameter
from transcription.text import exports, search
from transcription.weights import catalogue


class JobsQuestion(PageQuestion):
    """Which jobs to list, and in what order."""

    several = ("status", "tag")

    status = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        error_messages=always(gettext_lazy("`status` is a status of a job, or several with commas.")),
    )
    model = serializers.CharField(required=False)
    language = serializers.CharField(required=False)
    search = serializers.CharField(
        required=False, max_length=200, error_messages={"max_length": gettext_lazy("Look for less: 200 characters.")}
    )
    tag = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        max_length=MOST_TAGS,  # each is a join, and SQLite has at most 64 of them
        error_messages={"max_length": gettext_lazy("`tag` may be given at most 20 times, as often as a job has tags.")},
    )
    batch = serializers.UUIDField(
        required=False, error_messages=always(gettext_lazy("`batch` is the id of a batch, as its creation gave it."))
    )
    recording = serializers.UUIDField(
        required=False, error_messages=always(gettext_lazy("`recording` is the id of a recording, as its job has it."))
    )
    created_after = MomentField(required=False)
    created_before = MomentField(required=False)
    ordering = serializers.ChoiceField(
        ("created_at", "-created_at", "name", "-name"),
        required=False,
        error_messages=always(gettext_lazy("`ordering` is created_at or name, with a minus for the other way round.")),
    )

    def validate_status(self, value: list[str]) -> list[str]:
        statuses = [status.strip() for listed in value for status in listed.split(",") if status.strip()]
        if unknown := sorted({*statuses} - {*Job.Status.values}):
            message = _("There is no status `%(name)s`. Choose among: %(known)s.")
            raise serializers.ValidationError(message % {"name": unknown[0], "known": ", ".join(Job.Status.values)})
        return list(dict.fromkeys(statuses))

    def validate_model(self, value: str) -> str:
        try:
            return str(catalogue.canonical(value))
        except errors.UnknownModel:
            return value  # a model that was removed still has jobs

    def validate_language(self, value: str) -> str:
        try:
            return str(BY_NAME["language"].read([value]) or "")
        except InvalidParameter as error:
            raise serializers.ValidationError(sentences.describe(error)) from error


def condition_of(question: dict[str, Any]) -> Q:
    """The condition for the jobs that a JobsQuestion asks for, except their tags."""
    lookups = {name: name for name in ("model", "language", "batch", "recording")}
    lookups |= {"status": "status__in", "created_after": "created_at__gte", "created_before": "created_at__lt"}
    condition = Q(**{lookup: question[name] for name, lookup in lookups.items() if question.get(name)})
    return condition & search.matching(question.get("search", ""))


class JobPages(NewestFirst):
    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        ordering = request.query_params.get("ordering") or "-created_at"
        return (ordering, "-id" if ordering.startswith("-") else "id")


class JobViewSet(NativeViewSet[Job]):
    """A user's jobs."""

    pagination_class = JobPages
    parser_classes = (MultiPartParser, ParametersParser)
    serializer_class = JobSerializer

    def get_queryset(self) -> QuerySet[Job]:
        own = Job.objects.for_user(self.request.user).select_related("recording").prefetch_related("tags")
        return own.defer("recording__peaks", "searchable")

    def get_parsers(self) -> list[Any]:
        # A change may hold lists and nulls, which a form cannot.
        is_change = self.request is not None and self.request.method == "PATCH"
        return [JSONParser()] if is_change else super().get_parsers()

    def create(self, request: Request) -> Response:
        """Queue a job for a file, for an upload that came in chunks, or for one of the user's recordings.

        With an Idempotency-Key, a request that is repeated gets the job that it got the first time.
        """
        owner = cast(AbstractBaseUser, request.user)
        data = form_of(request)
        request_key = idempotency.as_sent(request.path_info, request.headers, data, request.query_params)
        job = None if request_key is None else jobs.earlier(owner, request_key)
        if job is None:
            form = NewJobRequest.of(data, request.query_params, owner=owner)
            form.is_valid(raise_exception=True)
            if (recording := form.existing_recording) is not None:
                job = jobs.again(recording, request_key=request_key, **form.job_parameters)
            else:
                job = jobs.submit(owner, form.upload, request_key=request_key, **form.job_parameters)
        headers = {"Location": reverse("api:job", args=(job.pk,)), "X-Job-Id": str(job.pk)}
        return Response(self.get_serializer(job).data, status=status.HTTP_202_ACCEPTED, headers=headers)

    def list(self, request: Request) -> Response:
        """A page of jobs, the newest first; without their texts, which may be books."""
        question = JobsQuestion.read(request)
        listed = self.get_queryset().filter(condition_of(question)).defer("text", "recording__peaks", "searchable")
        for tag in question.get("tag", []):
            listed = listed.filter(tags__name=tag)
        return self.get_paginated_response(JobInList(self.paginate_queryset(listed), many=True).data)

    def retrieve(self, request: Request, pk: UUID) -> Response:
        return Response(self.get_serializer(self.get_object()).data)

    def partial_update(self, request: Request, pk: UUID) -> Response:
        """Change a job's name, notes or tags."""
        job = self.get_object()
        changes = JobChanges(data=request.data)
        changes.is_valid(raise_exception=True)
        jobs.change(job, **changes.validated_data)
        return Response(self.get_serializer(self.get_object()).data)

    def destroy(self, request: Request, pk: UUID) -> Response:
        """Delete a job, its text, and its recording when no other job has it."""
        jobs.delete(self.get_object())
        return Response(status=status.HTTP_204_NO_CONTENT)

    def cancel(self, request: Request, pk: UUID) -> Response:
        """Stop a job; its text so far is kept."""
        return self._change_status(jobs.cancel, _("The job has ended: there is nothing to cancel."))

    def retry(self, request: Request, pk: UUID) -> Response:
        """Queue a failed or cancelled job again, as it was asked for."""
        return self._change_status(jobs.retry, _("Only a failed or cancelled job can be tried again."))

    def _change_status(self, change: Callable[[Job], bool], sentence_if_refused: str) -> Response:
        job = self.get_object()
        if not change(job):
            raise Conflict(sentence_if_refused)
        job.refresh_from_db()
        return Response(self.get_serializer(job).data)

    def peaks(self, request: Request, pk: UUID) -> Response:
        """How loud the recording is, 0-100, at equal distances over its duration, for a player to draw."""
        recording = self.get_object().recording
        if recording.peaks is None:
            raise Conflict(_("The recording has not been read yet. Ask again when its job is transcribing."))
        return Response({"duration": recording.duration, "peaks": recording.peaks})

    def transcript(self, request: Request, pk: UUID, extension: str) -> HttpResponse:
        """The text in a format; the part that exists if the job failed or was cancelled."""
        job = self.get_object()
        if not (job.is_ended or wants(request, "partial")):
            raise Conflict(
                _("The transcript is not finished yet. Wait until it is, or add ?partial=true for what there is.")
            )
        file, content_type = export(job, extension)
        answer = HttpResponse(file, content_type=content_type)
        answer["Content-Disposition"] = content_disposition_header(True, f"{stem(job)}.{extension}") or "attachment"
        return answer


def wants(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in serializers.BooleanField.TRUE_VALUES


def export(job: Job, extension: str) -> tuple[bytes, str]:
    """A job's transcript as a file, and its content type. Raises NotFound."""
    if extension == "json":
        answer = Json(transcript.body(job))
        return answer.content, answer["Content-Type"]
    format = exports.FORMATS.get(extension)
    if format is None:
        message = _("There is no format `%(name)s`. Choose one of: %(known)s.")
        raise NotFound(message % {"name": extension, "known": ", ".join((*exports.FORMATS, "json"))})
    highlight = job.transcription_options.highlight
    return format.render(transcript.segments(job), highlight, title=job.name), format.content_type


def stem(job: Job) -> str:
    """A job's name for its exported files, without the recording's extension."""
    return clean_name(job.name.removesuffix(PurePath(job.recording.original_name).suffix) or job.name)
