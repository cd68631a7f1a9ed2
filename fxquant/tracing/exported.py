"""A program of `torch.export` as a graph that looks as if the model itself had been followed.

    %conv2d = aten.conv2d(%x, @stem.0.weight)         %stem_0 = aten.conv2d(%x, @stem.0.weight)
    %bn = aten.batch_norm(%conv2d, @stem.1.weight …)  ->  %stem_1 = call_module[stem.1](%stem_0)
    %drop = aten.dropout(%bn, 0.5, False)             return %stem_1

The exported module is called once like any other; names and source lines come from what export
recorded, and what must follow train and eval mode becomes a module again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from fxquant.errors import TraceError
from fxquant.ir.aten import aten, is_aten, named_arguments, packet_name
from fxquant.ir.edit import get_attribute, inherit, tensor_at
from fxquant.ir.source import SourceLocation
from fxquant.tracing.stateful import NORMS
from fxquant.tracing.trace import trace

FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def trace_exported(
    program: ExportedProgram,
    example_inputs: Any = None,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> GraphModule:
    """The graph of an exported program, ready for the same passes as a traced model.

    Args:
        program: what `torch.export.export` returned for a model in eval mode.
        example_inputs: a tuple of inputs; those of the export if None.
        kwargs: keyword inputs; those of the export if no inputs are given.
        dynamic_shapes: as for `trace`; the program must have been exported for these sizes.

    Raises:
        TraceError: the program trains, i.e. its batch norms update their statistics.
    """
    if example_inputs is None:
        example_inputs, kwargs = program.example_inputs or ((), {})
    module = program.module()
    graph_module = trace(module, example_inputs, kwargs=kwargs, dynamic_shapes=dynamic_shapes)
    for node, origin in _pairs(graph_module.graph.nodes, program.graph.nodes):
        _locate(node, origin)
    _restore_modules(graph_module)
    for child in graph_module.modules():
        child.training = False
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def _pairs(traced: Iterable[Node], exported: Iterable[Node]) -> Iterator[tuple[Node, Node]]:
    """Each operator with the one of the program that it repeats; constants were not repeated."""
    rest = iter([node for node in exported if is_aten(node)])
    for node in traced:
        if is_aten(node):
            origin = next((each for each in rest if each.target is node.target), None)
            if origin is not None:
                yield node, origin


def _locate(node: Node, origin: Node) -> None:
    """Take over the user's line and, for the operator of a layer, the layer's name."""
    layer, caller = _modules(origin)
    frames = FRAME.findall(origin.meta.get("stack_trace") or "")
    users = [frame for frame in frames if "/torch/nn/" not in frame[0]]
    if users:
        file, line = users[-1]
        node.meta["source"] = SourceLocation(file, int(line), caller, layer=layer)
    name = (layer or f"{caller}.{packet_name(node.target)}").strip("._").replace(".", "_")
    node._rename(f"_{name}" if name[0].isdigit() else name)


def _modules(origin: Node) -> tuple[str, str]:
    """The path of the torch.nn layer whose operator this is, if any, and of who called it."""
    stack = list((origin.meta.get("nn_module_stack") or {}).values())
    paths = [str(path) for path, _ in stack]
    if stack and _type_name(stack[-1][1]).startswith("torch.nn.modules"):
        return paths[-1], paths[-2] if len(paths) > 1 else ""
    return "", paths[-1] if paths else ""


def _type_name(kind: Any) -> str:
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def _restore_modules(root: GraphModule) -> None:
    for node in list(root.graph.nodes):
        if node.target is aten.batch_norm.default:
            _restore_batch_norm(root, node)
        elif node.target is aten.dropout.default and not named_arguments(node)["train"]:
            source = node.args[0]
            assert isinstance(source, Node)
            node.replace_all_uses_with(source)
            root.graph.erase_node(node)
    for node in list(root.graph.nodes):
        if node.op == "get_attr" and not node.users:
            root.graph.erase_node(node)


def _restore_batch_norm(root: GraphModule, node: Node) -> None:
    """Let a module at the statistics' own path compute a batch norm."""
    named = named_arguments(node)
    if named["training"]:
        raise TraceError(
            "the exported program trains: a batch norm updates its statistics",
            fix="export the model in eval mode: torch.export.export(model.eval(), …)",
        )
    mean = named["running_mean"]
    path, _, last = str(getattr(mean, "target", "")).rpartition(".")
    if last != "running_mean" or not path:
        return
    tensors = {key: _stored(root, named[key]) for key in ("weight", "bias", "running_mean")}
    tensors["running_var"] = _stored(root, named["running_var"])
    module = _batch_norm(node, named, tensors)
    owner, _, name = path.rpartition(".")
    parent = get_attribute(root, owner) if owner else root
    parent._modules[name] = module
    with root.graph.inserting_before(node):
        call = root.graph.create_node("call_module", path, (named["input"],), {}, node.name)
    inherit(call, node)
    node.replace_all_uses_with(call)
    root.graph.erase_node(node)


def _stored(root: GraphModule, argument: Any) -> Tensor | None:
    return tensor_at(root, argument) if isinstance(argument, Node) else None


def _batch_norm(node: Node, named: dict[str, Any], tensors: dict[str, Tensor | None]) -> nn.Module:
    mean = tensors["running_mean"]
    assert mean is not None
    affine = tensors["weight"] is not None
    kind = NORMS[node.meta["val"].dim()]
    module = kind(mean.numel(), named["eps"], named["momentum"], affine=affine, device="meta")
    for key in ("weight", "bias"):
        value = tensors[key]
        if value is not None:
            parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value)
            module.register_parameter(key, parameter)
    module.running_mean, module.running_var = mean, tensors["running_var"]
    module.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    return module.eval()
