"""The page of a person's webhook: where messages go, the secret that signs them, and what became of each."""

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

from transcription import webhooks
from transcription.models import AnyUser, Delivery
from transcription.parameters import InvalidParameter
from transcription.queue import deliveries
from transcription.web.forms import INPUT
from transcription.web.views import fragment, page, person
from transcription.webhooks import Try

SHOWN = 50
# A message that is tried so soon is worth a look every other second.
SOON = timedelta(seconds=40)


class WebhookForm(forms.Form):
    """Where messages go; nowhere when it is empty."""

    url = forms.CharField(
        required=False,
        widget=forms.URLInput(INPUT | {"placeholder": "https://example.org/hook", "autocomplete": "off"}),
    )

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        try:
            if url:
                webhooks.check(url, name=gettext("The address"))
        except InvalidParameter as refused:
            raise forms.ValidationError(gettext(refused.sentence) % refused.values) from refused
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
        webhooks.point(person(request), form.cleaned_data["url"])
        is_set = bool(form.cleaned_data["url"])
        said = gettext("The address is saved. Send a test to see whether messages arrive.")
        messages.success(request, said if is_set else gettext("No more messages are sent to an address of yours."))
        return redirect("webhook")
    context = {"webhook": webhook, "form": form, **_log(request.user)}
    answer = render(request, "webhook.html", context, status=400 if form.is_bound else 200)
    answer["Cache-Control"] = "no-store"
    return answer


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
    """The log; 204 when it would look as the one that the page has."""
    found = _log(request.user)
    if found["fingerprint"] == request.GET.get("seen"):
        return HttpResponse(status=204)
    return render(request, "_deliveries.html", found)


@login_required
@require_POST
def replay(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Does not ask: a receiver knows a message that it has had by its id."""
    if not Delivery.objects.for_user(request.user).filter(pk=pk).exists():
        raise Http404
    if not deliveries.replay_delivery(pk):
        messages.error(request, gettext("The message is being sent now. See what comes of it first."))
    return redirect("webhook")


def _log(user: AnyUser) -> dict[str, Any]:
    rows = Delivery.objects.for_user(user).select_related("job").defer("data", "job__text", "job__searchable")
    entries = [Entry(row, webhooks.tries(row)) for row in rows[:SHOWN]]
    is_moving = any(entry.is_waiting and entry.delivery.next_attempt_at < timezone.now() + SOON for entry in entries)
    seen = repr([(e.delivery.pk, e.delivery.status, len(e.tries), e.delivery.attempts) for e in entries] + [is_moving])
    fingerprint = hashlib.sha256(seen.encode()).hexdigest()[:16]
    return {"entries": entries, "is_moving": is_moving, "fingerprint": fingerprint, "shown": SHOWN}
