"""Which tensors share memory, and what a write to one of them does to the others.

    y = x[0]; y.add_(1); return x
      -> %y = select(%x, 0, 0); %add = add(%y, 1); %x1 = select_scatter(%x, %add, 0, 0)

Every tensor of the program is an alias: of itself, or, through a view, of its parent. The root of
a tree of views holds the memory and counts the writes to it. Reading an alias whose root was
written to takes the view of the parent anew; writing to an alias makes a new value for its parent
by the inverse of the view, and so on up to the root.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.fx import Node

from fxquant.passes.functional.unsupported import Unsupported

Forward = Callable[[Node], Node]
Backward = Callable[[Node, Node], Node]


@dataclass(frozen=True)
class View:
    """How a view is taken of its parent, and how its new value is put back.

    Attributes:
        forward: parent's node -> view's node.
        backward: (parent's node, view's new node) -> parent's new node; None: cannot be written.
    """

    forward: Forward
    backward: Backward | None = None


IDENTITY = View(lambda node: node, lambda _, new: new)


class Alias:
    """A tensor of the program and the node that holds its value now.

    Attributes:
        tensor: the fake tensor that stands for it.
        node: the node of its value, right as of `version`.
        version: for a root the number of writes so far, for a view that number when node was made.
        state: path of the parameter or buffer that this is, if it is one.
    """

    __slots__ = ("node", "parent", "state", "tensor", "version", "view")

    version: int

    def __init__(
        self,
        tensor: torch.Tensor,
        node: Node,
        parent: Alias | None = None,
        view: View = IDENTITY,
        state: str | None = None,
    ) -> None:
        self.tensor = tensor
        self.node = node
        self.parent = parent
        self.view = view
        self.state = state
        self.version = 0 if parent is None else self.root.version

    @property
    def root(self) -> Alias:
        """The alias that owns the memory."""
        alias = self
        while alias.parent is not None:
            alias = alias.parent
        return alias

    def read(self) -> Node:
        """The node of the present value."""
        if self.parent is not None and self.version != self.root.version:
            self.node = self.view.forward(self.parent.read())
            self.version = self.root.version
        return self.node

    def write(self, node: Node) -> None:
        """Let `node` be the value from now on, for this alias and all that share its memory."""
        if self.parent is None:
            if self.state is not None:
                raise Unsupported(
                    f"@{self.state} is written to in forward",
                    "keep state out of the model: pass it as an input and return it",
                )
            self.version += 1
        else:
            if self.view.backward is None:
                raise Unsupported(
                    "a write to an expanded or overlapping view", "call .clone() on it first"
                )
            self.parent.write(self.view.backward(self.parent.read(), node))
            self.version = self.root.version
        self.node = node


def share_memory(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two fake tensors lie in the same storage."""
    one, other = first.untyped_storage(), second.untyped_storage()
    return bool(one._cdata == other._cdata)


def are_one(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two fake tensors are the same part of the same memory."""
    return (
        first.shape == second.shape
        and first.stride() == second.stride()
        and first.storage_offset() == second.storage_offset()
        and first.dtype == second.dtype
        and share_memory(first, second)
    )
