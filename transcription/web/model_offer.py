"""The better model that an administrator is offered while a smaller one is the best here."""

import math
from dataclasses import dataclass

from django.http import HttpRequest

from transcription import model_library
from transcription.model_library import LibraryModel
from transcription.models import Download
from transcription.weights import catalogue

BEST, *SMALLER = catalogue.AUTO
LATER = "offer"  # the cookie of a browser that does not want to be asked again


@dataclass(frozen=True)
class ModelOffer:
    """A model that can be had, is on its way, or has just come."""

    model: LibraryModel

    @property
    def download(self) -> Download | None:
        return self.model.download

    @property
    def percent(self) -> int:
        return math.floor(100 * self.model.progress)

    @property
    def fingerprint(self) -> str:
        """Another one when it would look different."""
        return f"{self.model.state}-{self.percent}"


def find_offer(request: HttpRequest) -> ModelOffer | None:
    """What to offer to who looks; what is on its way is shown though they said no."""
    if not getattr(request.user, "is_staff", False):
        return None
    best = next((model for model in model_library.models() if model.name == BEST and model.published), None)
    if best is None:
        return None
    if best.state == "here":
        return ModelOffer(best) if "seen" in request.GET else None  # news only to who saw it come
    default = catalogue.default_if_known() if catalogue.local_models() else ""
    is_wanted = default in SMALLER and LATER not in request.COOKIES
    return ModelOffer(best) if is_wanted or best.download is not None else None
