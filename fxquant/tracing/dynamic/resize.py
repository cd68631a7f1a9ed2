"""The types of all values of a graph at other sizes of its named dimensions, without running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate, map_arg

from fxquant.ir.aten import packet_name
from fxquant.ir.edit import get_attribute
from fxquant.ir.state import state_of


def resize_inputs(root: GraphModule, sizes: Mapping[str, int]) -> FakeTensorMode:
    """Give the inputs of a graph the types that they have at some sizes.

    Returns:
        The mode that the new fake tensors belong to.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    signature = state_of(root).signature
    inputs = root.graph.find_nodes(op="placeholder")
    for node, spec in zip(inputs, signature.inputs, strict=True):
        old = node.meta["val"]
        with mode:
            new = torch.empty(spec.resized(sizes), dtype=spec.dtype, device=spec.device)
            node.meta["val"] = new.requires_grad_(old.requires_grad)
    return mode


def propagate(root: GraphModule, sizes: Mapping[str, int]) -> None:
    """Recompute the type of every value at some sizes.

    Modules that stay in a graph keep shape and dtype, and so does fake quantization.
    """
    mode = resize_inputs(root, sizes)
    with mode, torch.no_grad():
        for node in root.graph.nodes:
            if node.op == "get_attr":
                value = get_attribute(root, str(node.target))
                node.meta["val"] = _fake(mode, value)
            elif node.op == "output":
                node.meta["val"] = map_arg(node.args[0], _value)
            elif node.op != "placeholder":
                node.meta["val"] = _result(node, mode)


def _value(node: Node) -> Any:
    return node.meta["val"]


def _fake(mode: FakeTensorMode, value: Any) -> Any:
    if isinstance(value, FakeTensor) or not isinstance(value, Tensor):
        return value
    return mode.from_tensor(value.detach())


def _result(node: Node, mode: FakeTensorMode) -> Any:
    args, kwargs = map_arg((node.args, node.kwargs), _value)
    assert isinstance(args, tuple)
    if node.op == "call_module" or packet_name(node.target).startswith("fake_quantize"):
        source: Any = args[0]
        return torch.empty_like(source)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return map_aggregate(node.target(*args, **kwargs), lambda each: _fake(mode, each))
