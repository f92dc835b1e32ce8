"""Whether an engine of this machine can be trusted: each version transcribes the bundled sample once.

With a broken driver an engine may crash or write nonsense without a warning. Such an engine is set aside, and
`ENGINE=auto` takes the next best: a slower answer, never a wrong one.
"""

import logging
import re
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from importlib.metadata import PackageNotFoundError, version

from transcription import disk
from transcription.weights.catalogue import MODELS
from transcription.whisper.engine import Capabilities

log = logging.getLogger(__name__)

MOST_WRONG = 0.3  # share of the words

# The words of the bundled samples.
SPOKEN = {
    "en": "Hello! This short recording came with the program. It shows that everything on this computer works. Now "
    "drop your own recording on the page, and read it a moment later.",
    "ru": "Добрый день! Эта запись нужна для проверки программы. Если вы видите эти слова, программа работает. Через "
    "минуту вы увидите результат. Спасибо за внимание!",
}


@dataclass(frozen=True)
class Verdict:
    """The result of an engine's check: `problem` is empty if the engine can be trusted."""

    engine: str
    version: str
    device: str
    model: str
    wrong: float  # share of the words, 0-1
    problem: str = ""


def can_judge(model: str) -> bool:
    """Whether a model is good enough for a verdict: a published one, of `base`'s size or larger."""
    return model in MODELS and model != "tiny"


def judge(engine: Capabilities, device: str, model: str, *, language: str, text: str) -> Verdict:
    """The verdict on an engine's text of the sample in a language; without fault if the model cannot judge."""
    wrong = wrong_words(SPOKEN[language], text)
    is_bad = wrong > MOST_WRONG and can_judge(model)
    problem = f"{wrong:.0%} of the words of the sample were wrong" if is_bad else ""
    return Verdict(engine.name, installed_version(engine), device, model, round(wrong, 3), problem)


def crashed(engine: Capabilities, device: str, model: str, *, problem: str) -> Verdict:
    """The verdict on an engine that did not reach the end of the sample."""
    return Verdict(engine.name, installed_version(engine), device, model, 1.0, problem)


def wrong_words(spoken: str, text: str) -> float:
    """The share of the spoken words that are not in the text in their order, without case and punctuation."""
    expected, heard = _words(spoken), _words(text)
    matches = SequenceMatcher(None, expected, heard, autojunk=False).get_matching_blocks()
    wrong = max(len(expected), len(heard)) - sum(match.size for match in matches)
    return min(1.0, wrong / len(expected))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("ё", "е"))


def installed_version(engine: Capabilities) -> str:
    try:
        return version(engine.package)
    except PackageNotFoundError:
        return ""


# ------------------------------------------------------------------ the stored verdicts


def verdict_on(engine: Capabilities) -> Verdict | None:
    """The verdict on the installed version; None if it has not been checked."""
    stored = disk.remembered("engines.json").get(engine.name)
    if stored is None or stored.get("version") != installed_version(engine):
        return None
    return Verdict(**stored)


def is_checked(engine: Capabilities, model: str) -> bool:
    """Whether the engine has been checked, by a model that can judge unless `model` cannot either."""
    verdict = verdict_on(engine)
    return verdict is not None and (can_judge(verdict.model) or not can_judge(model))


def is_set_aside(engine: Capabilities) -> bool:
    verdict = verdict_on(engine)
    return verdict is not None and bool(verdict.problem)


def remember(verdict: Verdict) -> None:
    """Store a verdict for all processes of this machine, and warn if the engine is set aside."""
    if verdict.problem:
        log.warning("the engine %s %s is set aside: %s", verdict.engine, verdict.version, verdict.problem)
    disk.remember("engines.json", verdict.engine, asdict(verdict))
