"""Connections to other machines: where they may go, and one POST within one deadline."""
