"""The numbers that engines take and give: samples and measures."""

import math

import numpy as np
from numpy.typing import NDArray

from transcription.whisper.engine import Sound


def read(sound: Sound) -> NDArray[np.float32]:
    """The samples of a sound as floats in [-1, 1)."""
    samples = np.memmap(sound.path, dtype="<i2", mode="r")  # (samples of the file,)
    floats = np.concatenate([samples[start:end] for start, end in sound.spans], dtype=np.float32)  # (samples,)
    floats /= 32768.0  # in place: an hour takes 230 MB
    return floats


def finite(value: float | None) -> float:
    """A measure that JSON can hold. A model may give NaN, which becomes 0, so that the text is not lost for it."""
    return float(value) if value is not None and math.isfinite(value) else 0.0
