"""Whether a file keeps the promise `require="int8"`: integers in every tensor that anything reads.

    file: QUANTIZE f32 -> i8, CONV_2D, SOFTMAX f32, …   ->   UnsupportedOp, one problem an operator:
                                                             aten.softmax computes in float: …

The file itself is walked, not what was meant to be in it. What is found is told in the words of the
model: the operator of the core graph that a tensor belongs to, why it is float, the user's line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch.fx import GraphModule, Node

from fxquant.backends.tflite.contents import FileModel, FileTensor
from fxquant.backends.tflite.inspection import type_text
from fxquant.backends.tflite.reader import read_bytes
from fxquant.backends.tflite.serialize import contents_of
from fxquant.errors import Problem, UnsupportedOp
from fxquant.ir.aten import is_aten
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.passes.annotate import NOT_ASKED
from fxquant.passes.free_precision import BETWEEN_FLOATS
from fxquant.quant.constraints import operator_name

GRIDS: Mapping[str, frozenset[str]] = {
    "int8": frozenset({"int8", "int4", "int32"}),
    "uint8": frozenset({"uint8", "int32"}),
    "int16x8": frozenset({"int16", "int8", "int4", "int32", "int64"}),
}
"""What may be quantized to inside of a file, by promise; at its borders any integers may stand, and
the kernel of an 8-bit LSTM keeps its cell state in 16 bits."""

ADVICE: Mapping[str, str] = {
    "softmax": "leave it out of the model, argmax of the logits is the same, or make rows shorter",
    "log_softmax": "leave it out of the model, argmax of the logits is the same, or use 8 bits",
    "scaled_dot_product_attention": "a mask needs 16 bits: give the operator int16x8 by a rule, "
    'and say require="int16x8"',
}
"""What to do instead, by core operator."""

ASK = "prepare the model with QuantConfig(integer_only=True), as compile(require=) does"
"""What to do about operators whose integer form is not the default."""


def check_promise(program: GraphModule, data: bytes, required: str, core: GraphModule) -> None:
    """Refuse a file that computes, or stores what it computes with, in anything but integers.

    Args:
        program: the last graph, whose nodes say by `core` which core operator they come from.
        data: the file that was written from it.
        required: a key of `GRIDS`.
        core: the graph that was lowered.

    Raises:
        UnsupportedOp: with every operator that stands in the way.
    """
    model = read_bytes(data)
    wrong = [index for index in _used(model) if _breaks(model, index, required)]
    if not wrong:
        return
    problems = list(_problems(program, core, model, wrong))
    count = f"{len(problems)} operator{'s' if len(problems) > 1 else ''}"
    raise UnsupportedOp(
        f'require="{required}" cannot be kept: {count} of the file would not be integer',
        fix="change the model as below, or leave out require=",
        problems=problems,
    )


def _used(model: FileModel) -> list[int]:
    """Every tensor that an operator or a caller reads or writes."""
    main = model.main
    ends = (*main.inputs, *main.outputs)
    operands = (index for op in main.operators for index in (*op.inputs, *op.outputs))
    return sorted({index for index in (*ends, *operands) if index >= 0})


def _breaks(model: FileModel, index: int, required: str) -> bool:
    tensor = model.main.tensors[index]
    if tensor.dtype.startswith(("float", "bfloat", "complex")):
        return True
    at_border = index in model.main.inputs or index in model.main.outputs
    if tensor.quantization is None or at_border or (tensor.is_variable and tensor.dtype == "int16"):
        return False
    return tensor.dtype not in GRIDS[required]


def _problems(
    program: GraphModule, core: GraphModule, model: FileModel, wrong: Iterable[int]
) -> Iterator[Problem]:
    """One for each core operator that has a reason; if none has, one for each tensor."""
    nodes = _nodes(program)
    known = {node.name: node for node in core.graph.nodes}
    reasons = _reasons(core, program)
    found = {str(nodes[index].meta.get("core", "")) for index in wrong if index in nodes}
    told = [name for name in known if name in found and name in reasons]
    # What is float only because of its neighbors is no obstacle of its own.
    told = [name for name in told if reasons[name] != BETWEEN_FLOATS] or told
    for name in told:
        yield _explained(known[name], core, reasons[name])
    if not told:
        for index in wrong:
            yield _plain(model.main.tensors[index], nodes.get(index))


def _nodes(program: GraphModule) -> dict[int, Node]:
    pairs = contents_of(program).tensors.items()
    return {index: node for node, indices in pairs for index in indices}


def _reasons(core: GraphModule, program: GraphModule) -> dict[str, str]:
    stayed = {row.node: row.reason for row in state_of(core).stayed_float}
    return {**stayed, **state_of(program).islands}


def _explained(node: Node, core: GraphModule, reason: str) -> Problem:
    operator = operator_name(node, core)
    title = f"aten.{operator}" if is_aten(node) else operator
    what = reason if title in reason else f"{title} computes in float: {reason}"
    fix = ASK if NOT_ASKED in reason else ADVICE.get(operator)
    return Problem(what, format_node(node, core), source_text(node), fix)


def _plain(tensor: FileTensor, node: Node | None) -> Problem:
    source = None if node is None else source_text(node)
    return Problem(f"tensor {tensor.name} is {type_text(tensor)}", source=source)
