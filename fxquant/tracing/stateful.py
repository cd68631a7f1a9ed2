"""Functional dropout and batch norm that follow train and eval mode, as modules do.

    F.dropout(x, 0.1, training=self.training)  ->  %dropout = call_module[block.dropout](%x)
    F.batch_norm(x, self.running_mean, …)      ->  %bn = call_module[block.bn](%x)

Allowed where the `training` argument equals the flag of the module that makes the call; a dropout
that is always on, or always off, stays a function.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from fxquant.ir.edit import free_name, get_attribute

if TYPE_CHECKING:
    from fxquant.tracing.recorder import Recorder

DROPOUTS: dict[Any, type[nn.Module]] = {
    F.dropout: nn.Dropout,
    F.dropout1d: nn.Dropout1d,
    F.dropout2d: nn.Dropout2d,
    F.dropout3d: nn.Dropout3d,
    F.alpha_dropout: nn.AlphaDropout,
    F.feature_alpha_dropout: nn.FeatureAlphaDropout,
}
NORMS: dict[int, type[nn.modules.batchnorm._BatchNorm]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
_SIGNATURES = {func: inspect.signature(func) for func in (*DROPOUTS, F.batch_norm)}

Call = tuple[nn.Module, str, tuple[Any, ...]]


def functional_module(
    recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Call | None:
    """The module, its path and its inputs that a functional call stands for, if it does."""
    if not isinstance(func, type(functional_module)) or func not in _SIGNATURES:
        return None
    bound = _SIGNATURES[func].bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    return _norm(recorder, given) if func is F.batch_norm else _dropout(recorder, func, given)


def _dropout(recorder: Recorder, func: Any, given: dict[str, Any]) -> Call | None:
    stack = recorder.stack
    if not stack.modules or bool(given["training"]) != stack.modules[-1].training:
        return None
    module = DROPOUTS[func](given["p"], given["inplace"])
    module.training = stack.modules[-1].training
    prefix = f"{stack.path}." if stack.path else ""
    path = free_name(recorder.values.root, f"{prefix}{func.__name__}")
    parent = get_attribute(recorder.values.root, stack.path) if stack.path else recorder.values.root
    parent.add_module(path.rpartition(".")[2], module)
    return module, path, (given["input"],)


def _norm(recorder: Recorder, given: dict[str, Any]) -> Call | None:
    """The batch norm whose running statistics, weight and bias belong to one module."""
    names = recorder.values.names
    path, _, name = names.get(id(given["running_mean"]), "").rpartition(".")
    if name != "running_mean" or not path:
        return None
    for key in ("running_var", "weight", "bias"):
        if given[key] is not None and names.get(id(given[key])) != f"{path}.{key}":
            return None
    user = recorder.stack.model.get_submodule(path)
    replica = get_attribute(recorder.values.root, path)
    if bool(given["training"]) != user.training or (given["weight"] is None) != (
        given["bias"] is None
    ):
        return None
    if not isinstance(replica, nn.modules.batchnorm._BatchNorm):
        replica = _batch_norm(user, replica, given)
        parent, _, last = path.rpartition(".")
        root = recorder.values.root
        (get_attribute(root, parent) if parent else root).add_module(last, replica)
    _forget_count(recorder, replica)
    return replica, path, (given["input"],)


def _batch_norm(user: nn.Module, replica: nn.Module, given: dict[str, Any]) -> nn.Module:
    kind = NORMS[given["input"].dim()]
    momentum: Any = getattr(user, "momentum", given["momentum"])
    norm = kind(
        given["running_mean"].numel(),
        given["eps"],
        momentum,
        given["weight"] is not None,
        device="meta",
    )
    norm.training = user.training
    norm._parameters.clear()
    norm._parameters.update(replica._parameters)
    counter = norm._buffers["num_batches_tracked"]
    norm._buffers.clear()
    norm._buffers.update(replica._buffers)
    if "num_batches_tracked" not in replica._buffers and counter is not None:
        norm.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long), False)
    for name in ("weight", "bias"):
        norm._parameters.setdefault(name, None)
    norm._modules.update(replica._modules)
    return norm


def _forget_count(recorder: Recorder, norm: nn.Module) -> None:
    """The module counts its batches itself: drop the count that the user's code made."""
    for node in reversed(recorder.graph.nodes):
        if node.op == "call_method" and node.target == "add_" and not node.users:
            source = node.args[0]
            if isinstance(source, torch.fx.Node) and source.op == "get_attr":
                target = get_attribute(recorder.values.root, str(source.target))
                if target is norm._buffers.get("num_batches_tracked"):
                    recorder.values.erase(node)
                    if not source.users:
                        recorder.values.erase(source)
                    return
