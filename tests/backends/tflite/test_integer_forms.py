"""Integer forms that are written only where they are asked for: right in LiteRT, and near float."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fxquant as fq
from fxquant.backends.base import Lowered, Require
from fxquant.backends.tflite.sample_outputs import run_graph
from fxquant.errors import UnsupportedOp

PROMISES: tuple[Require, ...] = ("int8", "uint8", "int16x8")
KERNELS = ("reference", "optimized", "xnnpack")


class Normed(nn.Module):
    """A layer and a normalization, as they stand in a block."""

    def __init__(self, norm: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.layer(x))
        return result


def tokens(norm: nn.Module) -> tuple[nn.Module, list[Tensor]]:
    """Rows whose sizes lie up to ten times apart."""
    torch.manual_seed(0)
    sizes = (torch.rand(5, 4, 16, 1) * 2.3 - 2.3).exp()
    return Normed(norm, nn.Linear(32, 32)).eval(), list(torch.randn(5, 4, 16, 32) * sizes)


def pictures(norm: nn.Module) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, 3, padding=1)
    return Normed(norm, layer).eval(), list(torch.randn(5, 2, 3, 8, 8))


NORMS: dict[str, Callable[[], tuple[nn.Module, list[Tensor]]]] = {
    "layer_norm": lambda: tokens(nn.LayerNorm(32)),
    "rms_norm": lambda: tokens(nn.RMSNorm(32)),
    "group_norm": lambda: pictures(nn.GroupNorm(2, 8)),
    "one group": lambda: pictures(nn.GroupNorm(1, 8)),
    "instance_norm": lambda: pictures(nn.InstanceNorm2d(8, affine=True)),
}
LEAST = {"int8": 24.0, "uint8": 24.0, "int16x8": 40.0}
"""Decibels; with int16 the 8-bit weights of the layer are what is left."""


def randomized(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        if name.startswith("norm."):
            nn.init.normal_(parameter, 1, 0.3)
    return model


def compiled(model: nn.Module, data: Sequence[Any], **options: Any) -> Lowered:
    return fq.compile(model, (data[0],), calibration=data[1:], progress=False, **options)


def decibels(lowered: Lowered, model: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        wanted = model(x)
    (found,) = run_graph(lowered, (x,))
    return 10 * math.log10(float(wanted.square().sum() / (found - wanted).square().sum()))


@pytest.mark.parametrize("require", PROMISES)
@pytest.mark.parametrize("name", NORMS)
def test_a_normalization_in_integers(name: str, require: Require) -> None:
    model, data = NORMS[name]()
    lowered = compiled(randomized(model), data, require=require)
    for kernels in KERNELS:
        fq.verify(lowered, data[:1], kernels=kernels).check()
    assert decibels(lowered, model, data[0]) > LEAST[require]


def test_sixteen_bits_inside_of_an_int8_net_are_as_close_as_float() -> None:
    model, data = tokens(nn.LayerNorm(32))
    wide = fq.QuantConfig(rules=(fq.Rule("int16x8", op="layer_norm"),))
    options = ({"quantize": "int8"}, {"require": "int8"}, {"quantize": wide})
    in_float, narrow, in_wide = (
        decibels(compiled(model, data, **each), model, data[0]) for each in options
    )
    assert narrow < in_float - 2
    assert abs(in_wide - in_float) < 0.5


def test_a_constant_row_is_normalized_to_its_bias() -> None:
    """Variance 0, of which RSQRT would fail."""
    model, data = tokens(nn.LayerNorm(32))
    model.layer = nn.Identity()
    lowered = compiled(model, data, require="int8")
    zeros = torch.zeros_like(data[0])
    fq.verify(lowered, [zeros]).check()
    (found,) = run_graph(lowered, (zeros,))
    assert float(found.abs().max()) < 0.05


class Attention(nn.Module):
    """One head whose queries, keys and values are layers of the input."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x) for layer in self.layers)
        return functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)


@pytest.mark.parametrize(
    ("causal", "require"), [(False, "int8"), (False, "int16x8"), (True, "int16x8")]
)
def test_attention_in_integers(causal: bool, require: Require) -> None:
    torch.manual_seed(0)
    model, data = Attention(causal).eval(), list(torch.randn(5, 2, 8, 16))
    lowered = compiled(model, data, require=require)
    fq.verify(lowered, data[:1]).check()
    assert decibels(lowered, model, data[0]) > LEAST[require]


def test_a_mask_needs_sixteen_bits() -> None:
    model, data = Attention(True).eval(), list(torch.randn(5, 2, 8, 16))
    with pytest.raises(UnsupportedOp, match="a mask needs 16 bits"):
        compiled(model, data, require="int8")
    rule = fq.Rule("int16x8", op="scaled_dot_product_attention")
    wide = fq.QuantConfig(rules=(rule,))
    lowered = compiled(model, data, quantize=wide, require="int16x8", io_dtype="int8")
    assert decibels(lowered, model, data[0]) > LEAST["int8"]


class Quotient(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.relu(x) / (torch.sigmoid(y) + 0.5)


@pytest.mark.parametrize("require", PROMISES)
def test_a_quotient_in_integers(require: Require) -> None:
    torch.manual_seed(0)
    model, data = Quotient().eval(), [(torch.randn(2, 64), torch.randn(2, 64)) for _ in range(4)]
    lowered = fq.compile(model, data[0], require=require, calibration=data, progress=False)
    fq.verify(lowered, data[:1]).check()
    (found,) = run_graph(lowered, data[0])
    torch.testing.assert_close(found, model(*data[0]), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("width", [10, 100])
def test_log_softmax_of_eight_bits(width: int) -> None:
    torch.manual_seed(0)
    data = list(torch.randn(5, 8, width) * 3)
    model = Normed(nn.LogSoftmax(1), nn.Linear(width, width)).eval()
    for require in PROMISES[:2]:
        lowered = compiled(model, data, require=require)
        assert lowered.report.operators["LOG_SOFTMAX"] == 1
        for kernels in ("optimized", "xnnpack"):
            report = fq.verify(lowered, data[:2], kernels=kernels)
            assert report.agreement == 1


def test_roots_of_eight_bits_are_the_very_bytes_of_the_kernel() -> None:
    generator = torch.Generator().manual_seed(0)
    for power in (-3.0, -0.5, 0.3, 2.2):
        x = torch.rand(1, 64, generator=generator) * 10**power + 10**power / 50
        lowered = compiled(All([torch.rsqrt]).eval(), [x, x], require="int8")
        every = torch.arange(-128, 128, dtype=torch.int8)[:64].reshape(1, 64)
        for part in range(4):
            report = fq.verify(lowered, [every + 64 * part], kernels="reference")
            assert report.agreement == 1


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "celu": lambda x: functional.celu(x, 0.7),
    "cos": torch.cos,
    "elu": functional.elu,
    "elu of alpha": lambda x: functional.elu(x, 0.5),
    "erf": torch.erf,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "hardshrink": functional.hardshrink,
    "log_sigmoid": functional.logsigmoid,
    "mish": functional.mish,
    "power": lambda x: x**3,
    "selu": functional.selu,
    "sin": torch.sin,
    "softplus": functional.softplus,
    "softshrink": functional.softshrink,
    "threshold": lambda x: functional.threshold(x, 0.3, -0.5),
}
POSITIVE: dict[str, Callable[[Tensor], Tensor]] = {
    "log": torch.log,
    "log10": torch.log10,
    "log1p": torch.log1p,
    "log2": torch.log2,
    "reciprocal": torch.reciprocal,
    "rsqrt": torch.rsqrt,
    "sqrt": torch.sqrt,
}


class All(nn.Module):
    """Every function of one value, each a result."""

    def __init__(self, functions: Sequence[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> list[Tensor]:
        return [function(x) for function in self.functions]


@pytest.mark.parametrize("require", PROMISES)
@pytest.mark.parametrize("functions", [FUNCTIONS, POSITIVE], ids=["any", "positive"])
def test_functions_of_one_value(
    functions: dict[str, Callable[[Tensor], Tensor]], require: Require
) -> None:
    torch.manual_seed(0)
    data = [torch.randn(1, 2000).clamp(-3, 3) for _ in range(3)]
    if functions is POSITIVE:
        data = [x.abs() + 0.5 for x in data]
    model = All(list(functions.values())).eval()
    lowered = compiled(model, data, require=require)
    fq.verify(lowered, data[:1]).check()
    wanted, found = model(data[0]), run_graph(lowered, (data[0],))
    step = 2.0**-14 if require == "int16x8" else 2.0**-7
    for name, ours, theirs in zip(functions, found, wanted, strict=True):
        slope = 8 * max(1.0, float(theirs.abs().max()))
        error = (ours - theirs).abs().quantile(0.99)  # some functions jump
        assert float(error) < slope * step, name


def test_what_has_no_integer_form_is_refused() -> None:
    torch.manual_seed(0)
    model = Normed(All([torch.floor, torch.sinh]), nn.Linear(8, 8)).eval()
    data = [torch.randn(1, 8) for _ in range(2)]
    with pytest.raises(UnsupportedOp) as caught:
        compiled(model, data, require="int8")
    assert "tflite has no int8 kernel for aten.floor" in str(caught.value)
    assert "tflite has no int8 kernel for aten.sinh" in str(caught.value)
