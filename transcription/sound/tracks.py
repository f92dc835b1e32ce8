"""Which of a recording's streams of sound is decoded."""

from collections.abc import Sequence

from transcription import errors
from transcription.sound.audio import Track
from transcription.whisper.options import language_code


def in_order(tracks: Sequence[Track], wanted: int | str | None) -> list[int]:
    """The numbers of the tracks that are wanted, those that a player plays first.

    `wanted` is a track's number or its language; None takes all of them. Raises NoSuchTrack.
    """
    key = code(wanted) if isinstance(wanted, str) else wanted
    matching = [track for track in tracks if key is None or key in (track.number, code(track.language))]
    if tracks and not matching:
        raise errors.NoSuchTrack(wanted=wanted, tracks="; ".join(map(str, tracks)))
    return [track.number for track in sorted(matching, key=lambda track: (not track.is_default, track.number))]


def code(language: str) -> str:
    """A language's code in this program for a name or for a code of three letters, which stays where it has none."""
    name = language.strip().lower()
    try:
        return language_code(name) or name
    except ValueError:
        return name
