"""Endpoints that other programs know: OpenAI's, whisper-asr-webservice's, the compatibility API."""
