"""What engines take and give, as numbers: the samples of a sound, and measures."""

import math

import numpy as np
from numpy.typing import NDArray

from transcription.whisper.engine import Sound


def read(sound: Sound) -> NDArray[np.float32]:
    """The samples of a sound as floats in [-1, 1).  # (samples,)"""
    samples = np.memmap(sound.path, dtype="<i2", mode="r")
    floats = np.concatenate([samples[start:end] for start, end in sound.spans], dtype=np.float32)
    floats /= 32768.0  # in place: an hour is 230 MB
    return floats


def finite(value: float | None) -> float:
    """A measure as JSON has it: NaN, which a model may give for one, is 0 and costs nobody the text."""
    return float(value) if value is not None and math.isfinite(value) else 0.0
