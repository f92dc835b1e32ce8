"""The admin's pages. Of a job only its name and notes can be edited."""

import uuid
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from transcription import errors, jobs, users, webhooks
from transcription.api import media, transcript
from transcription.models import ApiToken, Delivery, Download, Event, Job, Recording, Worker
from transcription.queue import deliveries
from transcription.templatetags.stenograf import clock, language_name, size
from transcription.text import exports


class ReadOnly:
    """Forbids adding, changing and deleting."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class EventInline(ReadOnly, admin.TabularInline):  # type: ignore[type-arg]  # a type only to the checker
    model = Event
    fields = ("at", "kind", "message")
    extra = 0
    ordering = ("id",)


@admin.register(Job)
class JobAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "name_shown", "owner", "status", "model", "language_shown", "duration_shown", "processing_shown", "created_at",
    )  # fmt: skip
    list_filter = (
        "status", "priority", "model", "language", "engine", ("owner", admin.RelatedOnlyFieldListFilter), "created_at",
    )  # fmt: skip
    search_fields = ("name", "recording__original_name", "text", "owner__username")
    date_hierarchy = "created_at"
    list_select_related = ("owner", "recording")
    list_per_page = 50
    show_full_result_count = False
    actions = ("cancel", "retry")
    inlines = (EventInline,)
    fieldsets: ClassVar[Any] = (
        (None, {"fields": ("name", "notes", "owner", "status", "priority", "error_shown", "links_shown")}),
        (
            _("Recording"),
            {"fields": ("recording", "duration_shown", "track", "language_shown", "language_probability")},
        ),
        (_("How it was done"), {"fields": ("model", "options", "engine", "device", "versions", "weights_sha256")}),
        (_("When"), {"fields": ("created_at", "preparing_at", "transcribing_at", "finishing_at", "finished_at")}),
        (_("Result"), {"fields": ("processing_shown", "progress", "attempts", "warnings", "text")}),
    )
    CHANGEABLE: ClassVar[tuple[str, ...]] = ("name", "notes")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return super().get_queryset(request).defer("searchable", "recording__peaks")

    def get_readonly_fields(self, request: HttpRequest, obj: Job | None = None) -> list[str]:
        shown = [name for _title, options in self.fieldsets for name in options["fields"]]
        return [name for name in shown if name not in self.CHANGEABLE]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Job, form: Any, change: bool) -> None:
        # A worker may be writing the other columns.
        obj.save(update_fields=self.CHANGEABLE)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        # Django would list every row that is deleted with a job, which may be thousands.
        return [str(job) for job in objs], {Job._meta.verbose_name_plural: len(objs)}, set(), []

    def delete_model(self, request: HttpRequest, obj: Job) -> None:
        jobs.delete(obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        for job in queryset.select_related("recording"):
            jobs.delete(job)

    @admin.action(description=_("Cancel the selected jobs"), permissions=["change"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        changed, unchanged, _refused = _apply(jobs.cancel, queryset)
        sentence = ngettext("%(count)s job is cancelled.", "%(count)s jobs are cancelled.", changed)
        self._report(request, sentence, changed)
        sentence = ngettext(
            "%(count)s job had ended already: there was nothing to cancel.",
            "%(count)s jobs had ended already: there was nothing to cancel.",
            unchanged,
        )
        self._report(request, sentence, unchanged, messages.WARNING)

    @admin.action(description=_("Try the selected jobs again"), permissions=["change"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        changed, unchanged, refused = _apply(jobs.retry, queryset)
        sentence = ngettext("%(count)s job is queued again.", "%(count)s jobs are queued again.", changed)
        self._report(request, sentence, changed)
        sentence = ngettext(
            "%(count)s job stays as it is: only a failed or cancelled one whose sound is here can be tried again.",
            "%(count)s jobs stay as they are: only failed or cancelled ones whose sound is here can be tried again.",
            unchanged,
        )
        self._report(request, sentence, unchanged, messages.WARNING)
        sentence = ngettext(
            "%(count)s job stays as it is: its owner has as many unfinished jobs as may be here.",
            "%(count)s jobs stay as they are: their owners have as many unfinished jobs as may be here.",
            refused,
        )
        self._report(request, sentence, refused, messages.WARNING)

    def _report(self, request: HttpRequest, sentence: str, count: int, level: int = messages.SUCCESS) -> None:
        if count:
            self.message_user(request, sentence % {"count": count}, level)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<uuid:job_id>/transcript.txt", view(self.text), name="transcription_job_text"),
            path("<uuid:job_id>/audio/", view(self.audio), name="transcription_job_audio"),
            *super().get_urls(),
        ]

    def text(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
        job = self._get_job(request, job_id)
        text = exports.to_txt(transcript.segments(job))
        return HttpResponse(text, content_type=exports.FORMATS["txt"].content_type)

    def audio(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
        return media.respond(request, self._get_job(request, job_id).recording)

    def _get_job(self, request: HttpRequest, job_id: uuid.UUID) -> Job:
        job = get_object_or_404(self.get_queryset(request).select_related("recording"), pk=job_id)
        if not self.has_view_permission(request, job):
            raise PermissionDenied
        return job

    @admin.display(description=_("name"), ordering="name")
    def name_shown(self, job: Job) -> str:
        # A file name of 255 letters without a space would push the other columns off the screen.
        return Truncator(job.name).chars(60)

    @admin.display(description=_("duration"), ordering="recording__duration")
    def duration_shown(self, job: Job) -> str:
        return clock(job.recording.duration)

    @admin.display(description=_("processing"), ordering="processing_seconds")
    def processing_shown(self, job: Job) -> str:
        """`6:08 (15×)`: the time it took, and how many times faster than real time that is."""
        if not job.processing_seconds:
            return ""
        speed = f" ({job.recording.duration / job.processing_seconds:.0f}×)" if job.recording.duration else ""
        return clock(max(1, job.processing_seconds)) + speed

    @admin.display(description=_("language"), ordering="language")
    def language_shown(self, job: Job) -> str:
        return language_name(job.language)

    @admin.display(description=_("what went wrong"))
    def error_shown(self, job: Job) -> str:
        return f"{job.error_message} ({job.error_code})" if job.error_code else ""

    @admin.display(description=_("open"))
    def links_shown(self, job: Job) -> SafeString:
        return format_html(
            '<a href="{}">{}</a> · <a href="{}">{}</a>',
            reverse("admin:transcription_job_text", args=(job.pk,)),
            _("text"),
            reverse("admin:transcription_job_audio", args=(job.pk,)),
            _("sound"),
        )


def _apply(change: Callable[[Job], bool], selected: QuerySet[Job]) -> tuple[int, int, int]:
    """Change jobs; return how many were changed, how many were not, and how many the queue has no room for."""
    changed = unchanged = refused = 0
    for job in selected.select_related("recording", "owner").defer("text", "searchable", "recording__peaks"):
        try:
            if change(job):
                changed += 1
            else:
                unchanged += 1
        except errors.RecordingMissing:
            unchanged += 1
        except errors.QueueFull:
            refused += 1
    return changed, unchanged, refused


@admin.register(Recording)
class RecordingAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("original_name", "owner", "duration_shown", "size_shown", "codec", "created_at")
    list_filter = ("container", "codec", ("owner", admin.RelatedOnlyFieldListFilter), "created_at")
    search_fields = ("original_name", "sha256", "owner__username")
    date_hierarchy = "created_at"
    list_select_related = ("owner",)
    exclude = ("peaks",)
    show_full_result_count = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Recording]:
        return super().get_queryset(request).defer("peaks")

    @admin.display(description=_("duration"), ordering="duration")
    def duration_shown(self, recording: Recording) -> str:
        return clock(recording.duration)

    @admin.display(description=_("size"), ordering="bytes")
    def size_shown(self, recording: Recording) -> str:
        return size(recording.bytes)


@admin.register(Worker)
class WorkerAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = (
        "queue", "kind", "hostname", "pid", "device", "engine", "model_loaded", "started_at", "heartbeat_at",
    )  # fmt: skip
    list_filter = ("kind", "hostname", "engine")


@admin.register(Event)
class EventAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("at", "kind", "job", "message")
    list_filter = ("kind", "at")
    search_fields = ("job__name", "message")
    list_select_related = ("job",)
    show_full_result_count = False


@admin.register(Download)
class DownloadAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("model", "progress", "is_asked_for", "attempts", "error_shown", "worker", "created_at")
    fields = ("model", "progress", "is_asked_for", "attempts", "error_shown", "worker", "created_at")
    list_select_related = ("worker",)

    @admin.display(description=_("what went wrong"))
    def error_shown(self, download: Download) -> str:
        return download.error_message


@admin.register(Delivery)
class DeliveryAdmin(ReadOnly, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("created_at", "type", "owner", "job", "host_shown", "status", "attempts", "last_shown")
    list_filter = ("status", "type", ("owner", admin.RelatedOnlyFieldListFilter), "created_at")
    search_fields = ("id", "job__name", "owner__username", "url")
    list_select_related = ("owner", "job")
    show_full_result_count = False
    actions = ("replay",)
    fields = ("id", "type", "owner", "job", "url", "status", "created_at", "ended_at", "data", "tries_shown")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        return super().get_queryset(request).defer("job__text", "job__searchable")

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("transcription.change_delivery")

    @admin.action(description=_("Send the selected messages again"), permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        sent = sum(deliveries.replay_delivery(pk) for pk in queryset.values_list("pk", flat=True))
        sentence = ngettext("%(count)s message is sent again.", "%(count)s messages are sent again.", sent)
        self.message_user(request, sentence % {"count": sent})

    @admin.display(description=_("host"))
    def host_shown(self, delivery: Delivery) -> str:
        return urlsplit(delivery.url).hostname or ""

    @admin.display(description=_("last try"))
    def last_shown(self, delivery: Delivery) -> str:
        tries = webhooks.tries(delivery)
        return tries[-1].error or str(tries[-1].status_code) if tries else ""

    @admin.display(description=_("tries"))
    def tries_shown(self, delivery: Delivery) -> SafeString:
        lines = ((one.at, one.error or one.status_code) for one in webhooks.tries(delivery))
        return format_html_join("", "<div>{} {}</div>", lines)


admin.site.unregister(User)


class UserForm(UserChangeForm):  # type: ignore[type-arg]  # a type only to the checker
    """Django's form, but the last administrator stays one."""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not all(cleaned.get(name, True) for name in ("is_superuser", "is_staff", "is_active")):
            try:
                with transaction.atomic():
                    users.check_somebody_stays(User.objects.filter(pk=self.instance.pk))
            except users.LastAdministrator as problem:
                raise ValidationError(str(problem)) from problem
        return cleaned


@admin.register(User)
class UserWithFilesAdmin(UserAdmin):  # type: ignore[type-arg]  # a type only to the checker
    """Django's own, but deleting a user also deletes their files."""

    form = UserForm

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        # Django would list every row that is deleted with a user, which may be thousands: they are counted.
        leaving = User.objects.filter(pk__in=[user.pk for user in objs])
        with transaction.atomic():
            users.check_somebody_stays(leaving)
        owned = users.belongings(leaving)
        listed = [
            ngettext("%(count)s recording with its file", "%(count)s recordings with their files", owned["recordings"])
            % {"count": owned["recordings"]}
            + f" ({size(owned['bytes'])})",
            ngettext("%(count)s job with its text", "%(count)s jobs with their texts", owned["jobs"])
            % {"count": owned["jobs"]},
            _("unfinished ones among them, which are stopped: %(count)s") % {"count": owned["unfinished"]},
            _("uploads that no job has yet: %(count)s") % {"count": owned["uploads"]},
            _("links to transcripts: %(count)s") % {"count": owned["shares"]},
            _("keys to the API: %(count)s") % {"count": owned["keys"]},
            _("messages to webhooks: %(count)s") % {"count": owned["deliveries"]},
        ]
        counts = {User._meta.verbose_name_plural: len(objs), Recording._meta.verbose_name_plural: owned["recordings"]}
        counts[Job._meta.verbose_name_plural] = owned["jobs"]
        return [*(str(user) for user in objs), listed], counts, set(), []

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except users.LastAdministrator as problem:
            self.message_user(request, str(problem), messages.ERROR)
            return redirect("admin:auth_user_changelist")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        try:
            return super().changelist_view(request, extra_context)
        except users.LastAdministrator as problem:
            self.message_user(request, str(problem), messages.ERROR)
            return redirect("admin:auth_user_changelist")

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        users.delete(User.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        users.delete(User.objects.filter(pk__in=list(queryset.values_list("pk", flat=True))))


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Deleting a key revokes it. A key in KEYS_FILE cannot be deleted here: the file would bring it back."""

    list_display = ("__str__", "name", "user", "scope", "created_at", "last_used_at", "expires_at")
    list_filter = ("scope", ("user", admin.RelatedOnlyFieldListFilter))
    search_fields = ("name", "prefix", "user__username")
    list_select_related = ("user",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        if obj is not None and obj.is_from_file:
            return False
        return super().has_delete_permission(request, obj)
