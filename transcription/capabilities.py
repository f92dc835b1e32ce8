"""What can be had here: what the device workers announce, and which of the requested options they can honour."""

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
from transcription.whisper.engine import ASKS_NOTHING, ENGINES, Capabilities
from transcription.whisper.options import TranscriptionOptions
from transcription.workers import devices


@dataclass(frozen=True)
class Capability:
    """An engine on a device. Of a device that no worker has announced yet only its kind may be known."""

    engine: str
    device: str
    compute_types: tuple[str, ...]
    threads: int

    @property
    def capabilities(self) -> Capabilities:
        return ENGINES[self.engine]

    @property
    def kind(self) -> str:
        """Of its device: "cuda" of "cuda:1"."""
        return self.device.partition(":")[0]

    def is_on(self, device: str) -> bool:
        """Whether it is on a device of this name or kind; `gpu` is every kind but the CPU."""
        if device == "gpu":
            return self.device != "cpu"
        if self.device == "cuda":  # no worker has announced yet which cards there are
            return device.partition(":")[0] == "cuda"
        return device in (self.device, self.kind)

    def refusals(self, options: Mapping[str, Any]) -> dict[str, InvalidParameter]:
        """Of these options those that it cannot honour, and why; one that asks for nothing is honoured by all."""
        engine = self.capabilities
        asking = {name: value for name, value in options.items() if ASKS_NOTHING.get(name) != value}
        refused: dict[str, InvalidParameter] = {}
        for name in sorted(asking.keys() & engine.unsupported):
            message = _("`%(name)s` is nothing that %(engine)s can do. Leave it out.")
            refused[name] = InvalidParameter(message, name=name, engine=engine.name)
        for name, high in engine.highest:
            if name in asking and asking[name] > high:
                message = _("`%(name)s` goes up to %(high)s with %(engine)s.")
                refused[name] = InvalidParameter(message, name=name, high=f"{high:g}", engine=engine.name)
        for name, other in engine.exclusive:
            if name in asking and other in asking:
                message = _("`%(name)s` and `%(other)s` do not go together with %(engine)s. Leave one of them out.")
                refused[name] = InvalidParameter(message, name=name, other=other, engine=engine.name)
        if asking.get("patience", 1.0) * options.get("beam_size", TranscriptionOptions.beam_size) < 1:
            message = _("`%(name)s` times `beam_size` is at least 1.")
            refused.setdefault("patience", InvalidParameter(message, name="patience"))
        if asking.get("compute_type") not in (None, *self.compute_types):
            refused["compute_type"] = _none_of("compute_type", self.compute_types)
        if "threads" in asking and asking["threads"] > self.threads:
            refused.setdefault(
                "threads", InvalidParameter(parameters.Integer.sentence, name="threads", low=1, high=self.threads)
            )
        return refused


@dataclass(frozen=True)
class Choice:
    """What becomes of a request: `engine` and `device` as a job asks for them, empty for any."""

    engine: str
    device: str
    options: TranscriptionOptions
    refused: dict[str, InvalidParameter]  # what was asked for and nobody honours; it is not among the options


def here() -> list[Capability]:
    """What the living device workers announce; while there are none, what this installation would start."""
    alive = Worker.alive().filter(kind=Worker.Kind.DEVICE, engine__in=ENGINES)
    return [
        Capability(
            worker.engine,
            worker.device,
            # Announced when its engine is first loaded.
            tuple(worker.compute_types) or ENGINES[worker.engine].compute_types,
            worker.threads or os.cpu_count() or 1,
        )
        for worker in alive
    ] or of_this_installation()


def of_this_installation() -> list[Capability]:
    """What MODEL_DEVICE allows its engine, without looking whether it is there: that takes seconds."""
    engine = devices.engine()
    kinds = {"auto": ("cpu", engine.gpu), "gpu": (engine.gpu,)}.get(settings.MODEL_DEVICE, (settings.MODEL_DEVICE,))
    return [Capability(engine.name, kind, engine.compute_types, os.cpu_count() or 1) for kind in kinds]


def can_be_honoured(name: str, value: Any) -> bool:
    return any(name not in capability.refusals({name: value}) for capability in here())


def choose(asked: Mapping[str, Any], *, model: str, among: list[Capability] | None = None) -> Choice:
    """What can be had of what was asked, with this installation's defaults where nothing was.

    `asked` are values of parameters by their names. Raises InvalidParameter for what no engine could make right.
    """
    wanted = parameters.options_in(asked)
    check_language(wanted.get("language"), model)
    engine, device = (_any_if_auto(asked.get(name, "")) for name in ("engine", "device"))
    fitting = _at(here() if among is None else among, engine, device)
    best, refused = _honouring_most(fitting, wanted)
    honoured = {name: value for name, value in wanted.items() if name not in refused}
    if len(best) < len(fitting) or device == "gpu":
        engine, device = _meaning(best, among=fitting, engine=engine, device=device)
    return Choice(engine, device, TranscriptionOptions(**_with_defaults(honoured, best, model)), refused)


def _any_if_auto(name: str) -> str:
    return "" if name.lower() == "auto" else name.lower()


def _none_of(name: str, known: Iterable[str]) -> InvalidParameter:
    return InvalidParameter(parameters.Choice.sentence, name=name, known=", ".join(sorted(set(known))))


def check_language(language: str | None, model: str) -> None:
    """Raises InvalidParameter for a language that a model of the catalogue does not know."""
    if language and not _knows(model, language):
        known = ", ".join(name for name in catalogue.MODELS if _knows(name, language))
        message = _("`%(name)s` is none that the model %(model)s knows. Models that know it: %(known)s.")
        raise InvalidParameter(message, name="language", model=model, known=known)


def _knows(model: str, language: str) -> bool:
    """Whether a model knows a language; one that is not in the catalogue may."""
    return model not in catalogue.MODELS or language in catalogue.MODELS[model].languages


def _at(capabilities: list[Capability], engine: str, device: str) -> list[Capability]:
    """Those of the capabilities that are of an engine and on a device. Raises InvalidParameter with what there is."""
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
    """Those capabilities that honour as many of the options as any does, and what they refuse."""
    refusals = [capability.refusals(options) for capability in capabilities]
    refused = min(refusals, key=len)
    best = [capability for capability, its in zip(capabilities, refusals, strict=True) if its.keys() == refused.keys()]
    if "compute_type" in refused:
        refused["compute_type"] = _none_of(
            "compute_type", (name for capability in best for name in capability.compute_types)
        )
    return best, refused


def _with_defaults(options: dict[str, Any], capabilities: list[Capability], model: str) -> dict[str, Any]:
    """The options and this installation's defaults, without those that would spoil what these capabilities can do."""
    made = dict(options)
    for name, value in settings.DEFAULTS.items():
        if name in options or (name == "language" and value and not _knows(model, value)):
            continue
        with_it = {**made, name: value}
        # What an engine cannot do at all it leaves out by itself; another's best is not taken away for that.
        if not any(
            capability.refusals(with_it).keys() - capability.capabilities.unsupported for capability in capabilities
        ):
            made = with_it
    return made


def _meaning(fitting: list[Capability], *, among: list[Capability], engine: str, device: str) -> tuple[str, str]:
    """The widest engine and device that mean these capabilities and none of the others."""
    engines = [engine] if engine else ["", *dict.fromkeys(capability.engine for capability in fitting)]
    names = dict.fromkeys(
        [*(capability.kind for capability in fitting), *(capability.device for capability in fitting)]
    )
    places = [*names] if device == "gpu" else [device] if device else ["", *names]
    for place in places:
        for name in engines:
            meant = [o for o in among if name in ("", o.engine) and (not place or o.is_on(place))]
            if meant and all(capability in fitting for capability in meant):
                return name, place
    return fitting[0].engine, fitting[0].device
