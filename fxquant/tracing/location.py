"""Which line of the user's code is running: the innermost frame that is not torch's or ours."""

from __future__ import annotations

import os
import sys

import torch

from fxquant.ir.source import SourceLocation

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_INTERNAL: dict[str, bool] = {}


def _internal(file: str) -> bool:
    known = _INTERNAL.get(file)
    if known is None:
        known = file.startswith((_OURS, _TORCH, "<frozen", "<eval_with_key>"))
        _INTERNAL[file] = known
    return known


def user_location(module: str, call: int | None = None) -> SourceLocation | None:
    """The user's line that called into torch, and the module and the call that it runs in."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not _internal(file):
            return SourceLocation(file, frame.f_lineno, module, call)
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def raised_at(error: BaseException) -> SourceLocation | None:
    """The innermost line of the user's code in the traceback of an error."""
    found = None
    step = error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if not _internal(file):
            found = SourceLocation(file, step.tb_lineno)
        step = step.tb_next
    return found


def called_from(file_end: str, depth: int = 8) -> bool:
    """Whether one of the nearest frames runs code of a file with that ending."""
    frame = sys._getframe(1)
    for _ in range(depth):
        if frame.f_code.co_filename.endswith(file_end):
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
