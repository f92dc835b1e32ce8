"""JSON as people read it: Russian in Russian letters, not in escapes."""

from functools import partial

from django.http import JsonResponse

Json = partial(JsonResponse, json_dumps_params={"ensure_ascii": False})
