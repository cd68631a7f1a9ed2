"""Functions of one quantized value that have no integer kernel: looked up in a table.

erf(x) int8   ->   i = add(cast(x), 128); gather(@table, i)

The table holds the result's integer for every integer of the operand, rounded once: nothing is
nearer. It has 256 entries for 8 bits and 65,536 (128 KiB) for 16.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect.values import QType
from fxquant.ir.types import Quantization

from .rewriter import NoIntegerForm, Rewriter
from .values import Constant, Value

Function = Callable[[Tensor], Tensor]


def by_table(r: Rewriter, x: Value, function: Function) -> Value:
    """A function of reals for a quantized value, on the grid of the result.

    Raises:
        NoIntegerForm: only integers of one grid can be looked up.
    """
    kind = r.qtype(x)
    if kind is None or r.out is None:
        raise NoIntegerForm("its operand is not on one grid")
    index = r.cast(x, torch.int32)
    low = torch.iinfo(kind.torch_dtype).min
    if low:
        index = r.emit(tfl.add, index, r.scalar(-low, torch.int32))
    return r.emit(tfl.gather, _table(r, kind, r.out, function), index, axis=0)


def _table(r: Rewriter, kind: QType, out: QType, function: Function) -> Constant:
    """The result's integer for each of the operand's; outside of the domain as at its edge."""
    limits, ends = torch.iinfo(kind.torch_dtype), torch.iinfo(out.torch_dtype)
    integers = torch.arange(limits.min, limits.max + 1, dtype=torch.float64)
    reals = function((integers - kind.zero_point) * kind.scale)
    known = reals[~reals.isnan()]
    if not len(known):
        raise NoIntegerForm("no integer of its operand has a result")
    reals = torch.where(reals.isnan(), known[0], reals)
    entries = (torch.round(reals / out.scale) + out.zero_point).clamp(ends.min, ends.max)
    grid = Quantization((out.scale,), (out.zero_point,))
    name = r.constant(0.0, "table").name
    return Constant(name, entries.to(out.torch_dtype), grid)
