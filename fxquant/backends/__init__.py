"""Targets: what each can compute, and how a graph becomes its file."""
