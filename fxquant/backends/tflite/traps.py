"""What must not be written: forms that load, but crash or compute something else.

    conv_2d(x, w, None)                   the kernel needs a bias: give one of zeros
    i8<0.1,300>[1,4]                      zero point 300 is not an int8
    fully_connected(f16 DEQUANTIZE, …)    fine, but not as the graph's output

The forms of single operators are columns of the dialect's table (`refusals`, `same_scale`,
`fixed`, `kinds`); the rules here are those that hold for every tensor. `refuse` gives all
problems of a graph in one error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.fx import Node

from fxquant.backends.tflite.dialect.row import Call
from fxquant.errors import Problem, UnsupportedOp
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.types import TensorType

MOST_DIMENSIONS = 8
_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


def problems_of(node: Node, call: Call) -> list[Problem]:
    """Why this use of an operator must not be written; empty when it may."""
    reasons = [
        *call.refused(),
        *(_at_result(text) for kind in call.results for text in faults(kind)),
    ]
    return [problem(node, reason) for reason in dict.fromkeys(reasons)]


def output_problems(node: Node, type_of: Callable[[Node], TensorType]) -> list[Problem]:
    """Why a value must not be an output of the file."""
    source = node.args[0] if node.args else None
    name = getattr(node.target, "__name__", "")
    if name != "dequantize" or not isinstance(source, Node):
        return []
    if type_of(source).dtype != torch.float16:
        return []
    return [problem(node, "XNNPACK cannot run a DEQUANTIZE of 16-bit floats that is an output")]


def problem(node: Node, reason: str) -> Problem:
    """A reason with the node and the user's line."""
    return Problem(reason, node=format_node(node), source=source_text(node))


def refuse(problems: Sequence[Problem]) -> None:
    """Raise one error for all problems; nothing when there are none.

    Raises:
        UnsupportedOp: something must not be written.
    """
    if problems:
        several = "s" if len(problems) > 1 else ""
        raise UnsupportedOp(
            f"tflite cannot run {len(problems)} operation{several} of this graph as written",
            problems=problems,
        )


def faults(kind: TensorType) -> list[str]:
    """What no tensor of a file may have.

    >>> from fxquant.ir.types import Quantization
    >>> faults(TensorType((1, 4), torch.int8, Quantization((0.1,), (300,))))
    ['the zero point 300 is outside of int8']
    """
    return [text for rule in TENSOR_RULES for text in [rule(kind)] if text]


def _too_many_dimensions(kind: TensorType) -> str:
    if len(kind.shape) <= MOST_DIMENSIONS:
        return ""
    return f"{len(kind.shape)} dimensions are more than the {MOST_DIMENSIONS} of the kernels"


def _zero_point_outside(kind: TensorType) -> str:
    if kind.quantization is None or kind.dtype not in _INTEGERS:
        return ""
    limits = torch.iinfo(kind.dtype)
    points = set(kind.quantization.zero_point)
    wrong = sorted(point for point in points if not limits.min <= point <= limits.max)
    name = str(kind.dtype).removeprefix("torch.")
    return f"the zero point {wrong[0]} is outside of {name}" if wrong else ""


def _bad_scale(kind: TensorType) -> str:
    """One such channel makes XNNPACK refuse the whole model."""
    scales = set(kind.quantization.scale) if kind.quantization else set()
    wrong = [scale for scale in scales if not 0 < scale < math.inf]  # true for NaN, too
    return f"the scale {wrong[0]} is not above 0 and finite" if wrong else ""


def _scales_and_channels(kind: TensorType) -> str:
    quantization = kind.quantization
    if quantization is None or len(quantization.scale) == 1:
        return ""
    axis = quantization.axis or 0
    channels = kind.shape[axis] if axis < len(kind.shape) else 0
    if len(quantization.scale) == channels:
        return ""
    return f"{len(quantization.scale)} scales for {channels} channels along axis {axis}"


def _int16_not_symmetric(kind: TensorType) -> str:
    quantization = kind.quantization
    if quantization is None or kind.dtype not in (torch.int16, torch.int32, torch.int64):
        return ""
    return "" if not any(quantization.zero_point) else "the zero point of wide integers must be 0"


def _at_result(text: str) -> str:
    return f"the result cannot be stored: {text}"


TENSOR_RULES: tuple[Callable[[TensorType], str], ...] = (
    _too_many_dimensions,
    _zero_point_outside,
    _bad_scale,
    _scales_and_channels,
    _int16_not_symmetric,
)
