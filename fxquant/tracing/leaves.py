"""Which modules stay whole in the graph, and the tree of modules that the graph owns.

    layer(x)  ->  %layer = call_module[layer](%x)        for a module of torch.nn
    block(x)  ->  the operations inside                  for everything else

So do the modules of `fxquant.nn`: stubs, sums, quantizers. A module of the user's, a container, and
a module whose result is changed by hooks or
parametrizations are followed inside. The graph owns shallow copies: parameters are the user's own,
buffers are copies, so that training the graph's batch norms leaves the user's model alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from fxquant.tracing.snapshot import Snapshot

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def is_leaf(module: nn.Module) -> bool:
    """Whether a call of this module becomes one node."""
    if is_own(module):
        return True
    kind = type(module)
    return (
        kind.__module__.startswith("torch.nn.modules.")
        and kind is not nn.Module
        and not module._modules
        and not issubclass(kind, CONTAINERS)
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not parametrize.is_parametrized(module)
        and "forward" not in module.__dict__
    )


def is_own(module: nn.Module) -> bool:
    """Whether it is one of fxquant's that prints as an operation: a stub, a quantizer, a sum."""
    kind = type(module)
    prints = kind.__module__.startswith("fxquant.") and hasattr(kind, "ir_label")
    return prints and getattr(module, "ir_whole", True)


def replicate(model: nn.Module, snapshot: Snapshot) -> nn.Module:
    """The graph's own module tree, with all names, parameters and buffers of the model."""
    return _replicate(model, snapshot, {}, leaf=False)


def _replicate(
    module: nn.Module, snapshot: Snapshot, memo: dict[int, nn.Module], *, leaf: bool
) -> nn.Module:
    known = memo.get(id(module))
    if known is not None:
        return known
    copy = shallow_copy(module) if leaf else empty_like(module)
    memo[id(module)] = copy
    for name, buffer in module._buffers.items():
        copy._buffers[name] = None if buffer is None else snapshot.copy_of(buffer)
    for name, child in module._modules.items():
        if child is not None:
            replica = _replicate(child, snapshot, memo, leaf=leaf or is_leaf(child))
            copy._modules[name] = replica
    return copy


_HOOKS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def shallow_copy(module: nn.Module) -> nn.Module:
    """A module of the same class and tensors, with dicts of its own and without hooks."""
    copy = module.__class__.__new__(module.__class__)
    attributes: dict[str, Any] = {}
    for key, value in module.__dict__.items():
        attributes[key] = value.copy() if isinstance(value, dict | list | set) else value
    for key in _HOOKS:
        if key in attributes:
            attributes[key].clear()
    copy.__dict__.update(attributes)
    return copy


def empty_like(module: nn.Module) -> nn.Module:
    """A plain module that holds the same parameters; its code is followed, not kept."""
    copy = nn.Module()
    copy.training = module.training
    copy._parameters.update(module._parameters)
    copy._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
    return copy


def state_names(model: nn.Module) -> dict[int, str]:
    """The first qualified name of every parameter and buffer, by identity."""
    names: dict[int, str] = {}
    tensors: list[tuple[str, torch.Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        names.setdefault(id(tensor), name)
    return names
