"""Fusion patterns: written as torch functions, found by one walk over the core graph."""
