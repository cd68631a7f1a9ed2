"""Rewrites of the tfl dialect, one a file."""
