"""One model, or one function, from torch to LiteRT: the check that the tests of rules share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from fxquant.backends.tflite.constraints import TABLE
from fxquant.backends.tflite.interpreter import Kernels, LiteRT
from fxquant.backends.tflite.legalize import LegalizeTflite
from fxquant.backends.tflite.passes.fold_tfl_constants import FoldTflConstants
from fxquant.backends.tflite.passes.fuse_activation import FuseActivation
from fxquant.backends.tflite.passes.merge_pads import MergePads
from fxquant.backends.tflite.serialize import serialize
from fxquant.ir.state import state_of
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from fxquant.tracing import trace

TAIL = Pipeline((FoldTflConstants(), FuseActivation(), MergePads()))
KERNELS: tuple[Kernels, ...] = ("optimized", "xnnpack")


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def after_convolution(model: nn.Module | Callable[..., Any], channels: int = 8) -> nn.Module:
    """A model behind a convolution, so that what comes to it is int8."""
    torch.manual_seed(5)
    rest = model if isinstance(model, nn.Module) else Function(model)
    return nn.Sequential(nn.Conv2d(4, channels, 1), rest)


def module_of(model: nn.Module | Callable[..., Any]) -> nn.Module:
    """A module in eval mode."""
    return (model if isinstance(model, nn.Module) else Function(model)).eval()


def core_of(model: nn.Module | Callable[..., Any], *inputs: Tensor) -> GraphModule:
    """The float core graph."""
    return Pipeline.default("float")(trace(module_of(model), inputs))


def legalized(model: nn.Module | Callable[..., Any], *inputs: Tensor) -> GraphModule:
    """The tfl graph right after `legalize-tflite`."""
    return Pipeline((LegalizeTflite(),))(core_of(model, *inputs))


def quantized_core(
    model: nn.Module | Callable[..., Any],
    *inputs: Tensor,
    samples: Sequence[tuple[Tensor, ...]] = (),
    precision: str = "int8",
) -> GraphModule:
    """The quantized core graph, calibrated on the samples."""
    graph_module = trace(module_of(model), inputs)
    state = state_of(graph_module)
    # What calibration corrects is tested elsewhere; here the weights stay what the model has.
    config = QuantConfig(precision, equalize=False, correct_bias=False)
    state.target, state.constraints, state.config = "tflite", TABLE, config
    prepared = Pipeline.default("ptq")(graph_module)
    calibrate(prepared, list(samples) or [inputs], progress=False)
    return Pipeline.default("freeze")(prepared)


def check(
    model: nn.Module | Callable[..., Any],
    *inputs: Tensor,
    tolerance: float = 2e-6,
    kernels: Sequence[Kernels] = KERNELS,
) -> GraphModule:
    """Torch, the tfl graph and LiteRT agree in float; the final tfl graph is returned."""
    module = module_of(model)
    with torch.no_grad():
        wanted = flat(module(*inputs))
        first = legalized(module, *inputs)
        assert_close(flat(first(*inputs)), wanted, tolerance, "the tfl graph")
        final = TAIL(first)
        assert_close(flat(final(*inputs)), wanted, tolerance, "the final graph")
    for name in kernels:
        assert_close(run(final, name, inputs), wanted, tolerance, f"LiteRT {name}")
    return final


def check_int8(
    model: nn.Module | Callable[..., Any],
    *inputs: Tensor,
    steps: float = 1.01,
    kernels: Sequence[Kernels] = ("reference",),
    options: LegalizeTflite | None = None,
    equal: float = 0.0,
    precision: str = "int8",
) -> GraphModule:
    """Simulation, tfl graph and LiteRT: equal between the last two, near the first."""
    torch.manual_seed(3)
    samples = [
        tuple(torch.randn_like(x) if x.is_floating_point() else x for x in inputs) for _ in range(4)
    ]
    core = quantized_core(model, *inputs, samples=[inputs, *samples], precision=precision)
    with torch.no_grad():
        wanted = flat(core(*inputs))
        final = TAIL(Pipeline((options or LegalizeTflite(),))(core))
        found = flat(final(*inputs))
    step = largest_step(core)
    for a, b in zip(found, wanted, strict=True):
        error = float((a.double() - b.double()).abs().max())
        assert error <= steps * step, f"{error / step:.2f} steps from the simulation"
    for name in kernels:
        assert_close(run(final, name, inputs), found, equal, f"LiteRT {name}")
    return final


def largest_step(core: GraphModule) -> float:
    """The coarsest grid of activations in a frozen graph."""
    fake_quantize = torch.ops.aten.fake_quantize_per_tensor_affine.default
    nodes = [node for node in core.graph.nodes if node.target is fake_quantize]
    return max(float(node.args[1]) for node in nodes)


def run(final: GraphModule, kernels: Kernels, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of the written file in LiteRT."""
    with LiteRT(serialize(final), kernels=kernels) as runtime:
        arrays = [np.ascontiguousarray(x.numpy()) for x in inputs]
        return [torch.from_numpy(np.array(y)) for y in runtime.run(arrays).values()]


def flat(result: Any) -> list[Tensor]:
    """The tensors of a result."""
    if isinstance(result, Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result
    return [tensor for part in parts for tensor in flat(part)]


def assert_close(
    found: Sequence[Tensor], wanted: Sequence[Tensor], tolerance: float, what: str
) -> None:
    """Equal shapes, dtypes and, up to a share of the largest magnitude, values."""
    assert len(found) == len(wanted), what
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape, f"{what}: {tuple(a.shape)} instead of {tuple(b.shape)}"
        assert a.dtype == b.dtype, f"{what}: {a.dtype} instead of {b.dtype}"
        if b.dtype.is_floating_point:
            finite = b[b.isfinite()]
            scale = max(float(finite.abs().max()) if finite.numel() else 1.0, 1e-30)
            torch.testing.assert_close(
                a, b, rtol=0, atol=tolerance * scale, equal_nan=True, msg=lambda m: f"{what}: {m}"
            )
        else:
            assert torch.equal(a, b), f"{what}: {a} instead of {b}"
