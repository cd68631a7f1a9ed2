"""The operators of the dialect as one table: everything that the file format wants to know.

    conv_2d      CONV_2D, inputs x, filter, bias; Conv2DOptions; int8 from version 3; needs a bias
    transpose    TRANSPOSE, inputs x, int32[n] perm; no options; result has the scale of x

The versions are the smallest that an old runtime needs, not what this one checks. The kinds are
those that the plain kernels (no delegate) compute rightly. `row.py` explains the columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .row import Row
from .rows.activation import ACTIVATIONS, FUNCTIONS
from .rows.arithmetic import ARITHMETIC, COMPARISONS
from .rows.convolution import CONVOLUTIONS
from .rows.movement import CASTS, MOVEMENT
from .rows.recurrent import RECURRENT
from .rows.reduction import POOLING, REDUCTIONS, RESIZING

ROWS: dict[str, Row] = {
    row.name: row
    for family in (
        CONVOLUTIONS,
        ARITHMETIC,
        COMPARISONS,
        ACTIVATIONS,
        FUNCTIONS,
        POOLING,
        REDUCTIONS,
        RESIZING,
        MOVEMENT,
        CASTS,
        RECURRENT,
    )
    for row in family
}


def row_of(function: Callable[..., Any]) -> Row | None:
    """The row of a function of the dialect; None for `constant`, `bind`, `unbind`.

    >>> from fxquant.backends.tflite.dialect import conv_2d
    >>> row_of(conv_2d).table
    'Conv2DOptions'
    """
    return ROWS.get(getattr(function, "__name__", ""))
