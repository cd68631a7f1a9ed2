"""What tracing may change in the user's model, kept so that it can be put back.

A forward pass in train mode writes batch-norm statistics, caches values in attributes, draws random
numbers. `Snapshot.take` notes all of it before, `restore` undoes it after, also after an error.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor


@dataclass
class SavedTensor:
    """A tensor of the model and a copy of its values."""

    tensor: torch.Tensor
    copy: torch.Tensor

    def restore(self) -> None:
        """Write the values back, if they were overwritten.

        Batch norm writes its statistics without counting up the tensor's version, so values are
        compared.
        """
        if not torch.equal(self.tensor, self.copy):
            with torch.no_grad():
                self.tensor.copy_(self.copy)


@dataclass
class RandomState:
    """The state of the random generators that a forward pass may draw from."""

    torch_state: torch.Tensor
    python_state: Any

    @classmethod
    def take(cls) -> RandomState:
        """Note the state of torch's and Python's generators."""
        return cls(torch.get_rng_state(), random.getstate())

    def restore(self) -> None:
        """Go back to it."""
        torch.set_rng_state(self.torch_state)
        random.setstate(self.python_state)


@dataclass
class Snapshot:
    """Attributes and tensors of a model before a trace."""

    attributes: list[tuple[nn.Module, dict[str, Any], dict[str, Any]]]
    buffers: dict[int, SavedTensor]
    random_state: RandomState
    grad_enabled: bool
    written: dict[int, SavedTensor] = field(default_factory=dict)
    _owners: dict[int, torch.Tensor] | None = None

    @classmethod
    def take(cls, model: nn.Module) -> Snapshot:
        """Note everything that a forward pass may change; buffers are copied."""
        attributes = []
        for module in model.modules():
            contents = {
                key: value.copy()
                for key, value in module.__dict__.items()
                if type(value) in _CONTAINERS
            }
            attributes.append((module, dict(module.__dict__), contents))
        buffers = {
            id(buffer): SavedTensor(buffer, buffer.detach().clone()) for buffer in model.buffers()
        }
        state = RandomState.take()
        return cls(attributes, buffers, state, torch.is_grad_enabled())

    def copy_of(self, buffer: torch.Tensor) -> torch.Tensor:
        """The copy made of a buffer."""
        saved = self.buffers.get(id(buffer))
        return buffer if saved is None else saved.copy

    def protect(self, tensor: torch.Tensor) -> None:
        """Copy a parameter that is about to be written."""
        if id(tensor) not in self.buffers and id(tensor) not in self.written:
            saved = SavedTensor(tensor, tensor.detach().clone())
            self.written[id(tensor)] = saved

    def protect_alias(self, tensor: torch.Tensor) -> None:
        """Copy the parameters that share memory with a tensor about to be written."""
        if isinstance(tensor, FakeTensor):
            return
        if self._owners is None:
            self._owners = {}
            for module, _, _ in self.attributes:
                for parameter in module._parameters.values():
                    if parameter is not None:
                        self._owners[parameter.untyped_storage()._cdata] = parameter
        owner = self._owners.get(tensor.untyped_storage()._cdata)
        if owner is not None:
            self.protect(owner)

    def buffer_at(self, module: nn.Module, name: str) -> torch.Tensor | None:
        """The buffer that stood there before the trace."""
        for each, attributes, contents in self.attributes:
            if each is module:
                buffer = contents.get("_buffers", attributes["_buffers"]).get(name)
                return buffer if isinstance(buffer, torch.Tensor) else None
        return None

    def restore(self) -> None:
        """Put attributes, tensors, random generators and the gradient mode back."""
        for module, attributes, contents in self.attributes:
            for key in module.__dict__.keys() - attributes.keys():
                del module.__dict__[key]
            module.__dict__.update(attributes)
            for key, content in contents.items():
                _refill(attributes[key], content)
        for saved in (*self.written.values(), *self.buffers.values()):
            saved.restore()
        self.random_state.restore()
        torch.set_grad_enabled(self.grad_enabled)


_CONTAINERS = (dict, list, set, type(nn.Module()._forward_hooks))


def _refill(container: Any, content: Any) -> None:
    if len(container) == len(content) and _same_items(container, content):
        return
    container.clear()
    if isinstance(container, list):
        container.extend(content)
    else:
        container.update(content)


def _same_items(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        pairs = zip(left.items(), right.items(), strict=True)
        return all(a[0] == b[0] and a[1] is b[1] for a, b in pairs)
    if isinstance(left, list):
        return all(a is b for a, b in zip(left, right, strict=True))
    return bool(left == right)
