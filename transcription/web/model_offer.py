"""The offer of a better model to an administrator, while a smaller one is the default."""

import math
from dataclasses import dataclass

from django.http import HttpRequest

from transcription import model_library
from transcription.model_library import LibraryModel
from transcription.models import Download
from transcription.weights import catalogue

BEST, *SMALLER = catalogue.AUTO
LATER = "offer"  # the cookie of a browser in which the offer was declined


@dataclass(frozen=True)
class ModelOffer:
    """A model that can be downloaded, is being downloaded, or has just arrived."""

    model: LibraryModel

    @property
    def download(self) -> Download | None:
        return self.model.download

    @property
    def percent(self) -> int:
        return math.floor(100 * self.model.progress)

    @property
    def fingerprint(self) -> str:
        """Changes when the offer would look different."""
        return f"{self.model.state}-{self.percent}"


def find_offer(request: HttpRequest) -> ModelOffer | None:
    """The offer for this request's user. A download that has begun is shown even if the offer was declined."""
    if not getattr(request.user, "is_staff", False):
        return None
    best = next((model for model in model_library.models() if model.name == BEST and model.published), None)
    if best is None:
        return None
    if best.state == "here":
        return ModelOffer(best) if "seen" in request.GET else None  # only to a page that shows the download
    default = catalogue.default_if_known() if catalogue.local_models() else ""
    is_wanted = default in SMALLER and LATER not in request.COOKIES
    return ModelOffer(best) if is_wanted or best.download is not None else None
