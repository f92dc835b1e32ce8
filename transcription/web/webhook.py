"""The page of a user's webhook: its address, the secret that signs messages, and a log of them."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods, require_POST

from transcription import sentences, webhooks
from transcription.models import AnyUser, Delivery
from transcription.parameters import InvalidParameter
from transcription.queue import deliveries
from transcription.web.forms import INPUT
from transcription.web.views import fragment, page, person
from transcription.webhooks import Try

SHOWN = 50
# The page polls the log while a message is to be tried within this time.
SOON = timedelta(seconds=40)


class WebhookForm(forms.Form):
    """The webhook's address; empty to send no messages."""

    url = forms.CharField(
        required=False,
        widget=forms.URLInput(INPUT | {"placeholder": "https://example.org/hook", "autocomplete": "off"}),
    )

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        try:
            if url:
                webhooks.check(url, name=gettext("The address"))
        except InvalidParameter as error:
            raise forms.ValidationError(sentences.describe(error)) from error
        return url


@dataclass(frozen=True)
class Entry:
    """A message as a row of the log."""

    delivery: Delivery
    tries: list[Try]

    @property
    def last(self) -> Try | None:
        return self.tries[-1] if self.tries else None

    @property
    def earlier(self) -> list[Try]:
        """The tries before the last, the newest first."""
        return self.tries[-2::-1]

    @property
    def is_waiting(self) -> bool:
        return self.delivery.status == Delivery.Status.WAITING


@page
@require_http_methods(["GET", "HEAD", "POST"])
def mine(request: HttpRequest) -> HttpResponse:
    webhook = webhooks.of(person(request))
    form = WebhookForm(request.POST if request.method == "POST" else None, initial={"url": webhook.url})
    if form.is_valid():
        url = form.cleaned_data["url"]
        webhooks.point(person(request), url)
        saved = gettext("The address is saved. Send a test to see whether messages arrive.")
        messages.success(request, saved if url else gettext("No more messages are sent to an address of yours."))
        return redirect("webhook")
    context = {"webhook": webhook, "form": form, **_log_context(request.user)}
    response = render(request, "webhook.html", context, status=400 if form.is_bound else 200)
    response["Cache-Control"] = "no-store"
    return response


@login_required
@require_POST
def renew_secret(request: HttpRequest) -> HttpResponse:
    webhooks.renew_secret(person(request))
    messages.success(request, gettext("The secret is new. Give it to your receivers: they refuse messages until then."))
    return redirect("webhook")


@login_required
@require_POST
def send_test(request: HttpRequest) -> HttpResponse:
    if webhooks.send_test(person(request)) is None:
        messages.error(request, gettext("There is no address to send a test to. Set one first."))
    return redirect("webhook")


@fragment
def log(request: HttpRequest) -> HttpResponse:
    """The log; 204 if it looks the same as the one on the page."""
    context = _log_context(request.user)
    if context["fingerprint"] == request.GET.get("seen"):
        return HttpResponse(status=204)
    return render(request, "_deliveries.html", context)


@login_required
@require_POST
def replay(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Send a message again, without asking: its id tells a receiver that it has had it."""
    if not Delivery.objects.for_user(request.user).filter(pk=pk).exists():
        raise Http404
    if not deliveries.replay_delivery(pk):
        messages.error(request, gettext("The message is being sent now. See what comes of it first."))
    return redirect("webhook")


def _log_context(user: AnyUser) -> dict[str, Any]:
    rows = Delivery.objects.for_user(user).select_related("job").defer("data", "job__text", "job__searchable")
    entries = [Entry(row, webhooks.tries(row)) for row in rows[:SHOWN]]
    is_moving = any(entry.is_waiting and entry.delivery.next_attempt_at < timezone.now() + SOON for entry in entries)
    shown = [(e.delivery.pk, e.delivery.status, len(e.tries), e.delivery.attempts) for e in entries]
    fingerprint = hashlib.sha256(repr((shown, is_moving)).encode()).hexdigest()[:16]
    return {"entries": entries, "is_moving": is_moving, "fingerprint": fingerprint, "shown": SHOWN}
