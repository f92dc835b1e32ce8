"""One module an engine. Each has a class `Engine` that follows the protocol in `transcription.whisper.engine`."""
