"""The admin, but that no value in an address makes it fail: Django's own lists hand some to the database unchecked."""

from functools import wraps
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ERROR_FLAG
from django.db import DataError
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import SimpleTemplateResponse


class Site(admin.AdminSite):
    """The default one, see `config.apps`."""

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        shown = super().admin_view(view, cacheable)

        @wraps(shown)
        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                response: HttpResponseBase = shown(request, *args, **kwargs)
                if isinstance(response, SimpleTemplateResponse):
                    response.render()  # a list is read when it is shown
                return response
            except (OverflowError, ValueError, DataError):  # a number or a date that the database has no room for
                if request.method != "GET" or not request.GET:
                    raise
                # As Django answers a filter that it knows to be wrong.
                return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")

        return answer
