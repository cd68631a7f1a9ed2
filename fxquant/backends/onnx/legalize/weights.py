"""Constants on their grids: weights as torch rounds them, biases as a runtime adds them."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from fxquant.backends.lowering.constants import Constant, Value
from fxquant.ir.aten import aten, named_arguments
from fxquant.ir.edit import tensor_at
from fxquant.ir.types import Quantization

from .rewriter import Grid, Rewriter, Unsupported

PER_TENSOR = aten.fake_quantize_per_tensor_affine.default
PER_CHANNEL = aten.fake_quantize_per_channel_affine.default
RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
LARGEST = 2**31 - 1


def dtype_of(low: int, high: int) -> str:
    """The narrowest dtype of a range.

    Raises:
        Unsupported: there is none.
    """
    for name, (least, most) in RANGES.items():
        if least <= low and high <= most:
            return name
    raise Unsupported(f"no dtype holds the integers from {low} to {high}")


def grid_of(node: Node, opset: int) -> Grid:
    """The grid of a per-tensor fake-quantize node."""
    named = named_arguments(node)
    name = dtype_of(int(named["quant_min"]), int(named["quant_max"]))
    if name == "int16" and opset < 21:
        raise Unsupported("int16 activations need opset 21 or later")
    return Grid(float(named["scale"]), int(named["zero_point"]), name)


def fake_quantized_constant(root: GraphModule, node: Node, value: Constant) -> Constant:
    """A fake-quantized stored tensor as the integers that torch computes with."""
    named = named_arguments(node)
    low, high = int(named["quant_min"]), int(named["quant_max"])
    if node.target is PER_CHANNEL:
        scale = tensor_at(root, named["scale"]).detach()
        zero_point = tensor_at(root, named["zero_point"]).detach()
        axis: int | None = int(named["axis"])
    else:
        scale = torch.tensor([named["scale"]], dtype=torch.float32)
        zero_point, axis = torch.tensor([named["zero_point"]]), None
    shape = [1] * value.data.dim()
    if axis is not None:
        shape[axis] = -1
    steps = torch.round(value.data.detach() * (1.0 / scale.float()).reshape(shape))
    integers = (steps + zero_point.reshape(shape)).clamp(low, high)
    meaning = Quantization(
        tuple(scale.float().tolist()), tuple(int(each) for each in zero_point.tolist()), axis
    )
    return Constant(value.name, integers.to(getattr(torch, dtype_of(low, high))), meaning)


def bias_of(
    r: Rewriter, x: Value, weight: Value, bias: Value | None, groups: int = 1
) -> Value | None:
    """The bias of a layer: int32 in steps of input scale times weight scale, where both have one.

    Args:
        r: builds the graph.
        x: the layer's input.
        weight: its weights.
        bias: float values, one a channel.
        groups: how often the scales repeat along the channels.
    """
    grid = r.grids.get(x) if isinstance(x, Node) else None
    if not isinstance(bias, Constant) or not isinstance(weight, Constant) or r.float_bias:
        return bias
    if grid is None or grid.dtype == "int16" or weight.quantization is None:
        return bias
    per_channel = weight.quantization.axis is not None
    input_scale = torch.tensor(grid.scale, dtype=torch.float32)
    scale = (torch.tensor(weight.quantization.scale) * input_scale).repeat(
        groups if per_channel else 1
    )
    steps = torch.round(bias.data.detach().double() / scale.double())
    if bool((steps.abs() > LARGEST).any()):
        return bias  # a float bias is always right
    meaning = Quantization(tuple(scale.tolist()), (0,) * scale.numel(), 0 if per_channel else None)
    return Constant(bias.name, steps.to(torch.int32), meaning)
