"""The tensors of a generated file: modules that only hold some, and the file that has them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.fx import GraphModule

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Buffer:
    """A tensor that is not trained, as an argument of `Weights`."""

    value: Tensor
    persistent: bool = True


class Weights(nn.Module):
    """A module that only holds tensors, by name: what is left of a layer in the core dialect.

    Args:
        **tensors: the shape of a float32 parameter, a ready parameter, or a `Buffer`.

    >>> sorted(Weights(weight=(4, 3), bias=(4,)).state_dict())
    ['bias', 'weight']
    """

    def __init__(self, **tensors: Shape | nn.Parameter | Buffer) -> None:
        super().__init__()
        for name, given in tensors.items():
            if isinstance(given, Buffer):
                self.register_buffer(name, given.value, given.persistent)
            else:
                made = (
                    given if isinstance(given, nn.Parameter) else nn.Parameter(torch.empty(given))
                )
                self.register_parameter(name, made)


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Every tensor of a module by name: its state, and the buffers that are not part of it."""
    state: dict[str, Tensor] = dict(module.state_dict(keep_vars=True))
    for name, buffer in module.named_buffers(remove_duplicate=False):
        state.setdefault(name, buffer)
    return state


def weights_file(graph_module: GraphModule) -> bytes:
    """All tensors of a graph in safetensors; what has two names is stored under the first."""
    seen: set[int] = set()
    memory: set[int] = set()
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors_of(graph_module).items():
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage().data_ptr()
        if storage in memory or value.untyped_storage().nbytes() != value.nbytes:
            value = value.clone()  # a part of another tensor's memory
        memory.add(storage)
        stored[name] = value
    return save(stored)
