"""The call of the whole model as code: the user's parameters, and results built as the user's are.

forward(x, options=None), options = {"mask": m}, result {"logits": …, "aux": None}
  ->  def forward(self, x, options=None):
          mask = options["mask"]
          …
          return {"logits": out, "aux": None}
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fxquant.backends.source.layout import Code, Group, call, flat, named
from fxquant.ir.spelling import Unspellable, spell
from fxquant.tracing import structure
from fxquant.tracing.signature import Signature

STARS: dict[object, str] = {
    inspect.Parameter.POSITIONAL_ONLY: "",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "",
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.KEYWORD_ONLY: "",
    inspect.Parameter.VAR_KEYWORD: "**",
}


@dataclass
class Call:
    """What stands around the body of the model's `forward`.

    Attributes:
        parameters: its parameters as they are declared.
        inputs: for each input tensor the name of its variable.
        unpack: for inputs that stand inside of an argument, name and how they are read.
        definitions: code of the classes that results are made of.
        imports: what those need.
    """

    parameters: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    unpack: list[tuple[str, str]] = field(default_factory=list)
    definitions: dict[str, list[str]] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)


def call_of(signature: Signature) -> Call:
    """The parameters of a model's call."""
    result = Call(parameters=list(_parameters(signature.parameters)))
    names = [spec.name for spec in signature.inputs]
    result.inputs = list(names)
    shape = signature.input_structure
    assert isinstance(shape, structure.Mapping)
    for key, child in zip(shape.keys, shape.children, strict=True):
        for index, code in _reads(child, str(key)):
            if code.isidentifier():
                result.inputs[index] = code
            else:
                taken = {*signature.parameters.parameters, *result.inputs[:index]}
                name = names[index] if names[index] not in taken else f"{names[index]}_tensor"
                result.inputs[index] = name
                result.unpack.append((name, code))
    return result


def _parameters(parameters: inspect.Signature) -> Iterator[str]:
    """The declarations, with `/` and `*` where they stood."""
    kinds = inspect.Parameter
    before: inspect.Parameter | None = None
    for each in parameters.parameters.values():
        if before is not None and before.kind == kinds.POSITIONAL_ONLY != each.kind:
            yield "/"
        starred = before is not None and before.kind in (kinds.VAR_POSITIONAL, kinds.KEYWORD_ONLY)
        if each.kind == kinds.KEYWORD_ONLY and not starred:
            yield "*"
        stars = STARS[each.kind]
        default = "" if each.default is kinds.empty else f"={_default(each.default)}"
        yield f"{stars}{each.name}{default}"
        before = each


def _default(value: object) -> str:
    try:
        return spell(value)
    except Unspellable:
        return "None"


def _reads(shape: structure.Structure, code: str) -> Iterator[tuple[int, str]]:
    """Each tensor of an argument and how it is read."""
    match shape:
        case structure.Leaf(index):
            yield index, code
        case structure.Sequence(kind, children):
            keys = getattr(kind, "_fields", None)
            for number, child in enumerate(children):
                yield from _reads(child, f"{code}.{keys[number]}" if keys else f"{code}[{number}]")
        case structure.Mapping(_, keys, children):
            for key, child in zip(keys, children, strict=True):
                yield from _reads(child, f"{code}[{spell(key)}]")
        case structure.Record(_, fields, children):
            for name, child in zip(fields, children, strict=True):
                yield from _reads(child, f"{code}.{name}")


def result_code(shape: structure.Structure, values: Sequence[str], info: Call) -> Code:
    """The model's result made of the names of its tensors; classes it needs go into `info`.

    Raises:
        Unspellable: a fixed part that has no code.
    """
    match shape:
        case structure.Leaf(index):
            return values[index]
        case structure.Fixed(value):
            return spell(value)
        case structure.Sequence(kind, children):
            return _sequence(kind, [result_code(each, values, info) for each in children], info)
        case structure.Mapping(kind, keys, children):
            items = [result_code(each, values, info) for each in children]
            pairs = [f"{spell(key)}: {flat(item)}" for key, item in zip(keys, items, strict=True)]
            code = Group("{", tuple(pairs), "}")
            if kind is not collections.OrderedDict:
                return code
            info.imports.add("from collections import OrderedDict")
            return call("OrderedDict", [code])
        case structure.Record(kind, fields, children):
            items = [result_code(each, values, info) for each in children]
            _define_record(kind, info)
            return call(kind.__name__, map(named, fields, items))


def _sequence(kind: type, items: list[Code], info: Call) -> Code:
    if hasattr(kind, "_fields"):
        info.imports.add("from collections import namedtuple")
        fields = ", ".join(spell(name) for name in kind._fields)
        name = spell(kind.__name__)
        info.definitions[kind.__name__] = [f"{kind.__name__} = namedtuple({name}, [{fields}])"]
        return call(kind.__name__, items)
    if kind.__module__ == "torch.return_types":
        return call(f"torch.return_types.{kind.__name__}", [Group("(", tuple(items), ",)")])
    if kind is list:
        return Group("[", tuple(items), "]")
    return Group("(", tuple(items), ",)" if len(items) == 1 else ")")


def _define_record(kind: type, info: Call) -> None:
    info.imports.add("from dataclasses import dataclass")
    body = [f"    {each.name}: object = None" for each in dataclasses.fields(kind)]
    info.definitions[kind.__name__] = ["@dataclass", f"class {kind.__name__}:", *body]
