"""Engines that are broken on purpose."""
