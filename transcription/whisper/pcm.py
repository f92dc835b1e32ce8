"""Decoded sound as it lies on disk: 16 kHz, mono, signed 16-bit little-endian samples without a header."""

SAMPLE_RATE = 16000
BYTES_A_SAMPLE = 2
BYTES_A_SECOND = SAMPLE_RATE * BYTES_A_SAMPLE
