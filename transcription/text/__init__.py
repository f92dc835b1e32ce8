"""Transcripts as text: exports, edits, search, improvement by a language model."""
