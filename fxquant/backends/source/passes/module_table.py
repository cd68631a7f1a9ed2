"""Functions that have a module of the same meaning, as a table.

F.leaky_relu(x, 0.1)   ->  nn.LeakyReLU(negative_slope=0.1)(x)
x.softmax(-1)          ->  nn.Softmax(dim=-1)(x)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.fx import Node

from fxquant.ir.aten import packet_name


@dataclass(frozen=True)
class ModuleRow:
    """A module and how a function's arguments become its own.

    Attributes:
        module: the class.
        arguments: the function's parameters after the first, in order; None for one that must be
            left at its default.
        names: parameters that the constructor calls otherwise.
        always: what the constructor is given whatever the call says.
    """

    module: type[nn.Module]
    arguments: tuple[str | None, ...] = ()
    names: Mapping[str, str] | None = None
    always: Mapping[str, Any] | None = None

    def options(self, node: Node) -> dict[str, Any] | None:
        """What the constructor is given for a call; None where the module cannot say it."""
        if len(node.args) - 1 > len(self.arguments):
            return None
        given = dict(zip(self.arguments, node.args[1:], strict=False))
        given |= node.kwargs  # type: ignore[arg-type]
        result: dict[str, Any] = dict(self.always or {})
        for name, value in given.items():
            if name is None or name not in self.arguments or isinstance(value, Node):
                if value is None or value is False:
                    continue
                return None
            result[(self.names or {}).get(name, name)] = value
        return result


POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")

ROWS: Mapping[str, ModuleRow] = {
    "relu": ModuleRow(nn.ReLU, ("inplace",)),
    "relu_": ModuleRow(nn.ReLU, always={"inplace": True}),
    "relu6": ModuleRow(nn.ReLU6, ("inplace",)),
    "leaky_relu": ModuleRow(nn.LeakyReLU, ("negative_slope", "inplace")),
    "elu": ModuleRow(nn.ELU, ("alpha", "inplace")),
    "hardswish": ModuleRow(nn.Hardswish, ("inplace",)),
    "hardsigmoid": ModuleRow(nn.Hardsigmoid, ("inplace",)),
    "hardtanh": ModuleRow(nn.Hardtanh, ("min_val", "max_val", "inplace")),
    "silu": ModuleRow(nn.SiLU, ("inplace",)),
    "mish": ModuleRow(nn.Mish, ("inplace",)),
    "gelu": ModuleRow(nn.GELU, ("approximate",)),
    "sigmoid": ModuleRow(nn.Sigmoid),
    "tanh": ModuleRow(nn.Tanh),
    "softplus": ModuleRow(nn.Softplus, ("beta", "threshold")),
    "glu": ModuleRow(nn.GLU, ("dim",)),
    "softmax": ModuleRow(nn.Softmax, ("dim", None, None)),
    "log_softmax": ModuleRow(nn.LogSoftmax, ("dim", None, None)),
    "max_pool2d": ModuleRow(nn.MaxPool2d, POOL),
    "avg_pool2d": ModuleRow(nn.AvgPool2d, AVERAGE),
    "adaptive_avg_pool2d": ModuleRow(nn.AdaptiveAvgPool2d, ("output_size",)),
}
"""Functions and methods of one tensor by name; no method of another meaning shares a name."""

FLOAT_FUNCTIONAL: Mapping[str, str] = {
    "add": "add",
    "add_": "add",
    "sub": "sub",
    "sub_": "sub",
    "mul": "mul",
    "mul_": "mul",
    "multiply": "mul",
    "div": "div",
    "div_": "div",
    "truediv": "div",
    "true_divide": "div",
    "matmul": "matmul",
    "cat": "cat",
    "concat": "cat",
    "stack": "stack",
}
"""Functions and methods of several tensors, and the operation of `FloatFunctional`."""

JOINS = frozenset({"cat", "stack"})
SCALARS = frozenset({"add", "sub", "mul", "div"})


def called(node: Node) -> str:
    """The name of the function or the method that a node calls; empty for anything else.

    Python's in-place operators are recorded as methods, so `iadd` does not occur.
    """
    if node.op == "call_method":
        return str(node.target)
    return packet_name(node.target) if node.op == "call_function" else ""
