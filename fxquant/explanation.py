"""What a backend makes of each operator, and why: precision, operators of the file, refusals.

print(explain(model, (image,), backend="tflite"))

node  operator  computes in   in tflite      reason
conv  conv2d    int8          CONV_2D
erf   erf       float32       …              tflite has no int8 kernel for aten.erf
lg    lgamma    not at all                   tflite has no rule for aten.lgamma
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn
from torch.fx import GraphModule, Node

from fxquant.api import traced
from fxquant.backends.base import Backend, LowerOptions
from fxquant.backends.registry import get_backend
from fxquant.errors import InputError, Problem, UnsupportedOp
from fxquant.ir.edit import copy_graph_module
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.passes.annotate import Annotate
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.config import QuantConfig
from fxquant.quant.constraints import annotation_of, is_getitem, operator_name

UNSUPPORTED = "not at all"
PLUMBING = ("QuantStub", "DeQuantStub", "fake_quantize_per_channel_affine")
NAME = re.compile(r"%(\w+) = ")


@dataclass(frozen=True)
class Decision:
    """What becomes of one operator.

    Attributes:
        node: its name in the core dialect.
        operator: what it computes there.
        precision: what it computes in, "not at all" where the backend refuses it.
        target: the operators of the file that it becomes, with their counts.
        reason: why, where the operator is refused or stays in float.
        source: the user's line.
    """

    node: str
    operator: str
    precision: str
    target: str
    reason: str
    source: str = ""

    @property
    def supported(self) -> bool:
        """Whether the backend can express it."""
        return self.precision != UNSUPPORTED


@dataclass
class Explanation(Mapping[str, Decision]):
    """The decisions by node name; prints as a table.

    Attributes:
        backend: the target's name.
        decisions: one row an operator, in the order of the graph.
    """

    backend: str
    decisions: list[Decision] = field(default_factory=list)

    def __getitem__(self, name: str) -> Decision:
        return {each.node: each for each in self.decisions}[name]

    def __iter__(self) -> Iterator[str]:
        return (each.node for each in self.decisions)

    def __len__(self) -> int:
        return len(self.decisions)

    @property
    def unsupported(self) -> list[Decision]:
        """What the backend cannot take."""
        return [each for each in self.decisions if not each.supported]

    def __rich__(self) -> Table:
        table = Table(title=f"{self.backend}: {self._summary()}", title_justify="left")
        headings = ("node", "operator", "computes in", f"in {self.backend}", "reason", "from")
        for heading in headings:
            table.add_column(heading)
        for row in self.decisions:
            style = None if row.supported else "bold red"
            cells = (row.node, row.operator, row.precision, row.target, row.reason, row.source)
            table.add_row(*cells, style=style)
        return table

    def _summary(self) -> str:
        counts = Counter(each.precision for each in self.decisions)
        return ", ".join(f"{count} {name}" for name, count in counts.most_common())

    def render(self, width: int = 140) -> str:
        """The table as plain text."""
        file = io.StringIO()
        Console(file=file, width=width, color_system=None).print(self)
        return file.getvalue()

    def __str__(self) -> str:
        return self.render()


def explain(
    model: nn.Module,
    example_inputs: Any = None,
    config: QuantConfig | None = None,
    *,
    backend: str | Backend = "tflite",
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Explanation:
    """What the backend makes of each operator of a model or graph, and why.

    Args:
        model: a module, or a graph at any stage before `lower`; it is not changed.
        example_inputs: needed for a module.
        config: what to quantize; int8 where the backend can, if None.
        backend: the target's name, or a backend.
        kwargs: keyword inputs of the model.
        options: the backend's own choices by name.

    Raises:
        InputError: a module without example inputs.
    """
    target = get_backend(backend)
    core = _annotated(_core(model, example_inputs, kwargs), target, config)
    nodes = [node for node in core.graph.nodes if _is_operator(core, node)]
    operators, problems = _lowered(core, target, LowerOptions(own=dict(options or {})))
    refused = _by_node(problems, nodes)
    decisions = [_decision(core, node, operators, refused) for node in nodes]
    return Explanation(target.name, decisions)


def _core(model: nn.Module, example_inputs: Any, kwargs: Mapping[str, Any] | None) -> GraphModule:
    is_graph = isinstance(model, GraphModule) and bool(state_of(model).properties)
    if not is_graph and example_inputs is None and not kwargs:
        fix = "explain(model, (x,), backend=…)"
        raise InputError("a model is explained by following it on example inputs", fix=fix)
    graph_module = traced(model, () if example_inputs is None else example_inputs, kwargs)
    if "functional" in state_of(graph_module).properties:
        return copy_graph_module(graph_module)
    return Pipeline.default("float")(graph_module)


def _annotated(core: GraphModule, target: Backend, config: QuantConfig | None) -> GraphModule:
    state = state_of(core)
    table = target.constraints()
    if {"observed", "frozen", "annotated"} & state.properties or table is None:
        return core
    state.target, state.constraints = target.name, table
    state.config = QuantConfig() if config is None else config
    return Pipeline((Annotate(),))(core)


def _is_operator(root: GraphModule, node: Node) -> bool:
    if node.op not in {"call_function", "call_module"} or is_getitem(node):
        return False
    name = operator_name(node, root)
    return name not in PLUMBING and not name.lower().startswith(("fake_quantize", "fakequantize"))


def _lowered(
    core: GraphModule, target: Backend, options: LowerOptions
) -> tuple[dict[str, dict[str, int]], tuple[Problem, ...]]:
    """The operators of the file by core node, and what is refused."""
    marked = _without_observers(copy_graph_module(core))
    for node in marked.graph.nodes:
        node.meta["core"] = node.name
    try:
        program = target.pipeline(options)(marked)
    except UnsupportedOp as error:
        return {}, error.problems or (error.problem,)
    names = {str(node.meta.get("core", "")) for node in program.graph.nodes}
    return {name: target.operators_of(program, name) for name in names if name}, ()


def _without_observers(graph_module: GraphModule) -> GraphModule:
    """A prepared graph as it was before: its float operators."""
    if "observed" not in state_of(graph_module).properties:
        return graph_module
    for node in list(graph_module.graph.nodes):
        if node.op == "call_module" and operator_name(node, graph_module) == "FakeQuantize":
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph_module.graph.erase_node(node)
    state_of(graph_module).properties.discard("observed")
    return graph_module


def _by_node(problems: tuple[Problem, ...], nodes: list[Node]) -> dict[str, Problem]:
    """The refusals by node; a part of an operator stands for the operator of its line."""
    known = {node.name for node in nodes}
    lines: dict[str | None, str] = {source_text(node): node.name for node in nodes}
    found: dict[str, Problem] = {}
    for problem in problems:
        match = NAME.match(problem.node or "")
        name = match.group(1) if match else ""
        found[name if name in known else lines.get(problem.source) or name] = problem
    return found


def _decision(
    root: GraphModule,
    node: Node,
    operators: Mapping[str, Mapping[str, int]],
    refused: Mapping[str, Problem],
) -> Decision:
    annotation = annotation_of(node)
    precision = "float32" if annotation is None else str(annotation.precision)
    reason = "" if annotation is None else str(annotation.reason)
    if annotation is not None and annotation.precision.form != "float":
        fused = annotation.fused_into
        reason = f"ends with %{fused}" if fused else "" if reason == "default" else reason
    counts = operators.get(node.name, {})
    target = ", ".join(f"{n} {name}" if n > 1 else name for name, n in counts.items())
    if node.name in refused:
        precision, reason = UNSUPPORTED, refused[node.name].what
    source = source_text(node) or ""
    return Decision(node.name, operator_name(node, root), precision, target, reason, source)
