"""Every address: the API, OpenAI's endpoints, the compatibility API, the admin, and the pages at the root."""

from django.contrib import admin
from django.urls import include, path, re_path

from transcription.api import errors

urlpatterns = [
    path("admin/", admin.site.urls),
    path("i18n/", include("django.conf.urls.i18n")),
    path("api/v1/", include("transcription.api.v1.urls")),
    path("api/", include("transcription.api.compat.monitor")),
    path("api/", include("transcription.api.v1.docs")),
    re_path(r"^api(?:/|$)", errors.unknown_address),
    path("v1/", include("transcription.api.compat.openai")),
    re_path(r"^v1(?:/|$)", errors.unknown_address),
    path("", include("transcription.api.compat.legacy")),
    path("", include("transcription.api.compat.asr")),
    path("", include("transcription.web.urls")),
]

handler400 = errors.bad_request
handler403 = errors.permission_denied
handler404 = errors.page_not_found
handler500 = errors.server_error
