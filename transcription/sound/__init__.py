"""The sound of recordings: decoding, finding speech, and the times of both."""
