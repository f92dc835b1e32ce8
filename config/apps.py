"""Django's admin with a site of our own."""

from functools import wraps
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig as DjangoAdminConfig
from django.contrib.admin.views.main import ERROR_FLAG
from django.db import DataError
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import SimpleTemplateResponse
from django.urls import reverse_lazy


class AdminConfig(DjangoAdminConfig):
    default_site = "config.apps.AdminSite"


class AdminSite(admin.AdminSite):
    """Answers a query string that the database cannot take; Django's lists pass some values on unchecked."""

    site_url = cast(str, reverse_lazy("dashboard"))  # Django's own leaves out the slash after a path before it

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        checked = super().admin_view(view, cacheable)

        @wraps(checked)
        def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            try:
                response: HttpResponseBase = checked(request, *args, **kwargs)
                if isinstance(response, SimpleTemplateResponse):
                    response.render()  # a list reads its rows when it is rendered
                return response
            except (OverflowError, ValueError, DataError):  # a number or a date out of the database's range
                if request.method != "GET" or not request.GET:
                    raise
                # Django answers a wrong filter in the same way.
                return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")

        return answer
