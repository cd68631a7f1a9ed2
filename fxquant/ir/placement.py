"""Where a graph computes: on the host, or on one accelerator.

A graph stays where the model is: its constants, its observers, and the batches that `calibrate`
reads. Files are written from a copy on the host.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from fxquant.ir.edit import copy_graph_module, get_attribute
from fxquant.ir.state import state_of

HOST = torch.device("cpu")


def device_of(graph_module: GraphModule) -> torch.device:
    """The device of a graph's tensors; of its example inputs where it holds none."""
    stored = itertools.chain(graph_module.parameters(), graph_module.buffers())
    found = (tensor.device for tensor in stored if tensor.device.type != "meta")
    inputs = getattr(state_of(graph_module).signature, "inputs", ())
    return next(found, inputs[0].device if inputs else HOST)


def on_host(graph_module: GraphModule) -> GraphModule:
    """The graph itself where it computes on the host, otherwise a copy that does."""
    if device_of(graph_module) == HOST:
        return graph_module
    result = copy_graph_module(graph_module)
    _move_tensors(result)
    for node in result.graph.nodes:
        if "device" in node.kwargs:
            node.update_kwarg("device", HOST)
        value = node.meta.get("val")
        if node.op == "get_attr":
            value = get_attribute(result, str(node.target))
        if "val" in node.meta:
            node.meta["val"] = pytree.tree_map_only(Tensor, _moved, value)
    state = state_of(result)
    if state.signature is not None:
        state.signature = state.signature.respecified(device=HOST)
    result.recompile()
    return result


def _move_tensors(root: nn.Module) -> None:
    """Replace every tensor by one on the host; shared ones stay shared, the old ones unchanged."""
    moved: dict[int, Any] = {}
    for module in root.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in moved:
                    new = _moved(tensor)
                    trained = isinstance(tensor, nn.Parameter)
                    moved[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if trained else new
                table[name] = moved[id(tensor)]


def _moved(tensor: Tensor) -> Tensor:
    return tensor if tensor.device.type == "meta" else tensor.detach().to(HOST)
