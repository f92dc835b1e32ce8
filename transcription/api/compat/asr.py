"""whisper-asr-webservice's endpoints, for its clients (Bazarr, Obsidian plugins), which only need our address.

POST /asr               file field audio_file; in the query: output (txt json srt vtt tsv), task, language,
                        initial_prompt, vad_filter, word_timestamps, encode; our own parameters too, there or in the
                        form. The response is text/plain under the name of the file; Asr-Engine names the engine. json
                        is Whisper's own {"text", "segments", "language"}, with its space before each text.
POST /detect-language   audio_file, encode. The language, heard at up to five places that have speech:
                        {"detected_language": "russian", "language_code": "ru", "confidence": 0.98}

Both wait for a durable job, which X-Job-Id names. `encode=false` says that the file is headerless 16 kHz mono s16le,
which is used without FFmpeg. Unknown names are ignored. An error is {"detail": sentence, "field": name}: 401 without a
key, 403 with a wrong one, 422 for a bad value and for no file. The key may be sent as `?token=`, or before the host as
`http://key:KEY@host`, which clients send as Basic authentication.
"""

from dataclasses import replace
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AbstractBaseUser
from django.http import HttpRequest, HttpResponse
from django.urls import re_path
from django.utils.datastructures import MultiValueDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from rest_framework import serializers

from transcription import jobs
from transcription.api import transcript
from transcription.api.compat.endpoint import EndpointError, endpoint, finished, read_form, request_key
from transcription.api.responses import Json
from transcription.api.serializers import JobRequest, always, finite
from transcription.jobs import JobParameters
from transcription.models import Job
from transcription.sound import audio
from transcription.text import edits, exports
from transcription.whisper.options import LANGUAGES

OUTPUTS = ("txt", "json", "srt", "vtt", "tsv")
# The whole recording, whatever the defaults are.
FOR_THE_LANGUAGE = {
    "language": "auto", "multilingual": "false", "vad_filter": "true", "clip_timestamps": "0",
    "upgrade_transcribation": "false",
}  # fmt: skip


class ListenRequest(JobRequest):
    """A job's parameters, and whether its sound must be decoded first."""

    ignores_unsupported = True  # these clients send what their own engine supports

    encode = serializers.BooleanField(default=True, error_messages=always(gettext_lazy("`encode` is true or false.")))

    def _by_name(self, data: MultiValueDict[str, Any]) -> dict[str, list[Any]]:
        """The values that were sent, without those of unknown names."""
        return {name: values for name, values in super()._by_name(data).items() if name in self.fields}

    @property
    def container(self) -> str:
        return "" if self.validated_data["encode"] else audio.RAW


class AsrRequest(ListenRequest):
    output = serializers.ChoiceField(
        OUTPUTS, default="txt", error_messages=always(gettext_lazy("`output` is txt, json, srt, vtt or tsv."))
    )


class LanguageRequest(ListenRequest):
    def _by_name(self, data: MultiValueDict[str, Any]) -> dict[str, list[Any]]:
        sent = super()._by_name(data)
        used = {name: values for name, values in sent.items() if name in ("file", "model", "encode")}
        return used | {name: [value] for name, value in FOR_THE_LANGUAGE.items()}

    @property
    def job_parameters(self) -> JobParameters:
        parameters = super().job_parameters
        return {**parameters, "options": replace(parameters["options"], task="detect")}


@endpoint("POST")
async def asr(request: HttpRequest) -> HttpResponse:
    """Transcribe and answer with the text in the requested format."""
    form, job_id = await sync_to_async(_submit)(AsrRequest, request)
    job = await finished(job_id)
    return await sync_to_async(_transcribed)(job, form.validated_data["output"])


@endpoint("POST")
async def detect_language(request: HttpRequest) -> HttpResponse:
    """Answer with the language that a recording is spoken in."""
    _form, job_id = await sync_to_async(_submit)(LanguageRequest, request)
    job = await finished(job_id)
    if not job.language:
        raise EndpointError(
            422,
            _("No language can be heard in it: it is too short, or nobody speaks. Send more of it."),
            job_id=str(job_id),
        )
    language = {"detected_language": LANGUAGES.get(job.language, job.language), "language_code": job.language}
    return Json({**language, "confidence": finite(job.language_probability)}, headers={"X-Job-Id": str(job_id)})


def _submit(kind: type[ListenRequest], request: HttpRequest) -> tuple[ListenRequest, UUID]:
    form = read_form(kind, request, no_file=422)
    owner = cast(AbstractBaseUser, request.user)
    job = jobs.submit(
        owner, form.upload, container=form.container, request_key=request_key(request), **form.job_parameters
    )
    request.close()  # otherwise the body's copy of the recording would stay on the disk while we wait
    return form, job.pk


def _transcribed(job: Job, output: str) -> HttpResponse:
    segments = transcript.segments(job)
    if output == "json":
        body = {
            "text": edits.joined((segment.channel, segment.text) for segment in segments),
            "language": job.language,
            "segments": [{"id": index, **segment.to_json()} for index, segment in enumerate(segments)],
        }
        answer: HttpResponse = Json(finite(body))
    else:
        answer = HttpResponse(exports.FORMATS[output].render(segments, job.transcription_options.highlight))
    answer["Content-Type"] = "text/plain; charset=utf-8"
    answer["Content-Disposition"] = f'attachment; filename="{quote(job.recording.original_name)}.{output}"'
    answer["Asr-Engine"] = job.engine.replace("-", "_")
    answer["X-Job-Id"] = str(job.pk)
    return answer


urlpatterns = [
    re_path(r"^asr/?$", asr),
    re_path(r"^detect-language/?$", detect_language),
]
