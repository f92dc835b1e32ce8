"""The pages of jobs. A user sees only their own jobs, staff too."""

import uuid
import zoneinfo
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.decorators import login_required
from django.contrib.auth.views import LoginView, LogoutView
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from transcription import errors, jobs, model_library, sentences
from transcription.jobs import StoredFile
from transcription.models import Job
from transcription.text import exports
from transcription.web import model_offer, rows, sample_recording, transcript
from transcription.web.context import THEMES
from transcription.web.forms import AgainForm, IntakeForm, SignInForm, defaults
from transcription.weights import catalogue
from transcription.whisper.options import TranscriptionOptions

View = Callable[..., HttpResponse]
AnyView = TypeVar("AnyView", bound=Callable[..., HttpResponseBase])
FORMATS = (*exports.FORMATS, "json")
SPEEDS = (0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 3)
A_YEAR = 60 * 60 * 24 * 365


def in_local_time(view: AnyView) -> AnyView:
    """Show times in the zone that the browser named (page.js), or the server's."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            zone = zoneinfo.ZoneInfo(request.COOKIES.get("timezone", ""))
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):  # empty, a path, a folder, unknown
            zone = zoneinfo.ZoneInfo(settings.TIME_ZONE)
        with timezone.override(zone):
            return view(request, *args, **kwargs)

    return cast(AnyView, wrapped)


def page(view: View) -> View:
    """A page for a signed-in user."""
    return login_required(in_local_time(view))


def fragment(view: View) -> View:
    """A fragment for htmx: it answers 401 where a redirect would put the login page into the page."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if not request.user.is_authenticated:
            return HttpResponse(status=401)
        return view(request, *args, **kwargs)

    return require_GET(in_local_time(wrapped))


def _row_or_404(request: HttpRequest, job_id: uuid.UUID) -> rows.Row:
    try:
        return rows.one(request.user, job_id)
    except Job.DoesNotExist:
        raise Http404 from None


class SignIn(LoginView):
    template_name = "login.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: Any) -> HttpResponse:
        response = super().form_valid(form)
        if not form.cleaned_data["remember"]:
            self.request.session.set_expiry(0)
        return response


sign_out = LogoutView.as_view()


@page
@require_http_methods(["GET", "HEAD", "POST"])
def dashboard(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        return _submit_files(request)
    return _dashboard(request, IntakeForm(initial=defaults()))


def _dashboard(request: HttpRequest, form: IntakeForm, status: int = 200) -> HttpResponse:
    before = request.GET.get("before", "")
    groups, older = rows.ended(request.user, before)
    context = {
        "form": form,
        "now": [] if before else rows.unfinished(request.user),
        "groups": groups,
        "older": older,
        "is_first_page": not before,
        "is_attended": rows.is_attended(),
        "has_models": bool(catalogue.local_models()),
        "offer": model_offer.find_offer(request),
        "max_bytes": settings.MAX_UPLOAD_BYTES,
        "models_dir": settings.MODELS_DIR,
        "any_job": uuid.UUID(int=0),
    }
    return render(request, "dashboard.html", context, status=status)


def _submit_files(request: HttpRequest) -> HttpResponse:
    """Queue a job for each file of the form; browsers without scripts send it."""
    form = IntakeForm(request.POST)
    files = cast(list[StoredFile], request.FILES.getlist("file"))  # HashingUploadHandler has stored them
    if not files:
        form.add_error(None, gettext("Choose at least one file."))
    if not form.is_valid():
        return _dashboard(request, form, status=400)
    for file in files:
        _submit(request, file, form.cleaned_data["model"], form.options(), improve=form.improve)
    return redirect("dashboard")


@login_required
@require_POST
def sample(request: HttpRequest) -> HttpResponse:
    with sample_recording.upload() as upload:
        job = _submit(request, upload, None, TranscriptionOptions(word_timestamps=True), improve=False)
    return redirect("dashboard") if job is None else redirect("job", job_id=job.pk)


@fragment
def offer(request: HttpRequest) -> HttpResponse:
    """The offer of a better model; 204 if it looks the same as the one on the page."""
    offered = model_offer.find_offer(request)
    if offered is not None and offered.fingerprint == request.GET.get("seen"):
        return HttpResponse(status=204)
    return render(request, "_model_offer.html", {"offer": offered, "is_update": True})


@login_required
@require_POST
def answer_offer(request: HttpRequest) -> HttpResponse:
    """Download the better model, stop the download, or stop offering it in this browser."""
    if not getattr(request.user, "is_staff", False):
        raise PermissionDenied
    response, answer = redirect("dashboard"), request.POST.get("answer", "")
    try:
        if answer == "fetch":
            model_library.request_download(model_offer.BEST)
        elif answer in ("stop", "later"):
            model_library.cancel_download(model_offer.BEST)
    except errors.Problem as problem:
        messages.error(request, sentences.describe(problem))
    if answer == "later":
        response.set_cookie(model_offer.LATER, "later", max_age=A_YEAR, samesite="Lax", secure=request.is_secure())
    return response


def _submit(
    request: HttpRequest, upload: StoredFile, model: str | None, options: TranscriptionOptions, *, improve: bool
) -> Job | None:
    """Queue a job; return None if that failed, which a message on the next page says."""
    try:
        model = model or catalogue.default()
        return jobs.submit(person(request), upload, model=model, options=options, improve=improve)
    except errors.Problem as problem:
        messages.error(request, f"{upload.name}: {sentences.describe(problem)}")
        return None


def person(request: HttpRequest) -> AbstractBaseUser:
    """The signed-in user of a view with `login_required`."""
    return cast(AbstractBaseUser, request.user)


@fragment
def row(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """A row of the dashboard; 204 if it looks the same as the one on the page."""
    row = _row_or_404(request, job_id)
    if row.fingerprint == request.GET.get("seen"):
        return HttpResponse(status=204)
    return render(request, "_job_row.html", {"row": row, "is_update": "seen" in request.GET})


@page
@require_GET
def job(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    row = _row_or_404(request, job_id)
    return render(request, "job.html", _context(row) | {"news": transcript.since(row.job)})


@fragment
def text(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """What a job's page lacks of the text and the other facts; 204 if nothing."""
    row = _row_or_404(request, job_id)
    has_new_status = request.GET.get("status") != row.job.status
    # A language model may have changed the text that the page has, and finishing which language is the job's.
    may_differ = row.job.is_to_be_improved or row.job.transcription_options.multilingual
    is_changed = has_new_status and row.job.is_ended and may_differ
    news = transcript.since(row.job, "" if is_changed else request.GET.get("have", ""))
    if not news and row.fingerprint == request.GET.get("seen"):
        return HttpResponse(status=204)
    return render(request, "_job_text.html", _context(row) | {"news": news, "has_turned": has_new_status})


def _context(row: rows.Row) -> dict[str, Any]:
    return {
        "row": row,
        "job": row.job,
        "others": rows.others(row.job),
        "formats": FORMATS,
        "audio": reverse("api:audio", args=(row.job.pk,)),
        "speeds": speeds(),
    }


def speeds() -> list[tuple[str, float]]:
    """The player's speeds, each as the script reads it and as a number to show."""
    return [(f"{speed:g}", speed) for speed in SPEEDS]


@login_required
@require_POST
def cancel(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """Cancel without asking: the text so far is kept and the job can be retried."""
    jobs.cancel(_row_or_404(request, job_id).job)
    return _redirect_back(request, job_id)


@login_required
@require_POST
def retry(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    try:
        jobs.retry(_row_or_404(request, job_id).job)
    except errors.Problem as problem:
        messages.error(request, sentences.describe(problem))
    return _redirect_back(request, job_id)


@page
@require_http_methods(["GET", "HEAD", "POST"])
def again(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """Ask for the options, then transcribe the recording again; the new transcript stands beside this one."""
    before = _row_or_404(request, job_id).job
    form = AgainForm(before, request.POST if request.method == "POST" else None)
    if not form.is_valid():
        return render(request, "again.html", {"job": before, "form": form}, status=400 if form.is_bound else 200)
    try:
        job = jobs.again(
            before.recording,
            model=form.cleaned_data["model"],
            options=form.options(),
            name=before.name,
            priority=before.known_priority,
            engine=before.asked_engine,
            device=before.asked_device,
            improve=form.improve,
        )
    except errors.Problem as problem:
        messages.error(request, sentences.describe(problem))
        return redirect("job", job_id=job_id)
    return redirect("job", job_id=job.pk)


def _redirect_back(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """Redirect to the page with the form: the job's or the dashboard."""
    return redirect("job", job_id=job_id) if "from_job" in request.POST else redirect("dashboard")


@page
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """Ask for confirmation, then delete for good."""
    row = _row_or_404(request, job_id)
    if request.method != "POST":
        context = {"row": row, "job": row.job, "others": rows.others(row.job).count()}
        return render(request, "confirm_delete.html", context)
    jobs.delete(row.job)
    messages.success(request, gettext("%(name)s is deleted.") % {"name": row.job.name})
    return redirect("dashboard")


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remember light or dark; anything else means the system's."""
    target = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(target, {request.get_host()}, require_https=request.is_secure())
    response = redirect(target if is_ours else "dashboard")
    chosen = request.POST.get("theme", "")
    if chosen in THEMES:
        response.set_cookie("theme", chosen, max_age=A_YEAR, samesite="Lax", secure=request.is_secure())
    else:
        response.delete_cookie("theme", samesite="Lax")
    return response
