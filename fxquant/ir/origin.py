"""The module tree that a graph comes from, and which of its modules called which.

A traced graph is flat: the calls of the user's own modules are gone. This record keeps what is
needed to tell the story again: the class of every module, and every call in order, so that a node
(by `SourceLocation.call`) knows in which call of which module it was made. Passes leave it alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ModuleKind:
    """The class of a module.

    Attributes:
        name: of its class.
        base: the container of `torch.nn` that it is or inherits from; `Module` if none.
        plain: whether a call of it is a call of `base`, i.e. it has no `forward` of its own.
    """

    name: str
    base: str = "Module"
    plain: bool = False


@dataclass(frozen=True)
class ModuleCall:
    """One call of a module that was followed inside.

    Attributes:
        path: of the module.
        parent: the number of the call inside which it happened; None for the model's own.
        arguments: parameter of its `forward` and name of the node, where both are known.
    """

    path: str
    parent: int | None = None
    arguments: tuple[tuple[str, str], ...] = ()


@dataclass
class Origin:
    """What a graph was before it was one.

    Attributes:
        kinds: the class of every module, by path.
        calls: every call of a module that was followed inside, in order.
        tensors: names of the model's parameters and buffers.
    """

    kinds: dict[str, ModuleKind] = field(default_factory=dict)
    calls: list[ModuleCall] = field(default_factory=list)
    tensors: frozenset[str] = frozenset()
