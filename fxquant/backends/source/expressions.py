"""One node as an expression: `self.conv(x)`, `x + y`, `x[:, 1:]`, `torch.cat([x, y], dim=1)`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.fx import Node

from fxquant.backends.source.layout import Code, Group, Hole, call, flat, named
from fxquant.ir.aten import argument_names, defaults, is_aten, overload, packet_name
from fxquant.ir.functions import BINARY, METHODS, UNARY, function_code
from fxquant.ir.spelling import Unspellable, spell


@dataclass(frozen=True)
class Names:
    """How values are read.

    Attributes:
        value: the name of a value.
        lists: names of whole lists of values.
    """

    value: Callable[[Node], str]
    lists: Mapping[tuple[Any, ...], str] = field(default_factory=dict)

    def of_list(self, items: Sequence[Any]) -> str | None:
        """The name of a list; None where it has none and its items are read one by one."""
        if not self.lists or not all(isinstance(item, Node) for item in items):
            return None
        name = self.lists.get(tuple(items))
        return f"list({name})" if name is not None and isinstance(items, list) else name


def argument(value: Any, name: Names) -> Code:
    """An argument: nodes by their names, everything else spelled out."""
    if isinstance(value, Node):
        return name.value(value)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        whole = name.of_list(value)
        if whole is not None:
            return whole
        items = tuple(argument(item, name) for item in value)
        if isinstance(value, list):
            return Group("[", items, "]")
        return Group("(", items, ",)" if len(items) == 1 else ")")
    if isinstance(value, dict):
        pairs = [f"{spell(key)}: {flat(argument(item, name))}" for key, item in value.items()]
        return Group("{", tuple(pairs), "}")
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return f"slice({', '.join(flat(argument(part, name)) for part in parts)})"
    return spell(value)


def _arguments(node: Node, name: Names, skip: int = 0) -> list[Code]:
    """Arguments in the order of the call; the options of ATen operators by name."""
    args: list[Code] = [argument(value, name) for value in node.args[skip:]]
    if is_aten(node):
        names = argument_names(overload(node))
        count = next((i for i, v in enumerate(node.args) if not _is_operand(v)), len(args))
        usual = defaults(overload(node))
        args = [
            each if index < count else named(names[index], _option(node, index, names[index], each))
            for index, each in enumerate(args)
            if index < count or not _is_usual(node.args[index], usual.get(names[index], ...))
        ]
    return args + [named(key, argument(value, name)) for key, value in node.kwargs.items()]


def _is_usual(value: Any, usual: Any) -> bool:
    """Whether an option is what the operator takes by default."""
    if isinstance(value, list | tuple) and isinstance(usual, list | tuple):
        return list(value) == list(usual)
    return type(value) is type(usual) and bool(value == usual)


def _option(node: Node, index: int, name: str, code: Code) -> Code:
    """An option of an operator; numbers may differ between instances of one class."""
    value = node.args[index]
    if isinstance(value, bool) or not isinstance(value, int | float | list) or _is_operand(value):
        return code
    function = packet_name(node.target)
    owner = node.name if function.startswith("fake_quantize") else function
    return Hole(name, value, flat(code), owner)


def _is_operand(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_operand(item) for item in value)
    return isinstance(value, Node)


def _subscript(index: Any, name: Names) -> str:
    if isinstance(index, tuple) and index:
        inner = ", ".join(_subscript(item, name) for item in index)
        return f"{inner}," if len(index) == 1 else inner
    if isinstance(index, slice):
        start, stop = (
            "" if part is None else flat(argument(part, name)) for part in (index.start, index.stop)
        )
        step = "" if index.step is None else f":{flat(argument(index.step, name))}"
        return f"{start}:{stop}{step}"
    return flat(argument(index, name))


def expression(node: Node, name: Names, module: Callable[[str], str]) -> Code:
    """The expression of a node.

    Args:
        node: a call.
        name: how values are read.
        module: how the module at a path is read.

    Raises:
        Unspellable: a function or an argument that has no code.
    """
    if node.op == "call_module":
        return _module_call(node, name, module)
    if node.op == "call_method":
        sign = METHODS.get(str(node.target))
        if sign is not None and len(node.args) == 2 and not node.kwargs:
            left, right = (_operand(each, name) for each in node.args)
            return f"{left} {sign} {right}"
        owner = flat(argument(node.args[0], name))
        return call(f"{owner}.{node.target}", _arguments(node, name, skip=1))
    return _function_call(node, name)


def _module_call(node: Node, name: Names, module: Callable[[str], str]) -> Code:
    args = _arguments(node, name)
    callee = module(str(node.target))
    if node.args and isinstance(node.args[0], str):  # fxquant.nn.FloatFunctional: which operation
        return call(f"{callee}.{node.args[0]}", args[1:])
    return call(callee, args)


def _function_call(node: Node, name: Names) -> Code:
    target, args = node.target, node.args
    if target in BINARY and len(args) == 2 and not node.kwargs:
        left, right = (_operand(each, name) for each in args)
        return f"{left} {BINARY[target]} {right}"
    if target in UNARY and len(args) == 1:
        return f"{UNARY[target]}{_operand(args[0], name)}"
    if target is operator.getitem:
        return f"{flat(argument(args[0], name))}[{_subscript(args[1], name)}]"
    if target is operator.setitem:
        place = f"{flat(argument(args[0], name))}[{_subscript(args[1], name)}]"
        return f"{place} = {flat(argument(args[2], name))}"
    if target is getattr and len(args) == 2 and str(args[1]).isidentifier():
        return f"{flat(argument(args[0], name))}.{args[1]}"
    callee = function_code(target)
    if callee is None:
        raise Unspellable(f"the function {getattr(target, '__name__', target)} is not torch's")
    return call(callee, _arguments(node, name))


def _operand(value: Any, name: Names) -> str:
    text = flat(argument(value, name))
    return f"({text})" if text.startswith("-") else text
