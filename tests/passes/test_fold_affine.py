"""Constants around a layer go into its weights, and only where that is the same function."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.passes.fold_affine import FoldAffine
from fxquant.passes.instruments import Lint, instruments
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.validation import Validate
from tests.conftest import Golden
from tests.passes.fusion_graphs import core, operators


class Around(nn.Module):
    """A function of a layer's result and a constant of some shape."""

    def __init__(
        self, layer: nn.Module, shape: tuple[int, ...], call: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.layer, self.call = layer, call
        self.register_buffer("constant", torch.rand(shape) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.constant, Tensor)
        return self.call(self.layer(x), self.constant)


CONV, FC = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(6, 4)
UP = nn.ConvTranspose2d(3, 4, 3, groups=1)
CALLS: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda y, c: y + c,
    lambda y, c: c + y,
    lambda y, c: y - c,
    lambda y, c: y * c,
    lambda y, c: y / c,
    lambda y, c: 2 - y * 3,
    lambda y, c: (y - c) / 0.5 * c + 1,
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (CONV, (4, 1, 1)),
        (CONV, (1, 4, 1, 1)),
        (CONV, (1,)),
        (CONV, ()),
        (UP, (1, 4, 1, 1)),
        (FC, (4,)),
        (FC, (1, 1, 1, 4)),
    ],
)
def test_a_constant_around_a_layer(
    layer: nn.Module, shape: tuple[int, ...], call: Callable[[Tensor, Tensor], Tensor]
) -> None:
    model = Around(layer, shape, call)
    graph_module = core(model, (2, 3, 6, 6))
    with instruments(Validate(), Lint()):
        folded = Pipeline((FoldAffine(),))(graph_module)
    assert len(operators(folded)) == 1
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "call"),
    [
        ((4,), lambda y, c: y + c),  # along the last dimension, not the channels
        ((2, 1, 1, 1), lambda y, c: y + c),
        ((4, 1, 1), lambda y, c: y * c + y),
        ((4, 1, 1), lambda y, c: c - y),
        ((1, 1, 4, 1, 1), lambda y, c: y + c),
        ((4, 1, 1), lambda y, c: y * c.double()),
    ],
)
def test_other_constants_stay(
    shape: tuple[int, ...], call: Callable[[Tensor, Tensor], Tensor]
) -> None:
    graph_module = core(Around(nn.Conv2d(3, 4, 3), shape, call), (2, 3, 6, 6))
    folded = Pipeline((FoldAffine(),))(graph_module)
    assert operators(folded) == operators(graph_module)


class HandWrittenBatchNorm(nn.Module):
    """A batch norm in eval mode, in plain arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        for name in ("mean", "var", "gamma", "beta"):
            self.register_buffer(name, torch.rand(4) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        parts = (getattr(self, name).view(1, -1, 1, 1) for name in ("mean", "var", "gamma", "beta"))
        mean, var, gamma, beta = parts
        y: Tensor = (self.conv(x) - mean) / torch.sqrt(var + 1e-5) * gamma + beta
        return y


def test_a_batch_norm_by_hand_folds_in_the_default_pipeline(golden: Golden) -> None:
    torch.manual_seed(0)
    graph_module = fq.trace(HandWrittenBatchNorm(), (torch.zeros(1, 3, 6, 6),))
    with instruments(Validate(), Lint()):
        folded = fq.Pipeline.default("float")(graph_module)
    golden("fold-affine", f"{fq.format_graph(graph_module)}\n{fq.format_graph(folded)}")
    assert operators(folded) == ["conv2d"]
