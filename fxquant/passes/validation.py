"""Translation validation: run a pass's input and output on a probe and compare by its contract.

    with instruments(Validate()):
        pipeline(graph_module)

An `exact` pass must give the same bits, a `close` one must stay within its tolerance, one that
`changes` must still run and keep shapes and dtypes. The error names the first node that deviates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from fxquant.errors import PassError
from fxquant.ir.edit import copy_graph_module
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.passes.base import Pass, PassResult, Semantics
from fxquant.passes.instruments import Instrument


@dataclass(frozen=True)
class Deviation:
    """How far two results are apart.

    Attributes:
        error: largest absolute difference relative to the largest magnitude of the first result.
        what: what is different where no number says it (shape, dtype, structure).
    """

    error: float
    what: str = ""

    def within(self, semantics: Semantics) -> bool:
        """Whether a pass with that contract may deviate so."""
        if self.what:
            return False
        return semantics.kind == "changes" or self.error <= semantics.tolerance


def probe_inputs(graph_module: GraphModule, seed: int = 0) -> list[Any]:
    """Random inputs of the right shapes and dtypes, one for each placeholder.

    Floats are standard normal; integers are 0 or 1, which are indices into anything.
    """
    generator = torch.Generator().manual_seed(seed)
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    return [_random_like(node.meta.get("val"), generator) for node in placeholders]


def _random_like(value: Any, generator: torch.Generator) -> Any:
    if not isinstance(value, Tensor):
        return value
    shape = [int(size) for size in value.shape]
    if value.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(value.dtype)
    return torch.randint(0, 2, shape, generator=generator).to(value.dtype)


@contextlib.contextmanager
def _unchanged(graph_module: GraphModule) -> Iterator[None]:
    """Random state and buffers (running statistics) as before, whatever a run does."""
    saved = [(buffer, buffer.clone()) for buffer in graph_module.buffers()]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        try:
            yield
        finally:
            for buffer, value in saved:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def run_flat(graph_module: GraphModule, inputs: Sequence[Any]) -> Any:
    """The flat outputs of a graph for flat inputs; the graph is left as it was."""
    with _unchanged(graph_module):
        return Interpreter(graph_module).run(*inputs, enable_io_processing=False)


def deviation(first: Any, second: Any) -> Deviation:
    """How far two results, nested alike, are apart."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return _tensor_deviation(first, second)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return Deviation(float("inf"), f"{len(first)} values against {len(second)}")
        parts = [deviation(a, b) for a, b in zip(first, second, strict=True)]
        return max(parts, key=lambda part: (bool(part.what), part.error), default=Deviation(0.0))
    same = type(first) is type(second) and first == second
    return Deviation(0.0) if same else Deviation(float("inf"), f"{first!r} against {second!r}")


def _tensor_deviation(first: Tensor, second: Tensor) -> Deviation:
    if first.shape != second.shape or first.dtype != second.dtype:
        what = f"{first.dtype}{list(first.shape)} against {second.dtype}{list(second.shape)}"
        return Deviation(float("inf"), what)
    if first.numel() == 0 or torch.equal(first, second):
        return Deviation(0.0)
    a, b = first.double(), second.double()
    same = (a == b) | (a.isnan() & b.isnan())
    gap = torch.where(same, torch.zeros_like(a), (a - b).abs())
    magnitude = a[a.isfinite()].abs().max().item() if bool(a.isfinite().any()) else 0.0
    worst = gap.max().item()
    return Deviation(float("inf") if worst != worst else worst / (magnitude or 1.0))


def run_nodes(graph_module: GraphModule, inputs: Sequence[Any]) -> dict[str, Any]:
    """The value of every node of a graph by the node's name."""
    values: dict[str, Any] = {}

    class Recorder(Interpreter):
        """Keeps what each node computed."""

        def run_node(self, n: Node) -> Any:
            values[n.name] = super().run_node(n)
            return values[n.name]

    with _unchanged(graph_module):
        Recorder(graph_module, garbage_collect_values=False).run(
            *inputs, enable_io_processing=False
        )
    return values


def first_deviating(
    before: GraphModule, after: GraphModule, inputs: Sequence[Any], semantics: Semantics
) -> tuple[Node, Deviation] | None:
    """The first node of `after` whose value differs from that of the same name in `before`."""
    expected, found = run_nodes(before, inputs), run_nodes(after, inputs)
    for node in after.graph.nodes:
        if node.op == "get_attr" or node.name not in expected:
            continue
        gap = deviation(expected[node.name], found[node.name])
        if not gap.what and not gap.within(semantics):
            return node, gap
    return None


class Validate(Instrument):
    """Compares the graph before and after each pass on a probe.

    Args:
        probe: one value for each placeholder; random ones if None.
        seed: of the random probe.
    """

    def __init__(self, probe: Sequence[Any] | None = None, seed: int = 0) -> None:
        self.rows: list[tuple[str, float]] = []
        self._probe = probe
        self._seed = seed
        self._before: GraphModule | None = None

    def before_pass(self, item: Pass, graph_module: GraphModule) -> None:
        self._before = copy_graph_module(graph_module)

    def after_pass(self, item: Pass, result: PassResult) -> None:
        assert self._before is not None
        before, self._before = self._before, None
        if not result.modified:
            return
        probe = probe_inputs(before, self._seed) if self._probe is None else list(self._probe)
        gap = deviation(run_flat(before, probe), run_flat(result.graph_module, probe))
        self.rows.append((item.name, gap.error))
        if not gap.within(item.semantics):
            raise self._error(item, before, result.graph_module, probe, gap)

    def _error(
        self,
        item: Pass,
        before: GraphModule,
        after: GraphModule,
        probe: Sequence[Any],
        gap: Deviation,
    ) -> PassError:
        culprit = first_deviating(before, after, probe, item.semantics)
        amount = gap.what or f"relative error {gap.error:.3g}"
        what = f"the pass {item} promises {item.semantics} and gives {amount}"
        if culprit is None:
            return PassError(what, fix="compare the dumps before and after it")
        node, at_node = culprit
        return PassError(
            f"{what}; the first node that deviates has relative error {at_node.error:.3g}",
            node=format_node(node, after),
            source=source_text(node),
        )
