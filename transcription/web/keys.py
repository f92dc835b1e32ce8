"""The page of a user's API keys: list, make, revoke."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods

from transcription import keys
from transcription.models import ApiToken
from transcription.web.forms import INPUT, SELECT
from transcription.web.views import page

NEVER = "0"
DAYS = (
    (NEVER, _("never")),
    ("7", _("in a week")),
    ("30", _("in a month")),
    ("90", _("in three months")),
    ("365", _("in a year")),
)  # fmt: skip


class KeyForm(forms.Form):
    """A new key's name, scope and expiry."""

    name = forms.CharField(
        max_length=100,
        widget=forms.TextInput(INPUT | {"autocomplete": "off"}),
        error_messages={"required": _("Say what the key is for, so that you know it again.")},
    )
    scope = forms.ChoiceField(choices=ApiToken.Scope.choices, initial=ApiToken.Scope.WRITE)
    days = forms.ChoiceField(choices=DAYS, initial=NEVER, widget=SELECT)

    def expires_at(self) -> Any:
        """Only after `is_valid()`."""
        days = self.cleaned_data["days"]
        return None if days == NEVER else timezone.now() + timedelta(days=int(days))


@page
@require_http_methods(["GET", "HEAD", "POST"])
def mine(request: HttpRequest) -> HttpResponse:
    """List the keys and make one. A new key is shown in this response and never again."""
    form, new_key = KeyForm(request.POST if request.method == "POST" else None), ""
    if form.is_valid():
        name, scope = form.cleaned_data["name"], form.cleaned_data["scope"]
        new_key = ApiToken.make(request.user, name, scope=scope, expires_at=form.expires_at())
        form = KeyForm()
    context = {"keys": keys.of_user(request.user), "form": form, "made": new_key, "now": timezone.now()}
    response = render(request, "keys.html", context, status=400 if form.is_bound else 200)
    response["Cache-Control"] = "no-store"
    return response


@page
@require_http_methods(["GET", "HEAD", "POST"])
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Ask for confirmation, then revoke a key."""
    key = get_object_or_404(keys.of_user(request.user), pk=pk)
    if request.method != "POST":
        return render(request, "confirm_revoke.html", {"key": key})
    try:
        keys.revoke(key)
    except keys.StandsInFile as problem:
        messages.error(request, str(problem))
    else:
        messages.success(request, gettext("%(name)s is revoked.") % {"name": key.name or str(key)})
    return redirect("keys")
