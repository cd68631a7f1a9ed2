"""What models write out by hand becomes one operator, in whatever spelling; the near miss stays."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxquant as fq
from fxquant.ir.aten import named_arguments
from tests.passes.fusion_graphs import core, fuse, fused, operators

ROOT = math.sqrt(2.0)
CONSTANT = math.sqrt(2 / math.pi)
X = (2, 5, 7)

Unary = Callable[[Tensor], Tensor]


class Swish(nn.Module):
    """silu of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.sigmoid(x)
        return y


class HardSwish(nn.Module):
    """hardswish of modules, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + 3.0
        y = self.act(y)
        y /= 6.0
        y *= x
        return y


def erf_in_place(x: Tensor) -> Tensor:
    y = x.div(ROOT).erf_().add_(1.0)
    return y.mul_(x).mul_(0.5)


ACTIVATIONS: list[tuple[str, Unary]] = [
    ("gelu", lambda x: x * 0.5 * (1.0 + torch.erf(x / ROOT))),
    ("gelu", lambda x: 0.5 * x * (torch.erf(x * 0.7071067811865476) + 1)),
    ("gelu", lambda x: (x / 2) * (1 + (x / math.sqrt(2.0)).erf())),
    ("gelu", lambda x: torch.mul(x, 0.5 * torch.add(torch.special.erf(x * 2**-0.5), 1))),
    ("gelu", lambda x: x * (1 + torch.erf(x / torch.tensor(ROOT))) / torch.tensor(2.0)),
    ("gelu", erf_in_place),
    ("gelu", lambda x: 0.5 * x * (1 + torch.tanh(CONSTANT * (x + 0.044715 * torch.pow(x, 3.0))))),
    ("gelu", lambda x: 0.5 * x * (1 + torch.tanh(CONSTANT * (x + 0.044715 * x * x * x)))),
    ("gelu", lambda x: x * 0.5 * (1 + torch.tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))),
    ("silu", lambda x: x * torch.sigmoid(x)),
    ("silu", lambda x: x.sigmoid().mul_(x)),
    ("silu", Swish()),
    ("silu", lambda x: x / (1 + torch.exp(-x))),
    ("sigmoid", lambda x: 1 / (1 + torch.exp(-x))),
    ("sigmoid", lambda x: (1 + (-x).exp()).reciprocal()),
    ("hardswish", lambda x: x * F.relu6(x + 3) / 6),
    ("hardswish", lambda x: x * (F.hardtanh(x + 3, 0.0, 6.0) * (1 / 6))),
    ("hardswish", lambda x: x * ((x + 3).clamp(0, 6) / 6)),
    ("hardswish", lambda x: x * (3 + x).clamp(min=0).clamp(max=6).div(6.0)),
    ("hardswish", lambda x: x * F.hardsigmoid(x)),
    ("hardswish", HardSwish()),
    ("hardsigmoid", lambda x: F.relu6(x + 3) / 6),
    ("hardsigmoid", lambda x: torch.clamp(x / 6 + 0.5, 0, 1)),
    ("hardsigmoid", lambda x: (0.5 + x * (1 / 6)).clamp(0.0, 1.0)),
    ("mish", lambda x: x * torch.tanh(F.softplus(x))),
    ("mish", lambda x: F.softplus(x).tanh() * x),
    ("mish", lambda x: x * torch.tanh(torch.log(1 + torch.exp(x)))),
    ("mish", lambda x: x * torch.log1p(x.exp()).tanh()),
    ("leaky_relu", lambda x: torch.maximum(x, 0.1 * x)),
    ("leaky_relu", lambda x: torch.max(x * 0.2, x)),
    ("relu", lambda x: x.clamp(min=0)),
    ("relu", lambda x: torch.relu(F.relu(x))),
    ("relu6", lambda x: x.clamp(0, 6)),
    ("relu6", lambda x: F.relu(x).clamp(max=6)),
    ("relu6", lambda x: x.clamp_min(0).clamp_max(6)),
    ("clamp", lambda x: x.clamp(-3, 2).clamp(-1, 5)),
]


@pytest.mark.parametrize(("name", "function"), ACTIVATIONS)
def test_an_activation_by_hand(name: str, function: Unary) -> None:
    assert operators(fused(function, X)) == [name]


NEAR_MISSES: list[Unary] = [
    lambda x: x * 0.5 * (1.0 + torch.erf(x / 1.5)),
    lambda x: x * 0.4 * (1.0 + torch.erf(x / ROOT)),
    lambda x: x * 0.5 * (2.0 + torch.erf(x / ROOT)),
    lambda x: x * torch.sigmoid(1.702 * x),
    lambda x: torch.exp(x) * torch.sigmoid(x),
    lambda x: x * F.relu6(x + 3) / 5,
    lambda x: x * F.relu6(x + 2) / 6,
    lambda x: torch.clamp(x / 5 + 0.5, 0, 1),
    lambda x: x * torch.tanh(F.softplus(x, beta=2)),
    lambda x: torch.maximum(x, 1.5 * x),
    lambda x: x.clamp(0, 5),
]


@pytest.mark.parametrize("function", NEAR_MISSES)
def test_what_is_another_function_stays(function: Unary) -> None:
    graph_module = core(function, X)
    assert operators(fuse(graph_module)) == operators(graph_module)


def test_the_tanh_form_of_gelu_is_marked() -> None:
    function = lambda x: 0.5 * x * (1 + torch.tanh(CONSTANT * (x + 0.044715 * x**3)))  # noqa: E731
    (node,) = (n for n in fused(function, X).graph.nodes if n.op == "call_function")
    assert named_arguments(node)["approximate"] == "tanh"


class LayerNorm(nn.Module):
    """A layer norm as models write it, with or without its parameters."""

    def __init__(self, kind: str, affine: bool = True) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.rand(7) + 0.5) if affine else None
        self.bias = nn.Parameter(torch.rand(7)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        if self.kind == "pow":
            y = (x - mean) / torch.sqrt((x - mean).pow(2).mean(dim=2, keepdim=True) + 1e-6)
        elif self.kind == "product":
            y = (x - mean) * torch.rsqrt(((x - mean) * (x - mean)).mean(-1, keepdim=True) + 1e-6)
        elif self.kind == "var":
            y = (x - mean) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6) ** 0.5
        else:
            var, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
            y = (x - mean).div(torch.sqrt(var + 1e-6))
        return y if self.weight is None or self.bias is None else self.weight * y + self.bias


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["pow", "product", "var", "var_mean"])
def test_a_layer_norm_by_hand(kind: str, affine: bool) -> None:
    graph_module = fused(LayerNorm(kind, affine), X)
    assert operators(graph_module) == ["layer_norm"]
    (node,) = (n for n in graph_module.graph.nodes if n.op == "call_function")
    assert named_arguments(node)["eps"] == pytest.approx(1e-6)
    assert (named_arguments(node)["weight"] is not None) == affine


def test_a_layer_norm_over_another_dimension_stays() -> None:
    def over_channels(x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        return (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)

    graph_module = core(over_channels, X)
    assert "layer_norm" not in operators(fuse(graph_module))
    text = fq.explain_match("layer-norm", graph_module)
    assert "layer-norm is refused" in text
    assert "why    with these shapes the pattern has 2, the graph 1" in text


class RmsNorm(nn.Module):
    """As in the models of the Llama family."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(7))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(variance + 1e-6))


RMS_NORMS: list[Unary] = [
    RmsNorm(),
    lambda x: x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5),
    lambda x: x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt(),
    lambda x: x * torch.pow(torch.mean(x**2, dim=-1, keepdim=True) + 1e-5, -0.5),
]


@pytest.mark.parametrize("function", RMS_NORMS)
def test_an_rms_norm_by_hand(function: Unary) -> None:
    assert operators(fused(function, X)) == ["rms_norm"]


ATTENTIONS: list[Callable[..., Tensor]] = [
    lambda q, k, v, m: torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(8), -1) @ v,
    lambda q, k, v, m: (q @ k.mT * 0.125).softmax(dim=-1) @ v,
    lambda q, k, v, m: torch.matmul(F.softmax((q * 0.3) @ k.transpose(2, 3), dim=3), v),
    lambda q, k, v, m: F.softmax(torch.matmul(q, k.transpose(2, 3)) / 8 + m, dim=-1) @ v,
    lambda q, k, v, m: torch.softmax(q @ k.permute(0, 1, 3, 2), 3) @ v,
]


@pytest.mark.parametrize("function", ATTENTIONS)
def test_attention_by_hand(function: Callable[..., Tensor]) -> None:
    shapes = (2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8), (5, 6)
    graph_module = core(function, *shapes)
    assert operators(fuse(graph_module, "attention")) == ["scaled_dot_product_attention"]
    assert "matmul" in operators(fuse(graph_module))


def test_attention_over_the_queries_stays() -> None:
    shapes = (2, 5, 5), (2, 5, 5), (2, 5, 5)
    wrong = core(lambda q, k, v: torch.softmax(q @ k.transpose(1, 2), 1) @ v, *shapes)
    assert "softmax" in operators(fuse(wrong, "attention"))


def test_a_gelu_by_hand_is_quantized_as_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            return y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))

    prepared = fq.prepare(Net(), (torch.randn(4, 8),))
    text = fq.format_graph(prepared)
    assert text.count("@quantizers.") == 4, text  # input, weight, linear, gelu
    assert "%gelu = gelu(%fc_fq)" in text
