"""A job's transcript: as segments for an export, and as the JSON of `/transcribe` and `transcript.json`."""

import re
from pathlib import PurePath
from typing import Any

from transcription.api.serializers import finite
from transcription.models import BY_TIME, Job
from transcription.text import edits
from transcription.whisper.result import Segment

LONGEST_LABEL = 100


def segments(job: Job) -> list[Segment]:
    """The stored segments as they read now, in the order of the recording, without those that an edit emptied."""
    rows = job.segments.select_related("section").order_by(*BY_TIME)
    return [
        Segment(
            start=row.start,
            end=row.end,
            text=row.reads,
            seek=row.seek,
            tokens=tuple(row.tokens),
            temperature=row.temperature,
            avg_logprob=row.avg_logprob,
            compression_ratio=row.compression_ratio,
            no_speech_prob=row.no_speech_prob,
            words=edits.spoken(row),
            channel=row.section.channel,
            language=row.language or job.language,
        )
        for row in rows
        if row.reads.strip() or row.reads == row.text
    ]


def body(job: Job) -> dict[str, Any]:
    """The transcript as `/transcribe` gives it: openai-whisper's fields and the job's options; no NaN, no infinity."""
    sound, text = file_names(job)
    stored, options = segments(job), job.transcription_options
    result: dict[str, Any] = finite(
        {
            **options.to_json(),  # first, so that the detected language replaces the requested one
            "text": job.text or edits.joined((segment.channel, segment.text) for segment in stored).strip(),
            "segments": [_segment_body(index, segment) for index, segment in enumerate(stored)],
            "language": job.answered_language,
            "track": job.track,
            "tracks": job.recording.tracks,
            "model": job.model,
            "upgrade_transcribation": job.is_to_be_improved,
            "uploaded_file": sound,
            "result_file": text,
            "job_id": str(job.pk),
            "duration": job.recording.duration,
            "processing_seconds": job.processing_seconds,
            "warnings": job.warnings,
        }
    )
    return result


def file_names(job: Job) -> tuple[str, str]:
    """The names of a job's recording and text in answers; the files on disk have others."""
    label = f"{job.pk}_{safe_name(job.recording.original_name)}"
    return f"{label}.wav", f"{label}.txt"


def safe_name(name: str) -> str:
    """A file's name without its extension, made of letters, digits, `_`, `-` and `.` only."""
    stem = re.sub(r"[^\w.-]+", "_", PurePath(name).stem)[:LONGEST_LABEL].strip("._-")
    return stem or "recording"


def _segment_body(index: int, segment: Segment) -> dict[str, Any]:
    result = {"id": index, **segment.to_json(), "text": segment.text.strip()}
    words = result.pop("words")
    if words is not None:
        result["words"] = [{**word, "word": word["word"].strip()} for word in words]
    return result
