"""The errors of tracing: what cannot be followed, in which line, and what to write instead."""

from __future__ import annotations

from typing import Any

from torch._subclasses import fake_tensor

from fxquant.errors import TraceError
from fxquant.ir.source import SourceLocation
from fxquant.tracing.functions import name_of

DATA_ERRORS = (
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
)

_BRANCH = "use torch.where(condition, a, b) instead of branching, or branch on shapes only"
_NUMBER = "keep the value a tensor: torch functions take tensors where they take numbers"
_NUMPY = "write this step with torch functions, or move it out of the model"
_SHAPE = "use torch.where, multiplication by a mask or topk, whose result has a fixed shape"
_STACK = "use torch.stack or torch.cat instead of torch.tensor"

_SHAPE_FIXES = {
    "_pack_padded_sequence": "give the recurrent layer the padded batch, and pick each sequence's "
    "last step afterwards: y[torch.arange(n), lengths - 1]",
}

_READ_FIXES = {
    "__bool__": _BRANCH,
    "is_nonzero": _BRANCH,
    "equal": _BRANCH,
    "allclose": _BRANCH,
    "__contains__": _BRANCH,
    "numpy": _NUMPY,
    "__array__": _NUMPY,
    "__dlpack__": _NUMPY,
    "tolist": _NUMPY,
    "tensor": _STACK,
    "as_tensor": _STACK,
}


def reads_data(func: Any, source: SourceLocation | None) -> TraceError:
    """Python looks at the values of a tensor that differ from call to call."""
    name = name_of(func).strip("_")
    return TraceError(
        f"Python control flow or a Python number depends on the values of a traced tensor ({name})",
        source=str(source) if source else None,
        fix=_READ_FIXES.get(name_of(func), _NUMBER),
    )


def shape_from_data(func: Any, source: SourceLocation | None) -> TraceError:
    """The shape of a result depends on the values of a traced tensor."""
    return TraceError(
        f"the shape of the result depends on the values of a traced tensor ({name_of(func)})",
        source=str(source) if source else None,
        fix=_SHAPE_FIXES.get(name_of(func), _SHAPE),
    )


def cannot_express(what: str, source: SourceLocation | None, fix: str) -> TraceError:
    """Something that a graph has no form for."""
    return TraceError(what, source=str(source) if source else None, fix=fix)
