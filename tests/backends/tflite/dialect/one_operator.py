"""Files of one operator: the dialect's function against LiteRT, byte by byte.

both = run_tfl(tfl.add, quantized_input(...), quantized_input(...), out=QType("int8", 0.1, 0))
both.assert_equal()
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.fx import Node

from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QTensor, QType
from fxquant.backends.tflite.interpreter import LiteRT
from fxquant.backends.tflite.kernels.selection import Kernels
from fxquant.backends.tflite.serialize import serialize
from tests.backends.tflite.hand_graph import HandGraph

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Stored:
    """An operand that the file stores; every other tensor is an input of the graph."""

    value: Tensor | QTensor


@dataclass(frozen=True)
class Both:
    """The results of the dialect and of LiteRT."""

    simulated: list[Array]
    executed: list[Array]

    def assert_equal(self) -> None:
        """Every element the same."""
        for expected, found in zip(self.simulated, self.executed, strict=True):
            assert expected.dtype == found.dtype
            np.testing.assert_array_equal(expected, found)

    def assert_close(self, relative: float = 1e-5) -> None:
        """Every element within a share of the greatest magnitude."""
        for expected, found in zip(self.simulated, self.executed, strict=True):
            assert expected.shape == found.shape
            bound = relative * max(1e-6, float(np.abs(found).max(initial=0.0)))
            np.testing.assert_allclose(expected, found, rtol=relative, atol=bound)

    def steps(self) -> tuple[float, int]:
        """The share of elements that differ, and the largest difference."""
        pairs = zip(self.simulated, self.executed, strict=True)
        gaps = np.concatenate(
            [np.abs(a.astype(np.int64) - b.astype(np.int64)).ravel() for a, b in pairs]
        )
        return float((gaps != 0).mean()), int(gaps.max(initial=0))


def run_tfl(
    function: Callable[..., Any],
    *operands: Any,
    kernels: Kernels = "reference",
    isolate: bool = False,
    **options: Any,
) -> Both:
    """One use of an operator, in the dialect and in a file that LiteRT runs."""
    graph = HandGraph()
    feeds: dict[str, Array] = {}
    with tfl.use_kernels(kernels):
        nodes = [_operand(graph, feeds, operand) for operand in operands]
        result = graph.call(function, *nodes, **options)
        values = graph.values[result]
        several = isinstance(values, list)
        results = [graph.part(result, n) for n in range(len(values))] if several else [result]
        graph_module = graph.finish(*results)
        simulated = graph_module(*map(torch.from_numpy, feeds.values()))
    with LiteRT(serialize(graph_module), kernels=kernels, isolate=isolate) as runtime:
        executed = runtime.run(feeds)
    return Both([tensor.numpy() for tensor in simulated], list(executed.values()))


def _operand(graph: HandGraph, feeds: dict[str, Array], operand: Any) -> Any:
    name = f"operand_{len(graph.values)}"
    if isinstance(operand, Stored):
        return _stored(graph, name, operand.value)
    if isinstance(operand, QTensor):
        feeds[name] = operand.values.numpy()
        return graph.input(name, operand.values, operand.qtype)
    if isinstance(operand, Tensor):
        feeds[name] = operand.numpy()
        return graph.input(name, operand)
    if isinstance(operand, list):
        return [_operand(graph, feeds, part) for part in operand]
    return operand


def _stored(graph: HandGraph, name: str, value: Tensor | QTensor) -> Node:
    if isinstance(value, Tensor):
        return graph.stored(name, value)
    scales, zeros = value.scale.tolist(), value.zero_point.tolist()
    return graph.constant(name, value.values, scales, zeros, value.axis, value.storage)


class Draw:
    """Random operands, the same for the same seed; the extremes of the range always occur."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def number(self, low: float, high: float) -> float:
        """A number between the bounds, even in the logarithm where both are positive."""
        share = float(torch.rand((), generator=self.generator))
        if low > 0:
            return float(np.float32(low * (high / low) ** share))
        return float(np.float32(low + share * (high - low)))

    def integer(self, low: int, high: int) -> int:
        """An integer of [low, high]."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def real(self, *shape: int, spread: float = 1.0) -> Tensor:
        """Normal floats."""
        return torch.randn(shape, generator=self.generator) * spread

    def integers(self, *shape: int, dtype: torch.dtype = torch.int8) -> Tensor:
        """Integers over the whole range."""
        limits = torch.iinfo(dtype)
        low, high = max(limits.min, -(2**31)), min(limits.max, 2**31 - 1)
        values = torch.randint(low, high + 1, shape, generator=self.generator).to(dtype)
        flat = values.view(-1)
        flat[: flat.numel() // 8 : 2], flat[1 : flat.numel() // 8 : 2] = low, high
        return values

    def value(
        self,
        *shape: int,
        dtype: torch.dtype = torch.int8,
        scale: float | None = None,
        zero_point: int | None = None,
    ) -> QTensor:
        """Integers with one scale and zero point."""
        limits = torch.iinfo(dtype)
        wide = dtype == torch.int16
        found = scale or self.number(0.005, 0.1) * (1 / 256 if wide else 1)
        zero = self.integer(limits.min, limits.max) if zero_point is None else zero_point
        out = QType(str(dtype).removeprefix("torch."), found, 0 if wide else zero)
        return tfl.bind(self.integers(*shape, dtype=dtype), out=out)

    def weights(self, *shape: int, axis: int | None, channels: int) -> QTensor:
        """int8 weights without zero point, one scale or one per channel."""
        values = self.integers(*shape).clamp(min=-127)
        count = 1 if axis is None else channels
        scales = torch.tensor([self.number(0.0005, 0.02) for _ in range(count)])
        weights = tfl.constant(values, scales, 0, axis)
        assert isinstance(weights, QTensor)
        return weights

    def int4_weights(self, *shape: int, axis: int | None, channels: int) -> QTensor:
        """The same with integers that the file packs two a byte."""
        weights = self.weights(*shape, axis=axis, channels=channels)
        return weights._replace(values=weights.values.clamp(-7, 7), storage="int4")

    def bias(self, x: QTensor, weights: QTensor, count: int, dtype: torch.dtype) -> QTensor:
        """A bias of the right scale."""
        values = torch.randint(-3000, 3000, (count,), generator=self.generator).to(dtype)
        scales = x.scale * weights.scale
        bias = tfl.constant(values, scales, 0, None if scales.numel() == 1 else 0)
        assert isinstance(bias, QTensor)
        return bias

    def out(self, like: Sequence[float] = (0.01, 0.3), dtype: str = "int8") -> QType:
        """A result's quantization, its scale between the bounds."""
        zero = {"int8": self.integer(-128, 127), "uint8": self.integer(0, 255), "int16": 0}
        return QType(dtype, self.number(*like), zero[dtype])
