"""One spelling for each operation, grouped by family; importing the package registers the rules."""

from fxquant.passes.functional.rules import (
    arithmetic,
    convolution,
    creation,
    indexing,
    joining,
    movement,
    padding,
    pooling,
    reduction,
    resizing,
    whole,
    writing,
)

__all__ = [
    "arithmetic",
    "convolution",
    "creation",
    "indexing",
    "joining",
    "movement",
    "padding",
    "pooling",
    "reduction",
    "resizing",
    "whole",
    "writing",
]
