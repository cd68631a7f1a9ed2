"""The file against the graph: run both, compare every value.

    for each sample
      LiteRT runs the file and keeps every intermediate tensor
      the graph is walked; each operator is computed twice
        from the start   on the values that the graph itself has computed
        alone            on LiteRT's own inputs, so that one wrong operator does not blame the rest

Where the inputs are the same both ways, which is everywhere while all agrees, the operator is
computed once. Values are dropped after their last use. The file runs in a process of its own,
because LiteRT aborts on some graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from fxquant.backends.tflite.contents import FileModel, FileTensor
from fxquant.backends.tflite.dialect import (
    QTensor,
    Value,
    dequantize,
    quantize,
    reshape,
    transpose,
    use_kernels,
)
from fxquant.backends.tflite.dialect.conditions import CONDITIONS
from fxquant.backends.tflite.differences import (
    FLOAT_TOLERANCE,
    Difference,
    difference_between,
    same_bits,
)
from fxquant.backends.tflite.flatbuffer import to_segments
from fxquant.backends.tflite.interpreter import Kernels, LiteRT, Source
from fxquant.backends.tflite.kernels.hybrid import counted_ties
from fxquant.backends.tflite.layout.rewrite import IO_PERMUTATION
from fxquant.backends.tflite.litert_session import Array
from fxquant.backends.tflite.reference_limits import why_not_reference
from fxquant.backends.tflite.sample_inputs import call_arguments, flat_inputs
from fxquant.backends.tflite.serialize import Contents, call_of, contents_of, row_of
from fxquant.backends.tflite.verify_report import (
    HYBRID_SQNR,
    ROUNDED_SQNR,
    OperatorRow,
    OutputRow,
    VerifyReport,
)
from fxquant.errors import InputError
from fxquant.ir.edit import tensor_at
from fxquant.ir.printer import format_node, format_type
from fxquant.ir.source import source_text
from fxquant.ir.types import TensorType

Reference = Callable[..., Any]
MOVERS = (reshape, transpose)
"""Operators that may stand between an input and the QUANTIZE of it."""


def verify(
    graph_module: GraphModule,
    model: Source | None,
    data: Iterable[Any],
    *,
    kernels: Kernels = "reference",
    float_reference: Reference | None = None,
    isolate: bool = True,
    limit: int | None = None,
) -> VerifyReport:
    """Run a file in LiteRT and compare it, value by value, with the graph it was written from.

    Args:
        graph_module: the graph in the tfl dialect.
        model: the file: a path, bytes or segments; None writes one from the graph.
        data: samples, each a tensor, a tuple of inputs or a dict of keyword inputs.
        kernels: which of the runtime's kernels run; the graph follows their arithmetic.
        float_reference: the float model; called with the same samples.
        isolate: run LiteRT in a process of its own.
        limit: use at most so many samples.

    Raises:
        InputError: there are no samples.
        VerifyError: LiteRT refuses the file, or fails.
    """
    contents = contents_of(graph_module)
    reason = why_not_reference(contents.model) if kernels == "reference" else ""
    chosen: Kernels = "optimized" if reason else kernels
    report = VerifyReport(chosen, notes=[reason] if reason else [])
    source = to_segments(contents.model) if model is None else model
    with LiteRT(source, kernels=chosen, preserve=True, isolate=isolate) as runtime:
        _require_same_tensors(contents.model, runtime.model)
        check = _Comparison(graph_module, contents, runtime, report)
        with torch.no_grad(), use_kernels(chosen):
            for sample in data:
                if limit is not None and report.samples >= limit:
                    break
                check.sample(sample, float_reference)
                report.samples += 1
    if not report.samples:
        raise InputError("there are no samples to verify the file with")
    return report


@dataclass
class _Pair:
    """A value as the graph computed it and as the runtime did; `same` when bit-identical."""

    ours: Any
    theirs: Any
    same: bool


@dataclass
class _Comparison:
    """The walk over one graph; rows grow with every sample."""

    graph_module: GraphModule
    contents: Contents
    runtime: LiteRT
    report: VerifyReport
    rows: dict[Node, OperatorRow] = field(default_factory=dict)
    constants: dict[Node, Any] = field(default_factory=dict)
    last_use: dict[Node, list[Node]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        last: dict[Node, Node] = {}
        for node in self.graph_module.graph.nodes:
            for argument in node.all_input_nodes:
                last[argument] = node
            if row_of(node) is not None and node in self.contents.tensors:
                self.rows[node] = _row(node)
        for argument, user in last.items():
            self.last_use.setdefault(user, []).append(argument)
        self.report.rows = list(self.rows.values())
        tensors = self.contents.model.main.tensors
        names = self.contents.model.signatures[0].outputs
        hybrid = any(row.hybrid for row in self.rows.values())
        rounds = any(map(_rounds_computed, self.graph_module.graph.nodes))
        least = ROUNDED_SQNR if rounds else HYBRID_SQNR
        self.report.outputs = [
            OutputRow(name, _tensor_text(tensors[i]), hybrid=hybrid or rounds, least_sqnr=least)
            for name, i in names
        ]

    def sample(self, sample: Any, reference: Reference | None) -> None:
        """Run both on one sample and add what differs to the rows."""
        inputs = flat_inputs(self.graph_module, sample)
        outputs = list(self.runtime.run([value.numpy() for value in inputs]).values())
        values: dict[Node, _Pair] = {}
        given = iter(inputs)
        for node in self.graph_module.graph.nodes:
            if node.op == "output":
                self.compare_outputs(node, values, outputs)
            else:
                values[node] = self.value(node, values, given)
            for done in self.last_use.get(node, ()):
                values.pop(done, None)
        if reference is not None:
            self.compare_reference(sample, reference, outputs)

    def value(self, node: Node, values: Mapping[Node, _Pair], given: Any) -> _Pair:
        """What one node computes, both ways."""
        if node.op == "placeholder":
            value = next(given)
            return _Pair(value, value, True)
        if node.op == "get_attr":
            stored = self.constants.setdefault(node, tensor_at(self.graph_module, node).detach())
            return _Pair(stored, stored, True)
        same = all(values[argument].same for argument in node.all_input_nodes)
        with counted_ties() as ties:
            ours = self.compute(
                node, {argument: values[argument].ours for argument in node.all_input_nodes}
            )
            alone = ours
            if not same:
                theirs = {argument: values[argument].theirs for argument in node.all_input_nodes}
                alone = self.compute(node, theirs)
        if node not in self.rows or self.is_hidden(node):
            return _Pair(ours, alone, same)
        operands = [values[argument].theirs for argument in node.all_input_nodes]
        allowed = FLOAT_TOLERANCE
        if self.rows[node].hybrid and ties:
            most = min(ties[-1], MOST_TIES)
            allowed += most * _step_of_result(operands[0], operands[1], alone)
        return self.compare(node, ours, alone, _magnitude(node, operands), allowed)

    def is_hidden(self, node: Node) -> bool:
        """Whether nobody can see a value: XNNPACK turns stored weights into floats by itself, and
        the interpreter gives no bfloat16 away."""
        kind = node.meta.get("type")
        if getattr(kind, "dtype", None) is torch.bfloat16:
            return True
        stored = all(each in self.constants for each in node.all_input_nodes)
        return self.report.kernels == "xnnpack" and node.target is dequantize and stored

    def compute(self, node: Node, values: Mapping[Node, Any]) -> Any:
        """Call the node's function; stored tensors are made once."""
        if node in self.constants:
            return self.constants[node]
        args, kwargs = map_arg((node.args, node.kwargs), lambda each: values[each])
        result = cast(Callable[..., Any], node.target)(*args, **kwargs)
        if node.all_input_nodes and all(each in self.constants for each in node.all_input_nodes):
            self.constants[node] = result
        return result

    def compare(self, node: Node, ours: Any, alone: Any, magnitude: float, allowed: float) -> _Pair:
        """Add an operator's results to its row; the runtime's own values go on."""
        several = isinstance(ours, list | tuple) and not isinstance(ours, QTensor)
        mine, single = (ours, alone) if several else ([ours], [alone])
        row, same, theirs = self.rows[node], True, []
        for index, first, second in zip(self.contents.tensors[node], mine, single, strict=True):
            expected = torch.from_numpy(np.asarray(self.runtime.value(index)))
            row.mismatch = row.mismatch or _mismatch(_data(first), expected)
            if row.mismatch:
                return _Pair(ours, ours, False)
            zero_point = first.offset if isinstance(first, QTensor) and first.axis is None else 0
            compared = partial(difference_between, zero_point=zero_point, magnitude=magnitude)
            chained = compared(_data(first), expected)
            by_itself = chained
            if second is not first:
                by_itself = compared(_data(second), expected)
            row.chained.add(chained)
            row.alone.add(by_itself)
            row.beyond = max(row.beyond, by_itself.relative - allowed)
            same &= same_bits(_data(first), expected)
            theirs.append(
                first._replace(values=expected) if isinstance(first, QTensor) else expected
            )
        return _Pair(ours, theirs if several else theirs[0], same)

    def compare_outputs(
        self, node: Node, values: Mapping[Node, _Pair], outputs: Sequence[Array]
    ) -> None:
        """Add the outputs of the file to their rows."""
        results = node.args[0] if isinstance(node.args[0], list | tuple) else (node.args[0],)
        nodes = [each for each in results if isinstance(each, Node)]
        for row, each, found in zip(self.report.outputs, nodes, outputs, strict=True):
            ours = _data(values[each].ours)
            row.simulated.add(difference_between(torch.from_numpy(np.asarray(found)), ours))

    def compare_reference(
        self, sample: Any, reference: Reference, outputs: Sequence[Array]
    ) -> None:
        """Add the float model's outputs to the rows of the outputs."""
        args, kwargs = call_arguments(sample)
        leaves = pytree.tree_leaves(reference(*args, **kwargs))
        expected = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        tensors = self.contents.model.main.tensors
        indices = [index for _, index in self.contents.model.signatures[0].outputs]
        turns = _output_permutations(self.graph_module, len(outputs))
        for row, index, found, given, turn in zip(
            self.report.outputs, indices, outputs, expected, turns, strict=True
        ):
            wanted = given if turn is None else given.permute(*turn)
            real = _same_layout(_real(found, tensors[index]), wanted)
            row.reference = row.reference or Difference()
            row.reference.add(difference_between(real, wanted.detach().to(real.dtype)))


def _output_permutations(graph_module: GraphModule, count: int) -> Sequence[Sequence[int] | None]:
    """How the file's outputs are turned against the model's; None for one that is not."""
    (output,) = graph_module.graph.find_nodes(op="output")
    known = output.meta.get(IO_PERMUTATION)
    return [None] * count if known is None else list(known)


SUMS = {"add", "cumsum", "mean", "sub", "sum"}
"""Operators whose result can be much smaller than what they add up."""


def _magnitude(node: Node, operands: Sequence[Any]) -> float:
    """The largest value that a sum adds up; 0 for other operators."""
    if cast(Any, node.target).__name__ not in SUMS:
        return 0.0
    floats = [each for each in operands if isinstance(each, Tensor) and each.is_floating_point()]
    return max((float(each.abs().max()) for each in floats if each.numel()), default=0.0)


MOST_TIES = 2
"""So many values of one sum may fall to the other side; the ties of a picture are far apart."""


def _step_of_result(x: Tensor, weights: QTensor, result: Tensor) -> float:
    """What one step of the activations, times the largest weight, is of the largest result.

    The grid of a row has 255 steps, or 127 on either side of 0, and none reaches further than that
    of all values.
    """
    largest = float(result.abs().max())
    step = float(x.abs().max()) / 127
    return step * float(weights.real().abs().max()) / largest if largest else 0.0


def _require_same_tensors(written: FileModel, found: FileModel) -> None:
    """Refuse a file of another graph: nothing in it could be compared."""
    mine, theirs = (
        [(each.name, each.shape, each.dtype) for each in model.main.tensors]
        for model in (written, found)
    )
    if mine != theirs:
        raise InputError(
            "the file was not written from this graph: its tensors are others",
            fix="write the file again, or give None to have it written",
        )


def _rounds_computed(node: Node) -> bool:
    """Whether a node puts floats on a grid that were computed, not given or only moved."""
    if node.target is not quantize:
        return False
    source = node.all_input_nodes[0]
    while source.op == "call_function" and source.target in MOVERS:
        source = source.all_input_nodes[0]
    kind = source.meta.get("type")
    is_float = isinstance(kind, TensorType) and kind.quantization is None
    return source.op == "call_function" and source.target is not dequantize and is_float


def _row(node: Node) -> OperatorRow:
    name = cast(Any, node.target).__name__
    found = row_of(node)
    hybrid = found is not None and CONDITIONS["hybrid"](call_of(node, found))
    text = format_node(node)
    return OperatorRow(node.name, name, format_type(node), source_text(node), text, hybrid=hybrid)


def _data(value: Value) -> Tensor:
    return value.values if isinstance(value, QTensor) else value


def _mismatch(ours: Tensor, theirs: Tensor) -> str:
    """Another shape or dtype than the file has."""
    if ours.shape == theirs.shape and ours.dtype == theirs.dtype:
        return ""
    return (
        f"the graph computes {ours.dtype} {list(ours.shape)}, "
        f"the file {theirs.dtype} {list(theirs.shape)}"
    )


def _real(values: Array, tensor: FileTensor) -> Tensor:
    """The reals that an output of the file stands for."""
    found = torch.from_numpy(np.asarray(values))
    if tensor.quantization is None:
        return found.to(torch.float64) if found.dtype.is_floating_point else found
    scale, zero_point = tensor.quantization.scale[0], tensor.quantization.zero_point[0]
    return (found.to(torch.float64) - zero_point) * scale


def _same_layout(found: Tensor, wanted: Tensor) -> Tensor:
    """A channels-last output in the channels-first order of the float model."""
    if found.shape == wanted.shape:
        return found
    permuted = found.movedim(-1, 1) if found.dim() > 2 else found
    if permuted.shape == wanted.shape:
        return permuted
    raise InputError(
        f"the file's output has shape {list(found.shape)}, the float model's {list(wanted.shape)}"
    )


def _tensor_text(tensor: FileTensor) -> str:
    return f"{tensor.dtype}[{','.join(map(str, tensor.signature or tensor.shape))}]"
