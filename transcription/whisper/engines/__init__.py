"""One module an engine; each has an `Engine` class that keeps the promise of `transcription.whisper.engine`."""
