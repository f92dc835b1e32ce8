"""What can go wrong, as sentences for the person who must act.

A problem has a code for programs and a sentence for people. A job stores the code and the values for the sentence's
placeholders, so that each reader gets the sentence in their own language. `sentences.py` translates it; nothing here
imports Django.
"""

from collections.abc import Mapping
from typing import ClassVar


def _(sentence: str) -> str:
    """Mark a sentence for translation; the endpoints translate it when they answer."""
    return sentence


class _Values(dict[str, object]):
    """The values of a sentence's placeholders; `?` for a missing one."""

    def __missing__(self, name: str) -> str:
        return "?"


def filled(sentence: str, values: object) -> str:
    """Fill in a sentence's placeholders. Another version may have stored too few values, too many, or none."""
    return sentence % _Values(values if isinstance(values, Mapping) else {})


class Problem(Exception):
    """Something went wrong that a sentence can explain. `values` fill its placeholders."""

    code: ClassVar[str] = "internal"
    sentence: ClassVar[str] = _("Something went wrong on our side: %(detail)s. Try again; if it repeats, send the log.")
    retryable: ClassVar[bool] = True  # whether it can help that a person tries again
    is_transient: ClassVar[bool] = True  # whether it may pass by itself, so that a worker tries again
    waiting_sentence: ClassVar[str] = ""  # if set, a job waits for the problem to pass however long it takes
    is_input_at_fault: ClassVar[bool] = False  # whether the recording is the cause
    may_end_job: ClassVar[bool] = True  # whether a job may store it; false if it is raised before there is a job

    def __init__(self, **values: object) -> None:
        self.values = values
        super().__init__(filled(self.sentence, values))


class InputProblem(Problem):
    """The recording is the cause: another try gives the same result, another file may not."""

    retryable = False
    is_transient = False
    is_input_at_fault = True


class EmptyFile(InputProblem):
    code = "empty_file"
    sentence = _("The file is empty: it holds 0 bytes. Trying again will not help, another file will.")


class NotMedia(InputProblem):
    code = "not_media"
    sentence = _("This is neither audio nor video, although it is named %(name)s. Another file will help.")


class NoAudio(InputProblem):
    code = "no_audio"
    sentence = _("The file has no sound track. Trying again will not help, another file will.")


class TooLong(InputProblem):
    code = "too_long"
    sentence = _("The recording is longer than %(hours)s hours, the limit here. Split it into shorter ones.")


class DamagedFile(InputProblem):
    code = "damaged_file"
    sentence = _("The sound of this file cannot be read: %(detail)s. Export it again or give another file.")


class BeginningMissing(InputProblem):
    code = "beginning_missing"
    sentence = _(
        "The beginning of this recording is missing, and the rest cannot be read without it. Give it whole, from the "
        "first piece that the browser or the recorder made."
    )


class UnsupportedCodec(InputProblem):
    code = "unsupported_codec"
    sentence = _("This file's sound cannot be decoded here: its codec is %(codec)s. Convert it to WAV, FLAC or MP3.")


class UnsupportedFormat(InputProblem):
    code = "unsupported_format"
    sentence = _("Files of this format are not read here: %(format)s. Convert it to WAV, FLAC or MP3.")


class ProtectedFile(InputProblem):
    code = "protected_file"
    sentence = _("The sound of this file is encrypted by whoever sells it. Give a copy without protection.")


class DecodingTimedOut(InputProblem):
    code = "decoding_timed_out"
    sentence = _("Reading the file took longer than %(seconds)s seconds and was stopped. Convert it to WAV first.")


class NoSuchTrack(InputProblem):
    code = "track_unknown"
    sentence = _("The file has no track %(wanted)s. Choose one of its tracks by number or language: %(tracks)s.")


class NoSuchChannel(InputProblem):
    code = "channel_unknown"
    sentence = _("There is no channel %(wanted)s: the sound has %(count)s. Choose one of these, or mix.")


class TooManyChannels(InputProblem):
    code = "too_many_channels"
    sentence = _(
        "The sound has %(count)s channels; at most %(most)s are transcribed apart. Choose one by its number, or mix."
    )


class RecordingMissing(Problem):
    is_transient = False
    code = "recording_missing"
    sentence = _("The recording is no longer on this machine's disk. Give it again.")
    retryable = False


class FFmpegMissing(Problem):
    is_transient = False
    code = "ffmpeg_missing"
    sentence = _("FFmpeg is not installed on this machine. Ask the administrator to install it, then try again.")


class UnknownModel(InputProblem):
    code = "model_unknown"
    sentence = _("There is no model named %(name)s. Choose one of: %(known)s.")


class ModelMissing(Problem):
    is_transient = False
    code = "model_missing"
    sentence = _(
        "The model %(name)s is not on this machine. Put its files (%(files)s) into the folder %(folder)s and try again."
    )


class ModelInUse(Problem):
    is_transient = False
    code = "model_in_use"
    sentence = _("The model %(name)s is needed by unfinished jobs (%(count)s). Wait for them or cancel them first.")


class WeightsUnavailable(Problem):
    code = "weights_unavailable"
    sentence = _("The weights of %(name)s could not be fetched: %(detail)s. Put %(files)s into %(folder)s by hand.")


class NoEngine(Problem):
    code = "no_engine"
    sentence = _("No engine can run on this machine: %(detail)s. Install the requirements again with make run.")


class UnknownDevice(Problem):
    code = "device_unknown"
    sentence = _("MODEL_DEVICE is %(name)s, but this machine has only: %(known)s. Change it or leave it out.")
    retryable = False


class EngineFailed(Problem):
    code = "engine_failed"
    sentence = _("The speech recogniser stopped with an error: %(detail)s. The text so far is kept; try again.")


class RunnerDied(Problem):
    code = "runner_died"
    sentence = _("The speech recogniser crashed %(attempts)s times on this recording. The text so far is kept.")


class RunnerStalled(Problem):
    code = "runner_stalled"
    sentence = _(
        "The speech recogniser gave no sign of life for %(seconds)s seconds and was stopped. The text so far is kept; "
        "try again."
    )


class OutOfMemory(Problem):
    code = "out_of_memory"
    sentence = _(
        "This machine ran out of memory. The text so far is kept; close other programs or choose a smaller model."
    )


class WorkerLost(Problem):
    code = "worker_lost"
    sentence = _("The worker stopped %(attempts)s times during this step. The recording is kept; try again.")


class RetryLater(Problem):
    """Nothing is wrong with the request; it may succeed later."""


class QueueFull(RetryLater):
    may_end_job = False
    code = "queue_full"
    sentence = _("You have %(limit)s unfinished jobs, as many as may be here. Wait until one ends, or cancel one.")


class UploadsThrottled(RetryLater):
    may_end_job = False
    code = "uploads_throttled"
    sentence = _(
        "You have sent %(limit)s recordings, as many as may come in so short a time. Try again in %(seconds)s seconds."
    )


class DiskFull(RetryLater):
    code = "disk_full"
    sentence = _("This machine's disk lacks space. Free some and try again.")
    waiting_sentence = _("Waits until this machine's disk has space. Free some, and it goes on by itself.")


class UnknownCode(Problem):
    """Stands for a code that another version stored and this one does not know."""

    may_end_job = False
    code = "unknown"
    sentence = _("It failed with `%(code)s`, which this version has no words for. Try again, or ask the administrator.")
    waiting_sentence = _(
        "It waits for `%(code)s`, which this version has no words for. Cancel it, or ask the administrator."
    )


class LeaseLost(Exception):
    """Another worker has taken over this work, or it was cancelled: stop and write nothing more."""


def _all(kind: type[Problem]) -> list[type[Problem]]:
    return [kind, *(problem for child in kind.__subclasses__() for problem in _all(child))]


# The codes that jobs store. InputProblem and RetryLater have no code of their own: `internal` is Problem's.
BY_CODE: dict[str, type[Problem]] = {
    kind.code: kind for kind in _all(Problem) if "code" in vars(kind) and kind.may_end_job
}


def by_code(code: str) -> type[Problem]:
    """The problem with a stored code; UnknownCode for a code of another version."""
    return BY_CODE.get(code, UnknownCode)


def why_waiting(code: str) -> str:
    """The sentence of a job that waits for the problem with a stored code to pass; its placeholder is `code`."""
    return by_code(code).waiting_sentence or UnknownCode.waiting_sentence
