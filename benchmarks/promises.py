"""Of which operators can files of nothing but integers be made? One small net for each operator.

    python -m benchmarks.promises [--require int8,int16x8]

A dense layer, the operator, and LiteRT: *kept* where the file holds no float and computes what is
simulated, else what stands in the way.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import fxquant as fq
from fxquant.backends.base import Require

Function = Callable[..., Any]

LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "group_norm": lambda: nn.GroupNorm(2, 8),
    "instance_norm": lambda: nn.InstanceNorm1d(8),
    "layer_norm": lambda: nn.LayerNorm(16),
    "rms_norm": lambda: nn.RMSNorm(16),
    "prelu": nn.PReLU,
    "lstm": lambda: nn.LSTM(16, 16, batch_first=True),
    "gru": lambda: nn.GRU(16, 16, batch_first=True),
    "attention": lambda: nn.MultiheadAttention(16, 2, batch_first=True),
}
TORCH = """
abs cos erf exp floor neg round sign sin sigmoid square tanh trunc sinh atan
"""
FUNCTIONAL = """
celu elu gelu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu relu6 selu silu
softplus softshrink softsign
"""
FUNCTIONS: Mapping[str, Function] = {
    **{name: getattr(torch, name) for name in TORCH.split()},
    **{name: getattr(F, name) for name in FUNCTIONAL.split()},
    "amax": lambda x: x.amax(-1),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "cumsum": lambda x: x.cumsum(-1),
    "div": lambda x: x / (x.abs() + 1),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "glu": F.glu,
    "log": lambda x: torch.log(x.abs() + 0.5),
    "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1),
    "masked_fill": lambda x: x.masked_fill(torch.eye(8, 16).bool(), 0.0),
    "max of two": lambda x: torch.maximum(x, -x),
    "mean": lambda x: x.mean(-1),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "pow": lambda x: x**3,
    "reciprocal": lambda x: torch.reciprocal(x.abs() + 0.5),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.5),
    "softmax": lambda x: x.softmax(-1),
    "sort": lambda x: x.sort(-1).values,
    "sqrt": lambda x: torch.sqrt(x.abs()),
    "std": lambda x: x.std(-1),
    "sum": lambda x: x.sum(-1),
    "topk": lambda x: x.topk(3, -1).values,
    "var": lambda x: x.var(-1),
    "where": lambda x: torch.where(x > 0, x, x * 2),
}


class One(nn.Module):
    """A dense layer and one operator."""

    def __init__(self, operator: nn.Module | Function) -> None:
        super().__init__()
        self.layer, self.operator = nn.Linear(16, 16), operator

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        attends = isinstance(self.operator, nn.MultiheadAttention)
        result = self.operator(x, x, x) if attends else self.operator(x)
        first: Tensor = result[0] if isinstance(result, tuple) else result
        return first


def answer(name: str, require: Require) -> str:
    """Whether the promise can be kept for an operator; if not, the first thing in the way."""
    torch.manual_seed(0)
    model = One(LAYERS[name]() if name in LAYERS else FUNCTIONS[name]).eval()
    data = [torch.randn(2, 8, 16) for _ in range(4)]
    try:
        lowered = fq.compile(model, (data[0],), require=require, calibration=data, progress=False)
        fq.verify(lowered, data[:1], kernels="xnnpack").check()
    except fq.FxquantError as error:
        return error.problems[0].what if error.problems else str(error).splitlines()[0]
    return "kept"


def main(arguments: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Prints the table; gives the answers by operator."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--require", default="int8,int16x8")
    parser.add_argument("--operators", default=",".join(sorted({*LAYERS, *FUNCTIONS})))
    given = parser.parse_args(arguments)
    promises: list[Require] = given.require.split(",")
    table = Table("operator", *(f'require="{each}"' for each in promises))
    answers = {}
    for name in given.operators.split(","):
        answers[name] = [answer(name, each) for each in promises]
        table.add_row(name, *answers[name])
    Console(width=150).print(table)
    return answers


if __name__ == "__main__":
    main()
