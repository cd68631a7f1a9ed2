"""The code of one generated class: its constructor, and the `forward` it was given."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace

from fxquant.backends.source.classes import GeneratedClass
from fxquant.backends.source.layout import Code, Group, call, flat, lines, named
from fxquant.backends.source.parts import (
    Container,
    Instance,
    Leaf,
    Part,
    Reference,
    Slot,
    TensorPart,
)
from fxquant.ir.spelling import same, spell

FEW = 2  # arguments that are clear without their names
MANY = 3  # equal modules in a row that are written as a comprehension
SHOWN = 3  # paths that a docstring names
DOCSTRING = 88  # characters that it may have


class ConstructorWriter:
    """Writes parts as code, with constructor arguments in their gaps."""

    def __init__(self, made: GeneratedClass, by_path: Mapping[str, GeneratedClass]) -> None:
        self.made, self.by_path = made, by_path

    def part(self, part: Part) -> Code:
        """The expression that makes a part."""
        match part:
            case Leaf():
                return call(part.made.callee, self._leaf_arguments(part))
            case TensorPart():
                return self._tensor(part)
            case Container():
                return self._container(part)
            case Instance():
                return self._instance(part)
            case Reference(code):
                return code

    def _slot(self, slot: Slot, key: Hashable = None) -> str:
        return self.made.codes.get(slot if key is None else key) or spell(slot.value)

    def _leaf_arguments(self, part: Leaf) -> Iterator[Code]:
        made = part.made
        for index, (name, slot) in enumerate(part.slots.items()):
            free = slot in self.made.codes
            if index < made.positional:
                yield self._slot(slot)
            elif free or not (name in made.defaults and same(made.defaults[name], slot.value)):
                yield named(name, self._slot(slot))

    def _tensor(self, part: TensorPart) -> Code:
        if part.values is not None:
            value = self._slot(part.values)
            return call("torch.tensor", [value, *self._value_dtype(part)])
        dtype = [] if part.dtype is None else [named("dtype", part.dtype)]
        made = call("torch.empty", [self._slot(part.shape), *dtype])
        if part.buffer:
            return made
        return call("nn.Parameter", [made, *([] if part.trained else ["requires_grad=False"])])

    def _value_dtype(self, part: TensorPart) -> list[Code]:
        inferred = {None, "torch.int64", "torch.bool"}
        empty = part.values is not None and not _numbers(part.values.value)
        if part.dtype in inferred and not empty:
            return []
        return [named("dtype", part.dtype or "torch.float32")]

    def _instance(self, part: Instance) -> Code:
        child = self.by_path[part.path]
        values = child.values.get(part.path, {})
        codes = [
            (name, self._slot(Slot(name, values[name]), (part, name)))
            for name in child.parameters
            if (part, name) in self.made.codes or not child.is_default(name, values[name])
        ]
        first = child.parameters[: len(codes)]
        if len(codes) <= FEW and [name for name, _ in codes] == first:
            return call(child.name, [code for _, code in codes])
        return call(child.name, [named(name, code) for name, code in codes])

    def _container(self, part: Container) -> Code:
        if part.callee == "fqnn.Weights":
            return call(part.callee, self._weights(part))
        items = {name: self.part(item) for name, item in part.items.items()}
        if part.callee in {"nn.ModuleDict", "nn.ParameterDict"}:
            return call(part.callee, [_dict(items)])
        if part.callee == "nn.Sequential":
            if part.keyed:
                return call(part.callee, [call("OrderedDict", [_dict(items)])])
            return call(part.callee, repeated(list(items.values())))
        if not items:
            return f"{part.callee}()"
        return call(part.callee, [_list(list(items.values()))])

    def _weights(self, part: Container) -> Iterator[Code]:
        for name, item in part.items.items():
            assert isinstance(item, TensorPart)
            plain = item.dtype is None and item.trained and not item.buffer
            yield named(name, self._slot(item.shape) if plain else self._stored(item))

    def _stored(self, part: TensorPart) -> Code:
        if not part.buffer:
            return self._tensor(part)
        persistent = [] if part.persistent else ["persistent=False"]
        return call("fqnn.Buffer", [self._tensor(part), *persistent])

    def lines(self) -> list[str]:
        """The constructor, empty where there is nothing to make."""
        body = list(self._body())
        if not body:
            return []
        parameters = ["self", *map(self._parameter, self.made.parameters)]
        head = lines(Group("def __init__(", tuple(parameters), "):"), 4)
        return [*head, *body]

    def _parameter(self, name: str) -> str:
        defaults = self.made.defaults
        return f"{name}={spell(defaults[name])}" if name in defaults else name

    def _body(self) -> Iterator[str]:
        blueprint = self.made.model
        if blueprint.base != "nn.Module":
            yield from lines(self._super(), 8)
        elif blueprint.members or blueprint.after or self.made.attributes:
            yield "        super().__init__()"
            for name, part in blueprint.members.items():
                yield from self._member(name, part)
        for name in self.made.attributes:
            yield f"        self.{name} = {name}"
        for statement in blueprint.after:
            yield f"        {statement}"

    def _super(self) -> Code:
        items = {name: self.part(item) for name, item in self.made.model.members.items()}
        callee = "super().__init__"
        if self.made.model.base == "nn.ModuleDict":
            return call(callee, [_dict(items)])
        if self.made.model.base == "nn.ModuleList":
            return call(callee, [_list(list(items.values()))])
        if list(items) != [str(number) for number in range(len(items))]:
            return call(callee, [call("OrderedDict", [_dict(items)])])
        return call(callee, repeated(list(items.values())))

    def _member(self, name: str, part: Part) -> list[str]:
        code = self.part(part)
        if isinstance(part, TensorPart) and part.buffer:
            items = [spell(name), code, *([] if part.persistent else ["persistent=False"])]
            return lines(call("self.register_buffer", items), 8)
        if not name.isidentifier():
            return lines(call("self.add_module", [spell(name), code]), 8)
        return lines(code, 8, f"self.{name} = ")


def _dict(items: Mapping[str, Code]) -> Code:
    pairs: list[Code] = []
    for name, code in items.items():
        head = f"{spell(name)}: "
        pairs.append(_after(head, code) if isinstance(code, Group) else head + flat(code))
    return Group("{", tuple(pairs), "}")


def _after(head: str, code: Group) -> Group:
    return Group(head + code.open, code.items, code.close)


def _list(items: Sequence[Code]) -> Code:
    """A list; one that is all a comprehension is just that."""
    short = repeated(items)
    first = short[0] if len(short) == 1 else None
    if isinstance(first, Group) and first.open.startswith("*["):
        return replace(first, open=first.open[1:])
    return Group("[", tuple(short), "]")


def repeated(items: Sequence[Code]) -> list[Code]:
    """Equal items in a row, as a comprehension from some number on.

    >>> [flat(code) for code in repeated(["Block()"] * 4)]
    ['*[Block() for _ in range(4)]']
    """
    result: list[Code] = []
    start = 0
    while start < len(items):
        stop = start + 1
        while stop < len(items) and items[stop] == items[start]:
            stop += 1
        count = stop - start
        if count >= MANY:
            result.append(_comprehension(items[start], count))
        else:
            result.extend(items[start:stop])
        start = stop
    return result


def _comprehension(item: Code, count: int) -> Group:
    end = f" for _ in range({count})]"
    if isinstance(item, Group):
        return Group(f"*[{item.open}", item.items, item.close + end, whole=True)
    return Group(f"*[{flat(item)}", (), end, whole=True)


def _numbers(value: object) -> bool:
    """Whether nested lists hold anything."""
    if isinstance(value, list):
        return any(_numbers(item) for item in value)
    return True


def class_lines(made: GeneratedClass, by_path: Mapping[str, GeneratedClass]) -> list[str]:
    """The code of a class; the root's docstring is the file's."""
    blueprint = made.model
    text = [f"class {made.name}({blueprint.base}):"]
    if blueprint.path:
        text += [f'    """{docstring(made.paths)}"""', ""]
    constructor = ConstructorWriter(made, by_path).lines()
    text += constructor
    if blueprint.body is not None:
        if constructor:
            text.append("")
        arguments = ["self", *blueprint.body.arguments]
        text += lines(Group("def forward(", tuple(arguments), "):"), 4)
        text += blueprint.body.lines(made.codes)
    while text[-1] == "":
        text.pop()
    return text


def docstring(paths: Sequence[str]) -> str:
    """Which modules of the model a class stands for.

    >>> docstring(["a", "b", "c", "d"])
    'Of a, b, c and 1 more.'
    """
    count = min(SHOWN, len(paths))
    while True:
        shown, more = ", ".join(paths[:count]), len(paths) - count
        text = f"Of {shown} and {more} more." if more > 0 else f"Of {shown}."
        if count == 1 or len(text) <= DOCSTRING:
            return text
        count -= 1
