"""The number that an argument stands for, be it a literal or a stored constant."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.edit import tensor_at
from fxquant.passes.fusion.wildcards import is_number

Scalar = Callable[[object], float | None]


def scalar_in(root: GraphModule) -> Scalar:
    """Reads numbers in a graph: literals, and constants without dimensions that are not trained."""

    def scalar(value: object) -> float | None:
        if not isinstance(value, Node):
            return float(value) if is_number(value) else None  # type: ignore[arg-type]
        if value.op != "get_attr":
            return None
        tensor = tensor_at(root, value)
        plain = tensor.dim() == 0 and not isinstance(tensor, torch.nn.Parameter)
        if not plain or tensor.dtype is torch.bool or tensor.device.type == "meta":
            return None
        number = float(tensor)
        return None if math.isnan(number) else number

    return scalar
