"""Blueprints that differ only in numbers become one class with constructor arguments.

    layer1.0: nn.Conv2d(64, 64)     class BasicBlock(nn.Module):
    layer2.0: nn.Conv2d(64, 128) ->     def __init__(self, in_channels, out_channels):
                                            self.conv1 = nn.Conv2d(in_channels, out_channels)

A constructor takes what differs between the instances; what always is the same number of the same
kind is one argument.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fxquant.backends.source.blueprints import Blueprint, camel
from fxquant.backends.source.layout import Hole
from fxquant.backends.source.parts import REQUIRED, Instance, Leaf, Part, Slot, slots
from fxquant.backends.source.variables import identifier

# Arguments of one meaning: numbers of channels, which layers pass on to one another.
CHANNELS = frozenset(
    {
        "in_channels",
        "out_channels",
        "num_features",
        "in_features",
        "out_features",
        "num_channels",
        "normalized_shape",
        "embed_dim",
        "groups",
    }
)


@dataclass(eq=False)
class GeneratedClass:
    """A class of the file.

    Attributes:
        name: of the class.
        model: the blueprint of its first instance, which the code is written from.
        paths: of all instances.
        parameters: of the constructor, in order.
        values: what each instance is made with, by path and parameter.
        codes: what stands in each gap of `model`: a parameter, where it is not a fixed number.
        attributes: parameters that `forward` reads, and the constructor keeps.
        defaults: torch's own, of the last parameters, where an instance has them.
    """

    name: str
    model: Blueprint
    paths: list[str]
    parameters: list[str] = field(default_factory=list)
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    codes: dict[Hashable, str] = field(default_factory=dict)
    attributes: list[str] = field(default_factory=list)
    defaults: dict[str, Any] = field(default_factory=dict)

    def is_default(self, name: str, value: Any) -> bool:
        """Whether a parameter need not be given."""
        return name in self.defaults and _same(self.defaults[name], value)


def share(blueprints: Mapping[str, Blueprint]) -> list[GeneratedClass]:
    """The classes of a model, those that others are made of first."""
    groups: dict[Hashable, list[str]] = {}
    keys: dict[str, Hashable] = {}
    numbers: dict[Hashable, int] = {}
    for path, blueprint in blueprints.items():
        whole = blueprint.key(keys)
        keys[path] = numbers.setdefault(whole, len(numbers))  # short, or keys grow with depth
        groups.setdefault(keys[path], []).append(path)
    models = [blueprints[paths[0]] for paths in groups.values()]
    names = _class_names(models)
    classes: list[GeneratedClass] = []
    by_path: dict[str, GeneratedClass] = {}
    for paths, name, model in zip(groups.values(), names, models, strict=True):
        made = GeneratedClass(name, model, paths)
        _parametrize(made, [blueprints[path] for path in paths], by_path)
        classes.append(made)
        by_path.update(dict.fromkeys(paths, made))
    return classes


def _class_names(models: Sequence[Blueprint]) -> list[str]:
    """The users' names; variants say what they have in addition, or have a number."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    plainest: dict[str, Blueprint] = {}
    order = sorted(range(len(models)), key=lambda index: (len(models[index].members), index))
    for index in order:
        model = models[index]
        wanted = model.name if model.name.isidentifier() else identifier(model.name, "Part")
        first = plainest.setdefault(model.name, model)
        more = [name for name in model.members if name not in first.members]
        label = _label(more[0], model.members[more[0]]) if len(more) == 1 else None
        if wanted in taken and label is not None:
            wanted = f"{wanted}With{label}"
        names[index] = _unused(wanted, taken)
        taken.add(names[index])
    return [names[index] for index in range(len(models))]


def _label(name: str, part: Part) -> str | None:
    """A member in the name of a class: a number is not one."""
    if not name.isdigit():
        return camel(name)
    return part.made.callee.rpartition(".")[2] if isinstance(part, Leaf) else None


def _unused(wanted: str, taken: Container[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}{number}"
    return name


Gap = tuple[Hashable, Slot]  # what identifies it in the code, and what stands there


def _gaps(blueprint: Blueprint, by_path: Mapping[str, GeneratedClass]) -> Iterator[Gap]:
    for name, part in blueprint.members.items():
        yield from _gaps_of(name, part, by_path)
    for hole in () if blueprint.body is None else blueprint.body.holes():
        owner = _local(hole.owner, blueprint.path)
        yield hole, Slot(hole.name, hole.value, owner)


def _local(node: str, path: str) -> str:
    """The name of a node in the module that it stands in."""
    prefix = path.replace(".", "_").lower() + "_" if path else ""
    return node[len(prefix) :] if node.lower().startswith(prefix) else node


def _gaps_of(name: str, part: Part, by_path: Mapping[str, GeneratedClass]) -> Iterator[Gap]:
    for slot in slots(part):
        if isinstance(slot, Instance):
            made = by_path[slot.path]
            for parameter in made.parameters:
                value = made.values[slot.path][parameter]
                usual = made.defaults.get(parameter, REQUIRED)
                yield (slot, parameter), Slot(parameter, value, name, usual)
        else:
            yield slot, slot


def _parametrize(
    made: GeneratedClass, members: list[Blueprint], by_path: Mapping[str, GeneratedClass]
) -> None:
    rows = [list(_gaps(member, by_path)) for member in members]
    columns: dict[Hashable, str] = {}
    for position, (place, slot) in enumerate(rows[0]):
        values = [row[position][1].value for row in rows]
        if all(_same(value, values[0]) for value in values):
            continue
        meaning = _meaning(slot.name)
        column = (meaning, tuple(map(repr, values)))
        if column not in columns:
            name = _free(slot, [*made.parameters, *made.model.members])
            columns[column] = name
            made.parameters.append(name)
            if any(_same(value, slot.default) for value in values):
                made.defaults[name] = slot.default
            for path, value in zip(made.paths, values, strict=True):
                made.values.setdefault(path, {})[name] = value
        name = columns[column]
        made.codes[place] = f"self.{name}" if isinstance(place, Hole) else name
        if isinstance(place, Hole) and name not in made.attributes:
            made.attributes.append(name)
    made.parameters.sort(key=made.defaults.__contains__)


def _meaning(name: str) -> str:
    """Arguments of one meaning may be one argument."""
    if name in CHANNELS:
        return "channels"
    return "shape" if name.endswith("_shape") else name


def _same(first: Any, second: Any) -> bool:
    return repr(first) == repr(second)


def _free(slot: Slot, taken: list[str]) -> str:
    """The argument's own name, with the member's before it where that is taken."""
    wanted = identifier(slot.name)
    if wanted not in taken:
        return wanted
    stem = identifier(f"{slot.owner}_{slot.name}".replace(".", "_"))
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name
