"""Each module of the model as a class would describe it: its members, and its `forward`.

A module that torch has a constructor for is a call of it; a `Sequential` that only runs its members
one after the other stays one; every other module is an instance of a generated class.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from fxquant.backends.source.bodies import Body
from fxquant.backends.source.parts import (
    Container,
    Instance,
    Leaf,
    Part,
    Reference,
    TensorPart,
    skeleton,
)
from fxquant.backends.source.places import Places, join
from fxquant.backends.source.regions import Region
from fxquant.ir.origin import ModuleKind
from fxquant.ir.spelling import TensorShape, construction, spell

WEIGHTS = "fqnn.Weights"


@dataclass(eq=False)
class Blueprint:
    """One module as the class that could make it.

    Attributes:
        path: of the module.
        name: what its class was called.
        base: the class of `torch.nn` to inherit from.
        members: its parts by name.
        after: statements of the constructor that follow the members.
        body: its `forward`; None where the base class has it, or where nothing calls it whole.
    """

    path: str
    name: str
    base: str
    members: dict[str, Part] = field(default_factory=dict)
    after: list[str] = field(default_factory=list)
    body: Body | None = None

    def key(self, keys: dict[str, Hashable]) -> Hashable:
        """Equal for modules that one class can make."""
        members = tuple((name, skeleton(part, keys)) for name, part in self.members.items())
        body = None if self.body is None else self.body.key()
        return (self.name, self.base, members, tuple(self.after), body)


class Draughtsman:
    """Draws the blueprints of all modules of a model."""

    def __init__(self, places: Places, root: Region, bodies: Mapping[str, Body]) -> None:
        self.places, self.bodies = places, bodies
        self.chains = {
            region.path
            for region in root.regions()
            if is_chain(region, places) and not (region is root and "" in bodies)
        }
        self._open: list[Blueprint] = []
        self.stored = False  # whether constants stand in the weights file only
        self.called = {region.path for region in root.regions()}
        self.blueprints: dict[str, Blueprint] = {}
        self.first = {
            tie.path: tie.first
            for tie in places.ties
            if isinstance(places.get(tie.path), nn.Module)
        }

    def draw(self) -> dict[str, Blueprint]:
        """The blueprint of every module that needs a class, by path; inner ones first."""
        self._instance("")
        for tie in self.places.ties:
            self._tie(tie.path, tie.first)
        if self.stored:
            self.blueprints[""].after.append("fqnn.load_constants(self, __file__)")
        return self.blueprints

    def _part(self, path: str, owner: Blueprint) -> Part:
        """A module as a member of the class that `owner` describes."""
        module = self.places.get(path)
        if self.places.is_leaf(path):
            assert isinstance(module, nn.Module)
            return self._reference(path, owner) or self._leaf(path, module, owner)
        reference = self._reference(path, owner)
        if reference is not None:
            return reference
        path = self.first.get(path, path)
        kind = self.places.kinds.get(path, ModuleKind(""))
        if kind.base.startswith("Parameter") and isinstance(module, nn.Module):
            return Container(f"nn.{kind.base}", dict(self._tensors(path)))
        container = self._container(path, kind)
        if container is not None:
            names = self.places.names(path)
            items = {name: self._part(join(path, name), owner) for name in names}
            numbered = list(items) == [str(number) for number in range(len(items))]
            return Container(container, items, keyed=not numbered)
        if path in self.called or self.places.names(path):
            self._instance(path)
            return Instance(path)
        if not isinstance(module, nn.Module):
            return Container("nn.Identity", {})
        tensors = dict(self._tensors(path, self._label(path, owner)))
        return Container(WEIGHTS if tensors else "nn.Identity", tensors)

    def _label(self, path: str, owner: Blueprint) -> str:
        """What the arguments of a member are called after."""
        return path[len(owner.path) + 1 :] if owner.path else path

    def _reference(self, path: str, owner: Blueprint) -> Reference | None:
        """The name of a member that is the same object."""
        first = self.first.get(path)
        if first is None or self._owner(first) is not owner or path.count(".") != first.count("."):
            return None
        return Reference(self.places.access(owner.path, first))

    def _container(self, path: str, kind: ModuleKind) -> str | None:
        """The container of torch that is all that a module is."""
        names = self.places.names(path)
        if not names or any(tensor is not None for _, tensor in self.places.tensors(path)):
            return None
        if path in self.chains:
            return "nn.Sequential" if kind.name == "Sequential" else None
        if path in self.called:
            return None
        form = self.places.form(path)
        if kind.base == "Sequential" and form != "dict":
            return "nn.Sequential"
        return {"list": "nn.ModuleList", "dict": "nn.ModuleDict"}.get(form)

    def _leaf(self, path: str, module: nn.Module, owner: Blueprint) -> Leaf:
        made = construction(module)
        place = self.places.access(owner.path, path)
        for name, value in made.overrides.items():
            owner.after.append(_override(place, module, name, value))
        owner.after += _not_trained(place, module)
        return Leaf.of(made, self._label(path, owner))

    def _tensors(self, path: str, owner: str = "") -> Iterator[tuple[str, Part]]:
        module = self.places.get(path)
        if isinstance(module, nn.Module):
            for name, tensor in self.places.tensors(path):
                if tensor is not None:
                    part = TensorPart.of(module, name, tensor, owner)
                    self.stored |= not part.persistent and part.values is None
                    yield name, part

    def _instance(self, path: str) -> None:
        if path in self.blueprints:
            return
        kind = self.places.kinds.get(path, ModuleKind(""))
        chain = path in self.chains
        base = "nn.Sequential" if chain else BASES[self.places.form(path)]
        blueprint = Blueprint(path, self._name(path, kind), base)
        if not chain:
            blueprint.body = self.bodies.get(path)
            blueprint.members.update(self._tensors(path))
        self._open.append(blueprint)
        for name in self.places.names(path):
            part = self._part(join(path, name), blueprint)
            nothing = isinstance(part, Container) and part.callee == "nn.Identity"
            if not (nothing and base == "nn.Module"):
                blueprint.members[name] = part
        self._open.pop()
        self.blueprints[path] = blueprint

    def _owner(self, path: str) -> Blueprint | None:
        """The class in whose constructor a path is made."""
        parent = path.rpartition(".")[0]
        while True:
            for blueprint in (*self.blueprints.values(), *self._open):
                if blueprint.path == parent:
                    return blueprint
            if not parent:
                return None
            parent = parent.rpartition(".")[0]

    def _name(self, path: str, kind: ModuleKind) -> str:
        """The user's class name; for torch's containers, after the attribute."""
        if kind.name and not (kind.name == kind.base or (not path and hasattr(nn, kind.name))):
            return kind.name
        parts = [part for part in path.split(".") if not part.isdigit()]
        return camel(parts[-1]) if path and parts else "Model"

    def _tie(self, path: str, first: str) -> None:
        """`self.decoder.weight = self.encoder.weight`, in the class that holds both."""
        here, there = self._owner(path), self._owner(first)
        if here is None or there is None:
            return
        shared = max(
            (
                each
                for each in self.blueprints
                if not each or (path.startswith(f"{each}.") and first.startswith(f"{each}."))
            ),
            key=len,
        )
        owner = self.blueprints[shared]
        member = owner.members.get(path[len(shared) + 1 :] if shared else path)
        if isinstance(member, Reference):
            return
        left, right = (self.places.access(shared, each) for each in (path, first))
        if left.endswith(")"):
            head, _, name = left.rpartition(".get_submodule(")
            owner.after.append(f"{head}.add_module({name[:-1]}, {right})")
        else:
            owner.after.append(f"{left} = {right}")


BASES: Mapping[str, str] = {
    "attributes": "nn.Module",
    "list": "nn.ModuleList",
    "dict": "nn.ModuleDict",
}


def camel(name: str) -> str:
    """An attribute's name as that of a class.

    >>> camel("down_sample")
    'DownSample'
    """
    return "".join(part[:1].upper() + part[1:] for part in name.split("_")) or "Part"


def is_chain(region: Region, places: Places) -> bool:
    """Whether a call of a `Sequential` did what torch's own `forward` does."""
    kind = places.kinds.get(region.path, ModuleKind(""))
    if kind.base != "Sequential" or not kind.plain or len(region.inputs) != 1:
        return False
    if places.form(region.path) == "dict":
        return False
    if any(tensor is not None for _, tensor in places.tensors(region.path)):
        return False
    names = places.names(region.path)
    value = region.inputs[0]
    if len(region.items) != len(names) or region.outputs[1:]:
        return False
    for item, name in zip(region.items, names, strict=True):
        path = join(region.path, name)
        if isinstance(item, Region):
            if item.path != path or item.inputs != [value] or len(item.outputs) != 1:
                return False
            value = item.outputs[0]
            continue
        own = item.op == "call_module" and places.below(region.path, str(item.target)) == path
        if not own or item.args != (value,) or item.kwargs:
            return False
        value = item
    return region.outputs == [value]


def _not_trained(place: str, module: nn.Module) -> Iterator[str]:
    """Parameters of a layer that were taken out of training."""
    parameters = dict(module.named_parameters(recurse=False))
    still = [name for name, each in parameters.items() if not each.requires_grad]
    if still and len(still) == len(parameters):
        yield f"{place}.requires_grad_(False)"
        return
    for name in still:
        yield f"{place}.{name}.requires_grad = False"


def _override(place: str, module: nn.Module, name: str, value: object) -> str:
    if not isinstance(value, TensorShape):
        return f"{place}.{name} = {spell(value)}"
    tensor = getattr(module, name)
    made = f"torch.empty({', '.join(map(str, value.shape)) or '()'}, dtype={value.dtype})"
    if isinstance(tensor, nn.Parameter):
        made = f"nn.Parameter({made})"
    assert isinstance(tensor, Tensor)
    if name in module._buffers:
        return f'{place}.register_buffer("{name}", {made})'
    return f"{place}.{name} = {made}"
