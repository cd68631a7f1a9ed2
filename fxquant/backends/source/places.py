"""The modules and tensors that a graph holds, by path: what is below what, and how it is reached.

layer1.0.conv1.weight, seen from layer1.0   ->  self.conv1.weight
                       seen from the model  ->  self.layer1[0].conv1.weight
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.fx import GraphModule

from fxquant.ir.origin import ModuleKind, Origin
from fxquant.ir.spelling import Unspellable, class_code, construction

Form = Literal["attributes", "list", "dict"]
LISTS = ("Sequential", "ModuleList", "ParameterList")
DICTS = ("ModuleDict", "ParameterDict")


def join(path: str, name: str) -> str:
    """A path and a name below it."""
    return f"{path}.{name}" if path else name


@dataclass(frozen=True)
class Tie:
    """One object at two paths: `path` is another name of `first`."""

    path: str
    first: str


class Places:
    """All paths of a graph's modules and tensors."""

    def __init__(self, root: GraphModule, origin: Origin) -> None:
        self.root = root
        self.kinds: dict[str, ModuleKind] = dict(origin.kinds)
        self.paths: dict[int, list[str]] = {}
        self.ties: list[Tie] = []
        self._objects: dict[str, object] = {}
        self._extra: dict[str, list[str]] = {}
        self.called: set[str] = set()
        self.targets = {str(n.target) for n in root.graph.nodes if n.op == "call_module"}
        self._leaves: dict[str, bool] = {}
        self._walk("", root, shared=False)

    def _walk(self, path: str, module: nn.Module, shared: bool) -> None:
        for name, value in _members(module):
            target = join(path, name)
            self._objects[target] = value
            known = self.paths.setdefault(id(value), [])
            known.append(target)
            if len(known) > 1 and not shared:
                self.ties.append(Tie(target, known[0]))
            if isinstance(value, nn.Module):
                self._walk(target, value, shared or len(known) > 1)

    def add_called(self, paths: Iterable[str]) -> None:
        """Modules without tensors may be gone from the graph and still be called."""
        paths = sorted(paths, key=lambda each: each.count("."))
        self.called.update(paths)
        for path in paths:
            parent, _, name = path.rpartition(".")
            if path and name not in self.names(parent):
                if parent and parent not in self._objects:
                    self.add_called([parent])
                self._extra.setdefault(parent, []).append(name)

    def below(self, path: str, target: str) -> str | None:
        """Where a target stands below a module, under one of its names; None if it does not."""
        if not path:
            return target
        prefix = f"{path}."
        if target.startswith(prefix):
            return target
        value = self._objects.get(target)
        others = self.paths.get(id(value), ())
        return next((other for other in others if other.startswith(prefix)), None)

    def get(self, path: str) -> object:
        """The module or tensor at a path; None for a module that only is called."""
        return self._objects.get(path) if path else self.root

    def tensors(self, path: str) -> Iterator[tuple[str, Tensor | None]]:
        """The parameters and buffers of one module."""
        module = self.get(path)
        if isinstance(module, nn.Module):
            yield from module._parameters.items()
            yield from module._buffers.items()

    def names(self, path: str) -> list[str]:
        """The names of the modules right below one."""
        module = self.get(path)
        own = [] if not isinstance(module, nn.Module) else list(module._modules)
        return [*own, *self._extra.get(path, ())]

    def is_leaf(self, path: str) -> bool:
        """Whether it is made by a constructor of torch or fxquant."""
        if path not in self._leaves:
            self._leaves[path] = bool(path) and self._has_constructor(path)
        return self._leaves[path]

    def _has_constructor(self, path: str) -> bool:
        module = self.get(path)
        if not isinstance(module, nn.Module) or type(module) is nn.Module:
            return False
        if class_code(type(module)) is None or path in self.targets:
            return class_code(type(module)) is not None
        try:
            return bool(construction(module).code)
        except Unspellable:
            return False  # nobody calls it, and passes took some of its tensors: only those count

    def form(self, path: str) -> Form:
        """How what is below a module is reached."""
        names = self.names(path)
        kind = self.kinds.get(path, ModuleKind(""))
        plain = not any(tensor is not None for _, tensor in self.tensors(path))
        if kind.base.startswith("Parameter"):
            return "list" if kind.base in LISTS else "dict"
        if names and plain and names == [str(number) for number in range(len(names))]:
            return "list"
        keys = kind.base in DICTS and path not in self.called
        if plain and names and (keys or not all(map(str.isidentifier, names))):
            return "dict"
        return "attributes"

    def access(self, base: str, target: str, owner: str = "self") -> str:
        """The code that reads a target in a method of the module at `base`."""
        text, path = owner, base
        rest = target[len(base) + 1 :] if base else target
        for name in rest.split("."):
            form = "attributes" if self.is_leaf(path) else self.form(path)
            if form == "list" and name.isdigit():
                text += f"[{name}]"
            elif form == "dict":
                text += f'["{name}"]'
            elif name.isidentifier():
                text += f".{name}"
            else:
                text += f'.get_submodule("{name}")'
            path = join(path, name)
        return text


def _members(module: nn.Module) -> Iterator[tuple[str, object]]:
    tables = (module._parameters, module._buffers, module._modules)
    for table in tables:
        for name, value in table.items():
            if value is not None:
                yield name, value
