"""A fusion of your own: teach fxquant an activation that a model writes out by hand.

    python examples/custom_fusion.py

The model computes "quick gelu", x * sigmoid(1.702 x), in two spellings. Registered as a pattern
with a replacement, every place of it becomes one scaled silu; `explain_match` says why a place that
looks alike does not. Only public names are used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxquant as fq


def as_silu(x: Tensor, slope: float) -> Tensor:
    """The same values by an operator that targets know."""
    return F.silu(x * slope) / slope


def steep_enough(match: fq.Match) -> bool | str:
    """Whether the place should be rewritten; a text is the reason why not."""
    return match["slope"] > 0 or f"the slope {match['slope']:g} is not positive"


@fq.register_fusion("quick-gelu", replace=as_silu, check=steep_enough)
def quick_gelu(x: Tensor, slope: float = fq.any_float) -> Tensor:
    """The pattern: plain torch. `any_float` stands for whatever number the model has there."""
    return x * torch.sigmoid(x * slope)


class Model(nn.Module):
    """Two layers whose activations are written out, differently."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = torch.sigmoid(1.702 * x) * x
        x = self.second(x)
        gate = x.mul(1.5).sigmoid_()
        return gate.mul_(x)


class Gated(nn.Module):
    """Nearly the same: the gate is read a second time."""

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(1.702 * x)
        return x * gate + gate


def main() -> tuple[str, str]:
    """Print the graph before and after, and why the other model stays; return the last two."""
    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(3, 8)
    traced = fq.trace(model, (x,))
    pipeline = fq.Pipeline.parse("functionalize,fuse-patterns{names=[quick-gelu]}")
    fused = pipeline(traced)
    print(fq.format_graph(traced))
    print(fq.format_graph(fused))
    torch.testing.assert_close(fused(x), model(x))

    reason = fq.explain_match("quick-gelu", fq.trace(Gated(), (x,)))
    print(reason)
    calibration = [(torch.randn(3, 8),) for _ in range(8)]
    lowered = fq.compile(model, (x,), quantize="int8", calibration=calibration, progress=False)
    print("\nin the int8 file:", dict(lowered.report.operators))
    return fq.format_graph(fused), reason


if __name__ == "__main__":
    main()
