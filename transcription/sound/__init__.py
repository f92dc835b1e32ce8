"""Recordings as sound: decoding, finding speech, and the time of both."""
