"""Whether an engine of this machine can be trusted: once a version it transcribes the bundled sample.

A broken driver may crash, or write nonsense without a word of warning. What does is set aside, and `ENGINE=auto` takes
the next best: a slower answer, never a wrong one.
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

MOST_WRONG = 0.3  # of the words

# What the bundled samples say.
SPOKEN = {
    "en": "Hello! This short recording came with the program. It shows that everything on this computer works. Now "
    "drop your own recording on the page, and read it a moment later.",
    "ru": "Добрый день! Эта запись нужна для проверки программы. Если вы видите эти слова, программа работает. Через "
    "минуту вы увидите результат. Спасибо за внимание!",
}


@dataclass(frozen=True)
class Verdict:
    """What came of an engine's check: `problem` is empty when it can be trusted."""

    engine: str
    version: str
    device: str
    model: str
    wrong: float  # of the words, 0-1; 1 when there were none
    problem: str = ""


def can_judge(model: str) -> bool:
    """Whether a model hears well enough for its words to tell anything: a published one of at least `base`'s size."""
    return model in MODELS and model != "tiny"


def judge(engine: Capabilities, device: str, model: str, *, language: str, text: str) -> Verdict:
    """The verdict on what an engine made of the sample in a language; a model that cannot judge finds no fault."""
    wrong = wrong_words(SPOKEN[language], text)
    is_bad = wrong > MOST_WRONG and can_judge(model)
    problem = f"{wrong:.0%} of the words of the sample were wrong" if is_bad else ""
    return Verdict(engine.name, installed_version(engine), device, model, round(wrong, 3), problem)


def crashed(engine: Capabilities, device: str, model: str, *, problem: str) -> Verdict:
    """The verdict on an engine that did not get to the end of the sample."""
    return Verdict(engine.name, installed_version(engine), device, model, 1.0, problem)


def wrong_words(spoken: str, text: str) -> float:
    """The share of the spoken words that are not in the text in their order; case and punctuation count nothing."""
    expected, heard = _words(spoken), _words(text)
    found = SequenceMatcher(None, expected, heard, autojunk=False).get_matching_blocks()
    wrong = max(len(expected), len(heard)) - sum(block.size for block in found)
    return min(1.0, wrong / len(expected))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("ё", "е"))


def installed_version(engine: Capabilities) -> str:
    try:
        return version(engine.package)
    except PackageNotFoundError:
        return ""


# ------------------------------------------------------------------ what is remembered


def verdict_on(engine: Capabilities) -> Verdict | None:
    """What came of the check of the installed version; None when it was not checked yet."""
    known = disk.remembered("engines.json").get(engine.name)
    if known is None or known.get("version") != installed_version(engine):
        return None
    return Verdict(**known)


def is_checked(engine: Capabilities, model: str) -> bool:
    """Whether the sample has been heard, with a model that can judge unless `model` cannot either."""
    verdict = verdict_on(engine)
    return verdict is not None and (can_judge(verdict.model) or not can_judge(model))


def is_set_aside(engine: Capabilities) -> bool:
    verdict = verdict_on(engine)
    return verdict is not None and bool(verdict.problem)


def remember(verdict: Verdict) -> None:
    """Keep a verdict for all processes of this machine, and say it when it is bad."""
    if verdict.problem:
        log.warning("the engine %s %s is set aside: %s", verdict.engine, verdict.version, verdict.problem)
    disk.remember("engines.json", verdict.engine, asdict(verdict))
