"""The text of transcripts: exports, edits, search, improvement by a language model."""
