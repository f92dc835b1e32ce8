"""Errors as sentences in the language of the person who reads them."""

from django.utils.translation import gettext

from transcription import errors
from transcription.errors import Problem
from transcription.parameters import InvalidParameter


def describe(error: Problem | InvalidParameter) -> str:
    """What is wrong, in the reader's language."""
    return translate(error.sentence, error.values)


def describe_waiting(code: str) -> str:
    """What a job says while it waits for the problem of a stored code to pass, in the reader's language."""
    return translate(errors.why_waiting(code), {"code": code})


def translate(sentence: str, values: object) -> str:
    """A sentence in the reader's language, with values in its places; `?` stands where a value is missing."""
    return errors.filled(gettext(sentence), values)
