"""What the device workers can do, and which of the requested options they can honour."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_noop as _

from transcription import parameters
from transcription.models import Worker
from transcription.parameters import InvalidParameter
from transcription.weights import catalogue
from transcription.whisper.engine import ENGINES, NEUTRAL_VALUES, Capabilities
from transcription.whisper.options import TranscriptionOptions
from transcription.workers import devices


@dataclass(frozen=True)
class Capability:
    """An engine on a device. The device is a kind, such as `cuda`, until a worker has announced its number."""

    engine: str
    device: str
    compute_types: tuple[str, ...]
    threads: int

    @property
    def capabilities(self) -> Capabilities:
        return ENGINES[self.engine]

    @property
    def kind(self) -> str:
        """The kind of its device: `cuda` for `cuda:1`."""
        return self.device.partition(":")[0]

    def is_on(self, device: str) -> bool:
        """Whether its device has this name or is of this kind; `gpu` is every kind but the CPU."""
        if device == "gpu":
            return self.device != "cpu"
        if self.device == "cuda":  # no worker has announced the cards yet
            return device.partition(":")[0] == "cuda"
        return device in (self.device, self.kind)

    def refusals(self, options: Mapping[str, Any]) -> dict[str, InvalidParameter]:
        """The options that it cannot honour, each with the reason. Values that change nothing are always honoured."""
        engine = self.capabilities
        requested = {name: value for name, value in options.items() if NEUTRAL_VALUES.get(name) != value}
        refused: dict[str, InvalidParameter] = {}
        for name in sorted(requested.keys() & engine.unsupported):
            message = _("`%(name)s` is nothing that %(engine)s can do. Leave it out.")
            refused[name] = InvalidParameter(message, name=name, engine=engine.name)
        for name, high in engine.highest:
            if name in requested and requested[name] > high:
                message = _("`%(name)s` goes up to %(high)s with %(engine)s.")
                refused[name] = InvalidParameter(message, name=name, high=f"{high:g}", engine=engine.name)
        for name, other in engine.exclusive:
            if name in requested and other in requested:
                message = _("`%(name)s` and `%(other)s` do not go together with %(engine)s. Leave one of them out.")
                refused[name] = InvalidParameter(message, name=name, other=other, engine=engine.name)
        if requested.get("patience", 1.0) * options.get("beam_size", TranscriptionOptions.beam_size) < 1:
            message = _("`%(name)s` times `beam_size` is at least 1.")
            refused.setdefault("patience", InvalidParameter(message, name="patience"))
        if requested.get("compute_type") not in (None, *self.compute_types):
            refused["compute_type"] = _none_of("compute_type", self.compute_types)
        if "threads" in requested and requested["threads"] > self.threads:
            refused.setdefault(
                "threads", InvalidParameter(parameters.Integer.sentence, name="threads", low=1, high=self.threads)
            )
        return refused


@dataclass(frozen=True)
class Choice:
    """How a request is honoured."""

    engine: str  # empty: any
    device: str  # or a kind of device; empty: any
    options: TranscriptionOptions
    refused: dict[str, InvalidParameter]  # what was requested and left out of the options because nothing honours it


def here() -> list[Capability]:
    """What the device workers that are alive have announced; if there are none, what this installation would start."""
    workers = Worker.alive().filter(kind=Worker.Kind.DEVICE, engine__in=ENGINES)
    return [
        Capability(
            worker.engine,
            worker.device,
            # A worker announces them when its engine is first loaded.
            tuple(worker.compute_types) or ENGINES[worker.engine].compute_types,
            worker.threads or os.cpu_count() or 1,
        )
        for worker in workers
    ] or of_this_installation()


def of_this_installation() -> list[Capability]:
    """What MODEL_DEVICE allows its engine. Whether the devices exist is not checked: that takes seconds."""
    engine = devices.engine()
    kinds = {"auto": ("cpu", engine.gpu), "gpu": (engine.gpu,)}.get(settings.MODEL_DEVICE, (settings.MODEL_DEVICE,))
    return [Capability(engine.name, kind, engine.compute_types, os.cpu_count() or 1) for kind in kinds]


def can_be_honoured(name: str, value: Any) -> bool:
    return any(name not in capability.refusals({name: value}) for capability in here())


def choose(requested: Mapping[str, Any], *, model: str, among: list[Capability] | None = None) -> Choice:
    """Choose the engine, device and options that honour most of a request; this installation's defaults fill the rest.

    `requested` has values of parameters by their names. Raises InvalidParameter for what no engine could honour.
    """
    options = parameters.options_in(requested)
    check_language(options.get("language"), model)
    engine, device = (requested.get(name, "").lower() for name in ("engine", "device"))
    engine, device = ("" if name == "auto" else name for name in (engine, device))
    matching = _matching(here() if among is None else among, engine, device)
    best, refused = _honouring_most(matching, options)
    honoured = {name: value for name, value in options.items() if name not in refused}
    if len(best) < len(matching) or device == "gpu":
        engine, device = _widest_names(best, among=matching, engine=engine, device=device)
    return Choice(engine, device, TranscriptionOptions(**_with_defaults(honoured, best, model)), refused)


def _none_of(name: str, known: Iterable[str]) -> InvalidParameter:
    return InvalidParameter(parameters.Choice.sentence, name=name, known=", ".join(sorted(set(known))))


def check_language(language: str | None, model: str) -> None:
    """Raises InvalidParameter if a model of the catalogue does not know a language."""
    if language and not _knows(model, language):
        known = ", ".join(name for name in catalogue.MODELS if _knows(name, language))
        message = _("`%(name)s` is none that the model %(model)s knows. Models that know it: %(known)s.")
        raise InvalidParameter(message, name="language", model=model, known=known)


def _knows(model: str, language: str) -> bool:
    """Whether a model knows a language; assumed of models that are not in the catalogue."""
    return model not in catalogue.MODELS or language in catalogue.MODELS[model].languages


def _matching(capabilities: list[Capability], engine: str, device: str) -> list[Capability]:
    """The capabilities of an engine on a device, empty for any. Raises InvalidParameter, which names the choices."""
    of_engine = [capability for capability in capabilities if engine in ("", capability.engine)]
    if not of_engine:
        raise _none_of("engine", (capability.engine for capability in capabilities))
    on_device = [capability for capability in of_engine if not device or capability.is_on(device)]
    if not on_device:
        raise _none_of("device", (capability.device for capability in of_engine))
    return on_device


def _honouring_most(
    capabilities: list[Capability], options: Mapping[str, Any]
) -> tuple[list[Capability], dict[str, InvalidParameter]]:
    """The capabilities that honour the most options, and what they refuse."""
    refusals = [capability.refusals(options) for capability in capabilities]
    refused = min(refusals, key=len)
    best = [capability for capability, own in zip(capabilities, refusals, strict=True) if own.keys() == refused.keys()]
    if "compute_type" in refused:
        refused["compute_type"] = _none_of(
            "compute_type", (name for capability in best for name in capability.compute_types)
        )
    return best, refused


def _with_defaults(options: dict[str, Any], capabilities: list[Capability], model: str) -> dict[str, Any]:
    """The options and this installation's defaults, without defaults that these capabilities refuse with them."""
    complete = dict(options)
    for name, value in settings.DEFAULTS.items():
        if name in options or (name == "language" and value and not _knows(model, value)):
            continue
        candidate = {**complete, name: value}
        # An engine ignores a default that it does not support at all; the others shall have it.
        if not any(
            capability.refusals(candidate).keys() - capability.capabilities.unsupported for capability in capabilities
        ):
            complete = candidate
    return complete


def _widest_names(best: list[Capability], *, among: list[Capability], engine: str, device: str) -> tuple[str, str]:
    """The least specific engine and device that match only the best capabilities."""
    engines = [engine] if engine else ["", *dict.fromkeys(capability.engine for capability in best)]
    names = dict.fromkeys([*(capability.kind for capability in best), *(capability.device for capability in best)])
    places = [*names] if device == "gpu" else [device] if device else ["", *names]
    for place in places:
        for name in engines:
            matches = [one for one in among if name in ("", one.engine) and (not place or one.is_on(place))]
            if matches and all(capability in best for capability in matches):
                return name, place
    return best[0].engine, best[0].device
