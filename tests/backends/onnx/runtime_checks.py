"""One model, or one function, from torch to ONNX Runtime: the check that these tests share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

import fxquant as fq
from fxquant.backends.base import Lowered
from fxquant.backends.onnx.verify import run, session

Model = nn.Module | Callable[..., Any]


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def module_of(model: Model) -> nn.Module:
    """A module in eval mode."""
    return (model if isinstance(model, nn.Module) else Function(model)).eval()


def names_of(lowered: Lowered) -> list[str]:
    """The inputs of the file."""
    return [str(n.target) for n in lowered.graph_module.graph.find_nodes(op="placeholder")]


def run_file(lowered: Lowered, *inputs: Tensor, optimized: bool = False) -> list[Tensor]:
    """The outputs of the file in ONNX Runtime."""
    made = session(lowered.to_bytes(), optimized=optimized)
    return list(run(made, dict(zip(names_of(lowered), inputs, strict=True))).values())


def check(
    model: Model,
    *inputs: Tensor,
    tolerance: float = 1e-5,
    options: Mapping[str, Any] | None = None,
) -> Lowered:
    """Torch, the last graph and ONNX Runtime agree."""
    module = module_of(model)
    with torch.no_grad():
        wanted = tree_leaves(module(*(x.clone() for x in inputs)))
        lowered = fq.compile(module, tuple(inputs), backend="onnx", options=options)
        graph = tree_leaves(lowered.graph_module(*inputs))
    assert_close(graph, wanted, tolerance, "the last graph")
    assert_close(run_file(lowered, *inputs), wanted, tolerance, "ONNX Runtime")
    return lowered


def quantized(
    model: Model, *inputs: Tensor, config: fq.QuantConfig | None = None
) -> tuple[GraphModule, list[tuple[Tensor, ...]]]:
    """The int8 core graph, and the samples that it was calibrated with."""
    torch.manual_seed(3)
    samples = [
        tuple(torch.randn_like(x) if x.is_floating_point() else x for x in inputs) for _ in range(4)
    ]
    prepared = fq.prepare(module_of(model), tuple(inputs), config, backend="onnx")
    fq.calibrate(prepared, [tuple(inputs), *samples], progress=False)
    return fq.convert(prepared), samples


def check_int8(
    model: Model,
    *inputs: Tensor,
    config: fq.QuantConfig | None = None,
    options: Mapping[str, Any] | None = None,
    least: float = 35.0,
) -> Lowered:
    """The simulation, the last graph and ONNX Runtime agree, value by value in the verifier."""
    core, _ = quantized(model, *inputs, config=config)
    lowered = fq.lower(core, "onnx", options=options)
    with torch.no_grad():
        wanted = tree_leaves(core(*inputs))
        found = run_file(lowered, *inputs)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert sqnr(b, a) >= least
    fq.verify(lowered, [inputs]).check()
    return lowered


def sqnr(wanted: Tensor, found: Tensor) -> float:
    """Signal to noise in dB."""
    noise = float((found.double() - wanted.double()).norm())
    return math.inf if noise == 0 else 20 * math.log10(float(wanted.double().norm()) / noise)


def assert_close(
    found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float, what: str
) -> None:
    """Equal shapes, dtypes and, up to a share of the largest magnitude, values."""
    assert len(found) == len(wanted), what
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape, f"{what}: {tuple(a.shape)} instead of {tuple(b.shape)}"
        assert a.dtype == b.dtype, f"{what}: {a.dtype} instead of {b.dtype}"
        if not b.dtype.is_floating_point:
            assert torch.equal(a, b), f"{what}: {a} instead of {b}"
            continue
        finite = b[b.isfinite()]
        scale = max(float(finite.abs().max()) if finite.numel() else 1.0, 1e-30)
        torch.testing.assert_close(
            a, b, rtol=0, atol=tolerance * scale, equal_nan=True, msg=lambda m: f"{what}: {m}"
        )
