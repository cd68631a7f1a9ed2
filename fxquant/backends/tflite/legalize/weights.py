"""Constants on their grids: weights as torch rounds them, biases as the runtime adds them."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from fxquant.ir.aten import named_arguments
from fxquant.ir.edit import tensor_at
from fxquant.ir.types import INT4, Quantization

from .quantized_types import DTYPES, PER_CHANNEL, grid
from .rewriter import Unsupported
from .values import Constant

INT32 = (-(2**31), 2**31 - 1)


def fake_quantized_constant(root: GraphModule, node: Node, value: Constant) -> Constant:
    """A fake-quantized stored tensor as the integers that torch computes with."""
    named = named_arguments(node)
    low, high = int(named["quant_min"]), int(named["quant_max"])
    dtype = _integer_dtype(low, high)
    if node.target is PER_CHANNEL:
        scale, zero_point = tensor_at(root, named["scale"]), tensor_at(root, named["zero_point"])
        axis: int | None = int(named["axis"])
    else:
        kind = grid(node)
        scale, zero_point = torch.tensor([kind.scale]), torch.tensor([kind.zero_point])
        axis = None
    data = _round(value.data.detach(), scale.detach(), zero_point.detach(), axis)
    quantization = Quantization(
        tuple(scale.float().tolist()), tuple(int(z) for z in zero_point.tolist()), axis
    )
    storage = INT4 if (low, high) in {(-8, 7), (-7, 7)} else None
    return Constant(value.name, data.clamp_(low, high).to(dtype), quantization, storage)


def _integer_dtype(low: int, high: int) -> torch.dtype:
    name: Any = DTYPES.get((low, high), "int16" if high > 255 else "int8")
    found = torch.int8 if name == "int4" else getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def _round(
    data: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, axis: int | None
) -> torch.Tensor:
    # torch's kernel multiplies by the float32 reciprocal and rounds half to even.
    shape = [1] * data.dim()
    if axis is not None:
        shape[axis] = -1
    inverse = (1.0 / scale.float()).reshape(shape if data.dim() else ())
    offset = zero_point.reshape(shape if data.dim() else ())
    return torch.round(data * inverse).add_(offset)


def quantized_bias(
    bias: Constant, input_scale: float, weight: Quantization, wide: bool
) -> Constant:
    """A bias in steps of input scale times weight scale.

    Args:
        bias: float values, one a channel.
        input_scale: scale of the layer's input.
        weight: quantization of its weights.
        wide: int64 instead of int32, for 16-bit activations.

    Raises:
        Unsupported: a value needs more than 32 bits.
    """
    scale = torch.tensor(weight.scale, dtype=torch.float32) * torch.tensor(
        input_scale, dtype=torch.float32
    )
    steps = torch.round(bias.data.detach().double() / scale.double())
    if not wide and bool((steps.abs() > INT32[1]).any()):
        raise Unsupported("the bias does not fit into int32 at the scale of input times weights")
    dtype = torch.int64 if wide else torch.int32
    axis = None if weight.axis is None else 0
    count = scale.numel()
    return Constant(
        bias.name, steps.to(dtype), Quantization(tuple(scale.tolist()), (0,) * count, axis)
    )
