"""What a module is made of, as code with gaps: the numbers that differ from instance to instance.

    nn.Conv2d(64, 128, kernel_size=3)  ->  nn.Conv2d(⟨64⟩, ⟨128⟩, kernel_size=⟨3⟩)

Two modules whose code is equal but for the gaps are instances of one class, whose constructor takes
what differs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fxquant.backends.source.variables import identifier
from fxquant.ir.spelling import Construction, TensorShape

REQUIRED = inspect.Parameter.empty
FEW = 8  # values of a constant that may stand in the code


@dataclass(eq=False)
class Slot:
    """A gap.

    Attributes:
        name: of the constructor's argument.
        value: what this instance has there.
        owner: name of the member that it belongs to.
        default: what torch takes where nothing is given; REQUIRED where something must be.
    """

    name: str
    value: Any
    owner: str = ""
    default: Any = REQUIRED


@dataclass(eq=False)
class Leaf:
    """A module made by a constructor of torch or fxquant."""

    made: Construction
    slots: dict[str, Slot] = field(default_factory=dict)

    @staticmethod
    def of(made: Construction, owner: str) -> Leaf:
        """With one gap for each argument."""
        usual = made.defaults
        slots = {
            name: Slot(name, value, owner, usual.get(name, REQUIRED))
            for name, value in made.arguments.items()
        }
        return Leaf(made, slots)


@dataclass(eq=False)
class TensorPart:
    """A parameter or a buffer of the module itself."""

    shape: Slot
    dtype: str | None
    trained: bool
    buffer: bool
    persistent: bool = True
    values: Slot | None = None

    @staticmethod
    def of(module: nn.Module, name: str, tensor: Tensor, owner: str = "") -> TensorPart:
        """That of one attribute; `owner` is the member that has it, if not the module itself."""
        shape = TensorShape.of(tensor)
        persistent = name not in module._non_persistent_buffers_set
        return TensorPart(
            Slot(re.sub(r"_\d+$", "", name) if owner else f"{name}_shape", shape.shape, owner),
            None if shape.dtype == torch.float32 else str(shape.dtype),
            isinstance(tensor, nn.Parameter) and tensor.requires_grad,
            name in module._buffers,
            persistent,
            None if persistent else _values(name, tensor),
        )


def _values(name: str, tensor: Tensor) -> Slot | None:
    """The values of a small constant."""
    if tensor.numel() > FEW or tensor.is_complex():
        return None
    return Slot(identifier(name, "constant"), tensor.tolist(), name)


@dataclass(eq=False)
class Container:
    """A list, a sequence or a dict of modules, or a module that only holds tensors."""

    callee: str
    items: dict[str, Part]
    keyed: bool = False


@dataclass(eq=False)
class Instance:
    """A module of a generated class: `path` tells which."""

    path: str


@dataclass(eq=False)
class Reference:
    """The same module or tensor as another member."""

    code: str


Part = Leaf | TensorPart | Container | Instance | Reference


def skeleton(part: Part, keys: dict[str, Hashable]) -> Hashable:
    """A part without what stands in its gaps; `keys` has those of instances by path."""
    match part:
        case Leaf(made):
            overrides = tuple((name, repr(value)) for name, value in made.overrides.items())
            return ("leaf", made.callee, tuple(made.arguments), overrides)
        case TensorPart():
            rest = (part.dtype, part.trained, part.buffer, part.persistent)
            return ("tensor", *rest, part.values is not None)
        case Container(callee, items, keyed):
            inner = tuple((name, skeleton(item, keys)) for name, item in items.items())
            return ("container", callee, keyed, inner)
        case Instance(path):
            return ("instance", keys[path])
        case Reference(code):
            return ("reference", code)


def slots(part: Part) -> Iterator[Slot | Instance]:
    """The gaps of a part in order; instances stand for those of their classes."""
    match part:
        case Leaf():
            yield from part.slots.values()
        case TensorPart(shape):
            yield shape if part.values is None else part.values
        case Container(_, items):
            for item in items.values():
                yield from slots(item)
        case Instance():
            yield part
