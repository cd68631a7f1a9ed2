"""What TFLite's kernels take as weights, by operator: the `weights` column of the constraint table.

    static    int8 activations      int4 in CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED
    dynamic   float activations     the "hybrid" kernels quantize them by themselves
    stored    through DEQUANTIZE    any operator; XNNPACK unpacks int8 and float16 once, not int4

What is missing here computes wrongly, is rejected, or is slower than float.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch.fx import Node

from fxquant.ir.aten import named_arguments
from fxquant.ir.edit import is_attribute
from fxquant.quant.constraints import Condition, WeightForms


def _grid_dims(node: Node) -> tuple[int, ...]:
    """One grid a sample; one a pixel where XNNPACK computes a convolution as a matrix product."""
    named = named_arguments(node)
    kernel = named["weight"].meta["val"].shape[2:]
    steps = named["stride"]
    plain = all(step == 1 for step in ((steps,) if isinstance(steps, int) else steps))
    spatial = len(kernel)
    if plain and named["groups"] == 1 and all(size == 1 for size in kernel):
        return (-1 - spatial,)
    return tuple(range(-1 - spatial, 0))


STORED = ("int8", "int4", "float16")
INTEGERS = ("int8", "uint8", "int4")

DENSE = WeightForms(static=INTEGERS, dynamic=("int8", "int4"), stored=STORED)
CONVOLVED = WeightForms(static=INTEGERS, dynamic=("int8", "int4"), stored=STORED, dims=_grid_dims)
GROUPED = replace(CONVOLVED, per_channel=("dynamic",))
"""With groups, only XNNPACK is right with one scale a tensor: the builtin kernels are not."""
BATCHED = WeightForms(
    static=("int8", "uint8"),
    stored=STORED,
    reasons=(
        ("dynamic", "BATCH_MATMUL of float and int8 is wrong where there are several batches"),
        ("static int4", "BATCH_MATMUL rejects int4"),
    ),
)
DEPTHWISE = WeightForms(
    static=INTEGERS,
    stored=STORED,
    reasons=(("dynamic", "the kernel for float inputs is slower than DEPTHWISE_CONV_2D in float"),),
)
TRANSPOSED = WeightForms(
    static=("int8", "uint8"),
    dynamic=("int8",),
    stored=STORED,
    reasons=(
        ("static int4", "TRANSPOSE_CONV rejects int4 weights"),
        ("dynamic int4", "TRANSPOSE_CONV rejects int4 weights"),
    ),
)
VOLUMES = WeightForms(
    stored=STORED, reasons=(("dynamic", "the kernels for volumes take only float weights"),)
)
TABLES = WeightForms(
    dynamic=("int8", "int4"),
    stored=STORED,
    reasons=(("static", "EMBEDDING_LOOKUP of integers gives float values"),),
)


def is_depthwise(node: Node) -> bool:
    """Whether every input channel of a convolution has filters of its own."""
    named = named_arguments(node)
    channels = named["input"].meta["val"].shape[1 - named["weight"].meta["val"].dim()]
    return bool(named["groups"] > 1 and named["groups"] == channels)


def is_grouped(node: Node) -> bool:
    """Whether a convolution has groups."""
    return bool(named_arguments(node)["groups"] > 1)


def is_constant_matrix(name: str) -> Condition:
    """Whether a factor is a stored matrix, which makes the product a dense layer."""
    return partial(_holds_matrix, name)


def _holds_matrix(name: str, node: Node) -> bool:
    value = named_arguments(node)[name]
    return is_attribute(value) and value.meta["val"].dim() == 2
