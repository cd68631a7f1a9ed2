"""The ATen overload that a call of a torch builtin means.

    torch.add(x, 1)         -> aten.add.Tensor
    x.sum(-1)               -> aten.sum.dim_IntList
    torch.cat((x, y), axis=1) -> aten.cat.default(dim=1)

By the builtin's name to the packet, by TorchScript's own resolver to the overload. Two things are
put right first: numpy's names of arguments, and integers given one by one where the schema has a
list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from fxquant.passes.functional.schema import bind, parameters, same_literal
from fxquant.passes.functional.unsupported import Unsupported

# Spellings of the same operator; each is documented in torch as an alias, or is Python's operator.
SYNONYMS: dict[str, str] = {
    "__add__": "add", "__radd__": "add", "__sub__": "sub", "__mul__": "mul", "__rmul__": "mul",
    "__truediv__": "div", "__div__": "div", "__floordiv__": "floor_divide", "__mod__": "remainder",
    "__matmul__": "matmul", "__pow__": "pow", "__neg__": "neg", "__pos__": "positive",
    "__abs__": "abs", "__invert__": "bitwise_not", "__and__": "bitwise_and",
    "__rand__": "bitwise_and", "__or__": "bitwise_or", "__ror__": "bitwise_or",
    "__xor__": "bitwise_xor", "__rxor__": "bitwise_xor", "__lshift__": "bitwise_left_shift",
    "__rshift__": "bitwise_right_shift", "__eq__": "eq", "__ne__": "ne", "__lt__": "lt",
    "__le__": "le", "__gt__": "gt", "__ge__": "ge",
    "absolute": "abs", "negative": "neg", "subtract": "sub", "multiply": "mul", "divide": "div",
    "true_divide": "div", "clip": "clamp", "fix": "trunc", "greater": "gt", "greater_equal": "ge",
    "less": "lt", "less_equal": "le", "not_equal": "ne", "arccos": "acos", "arccosh": "acosh",
    "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan", "arctanh": "atanh",
    "arctan2": "atan2", "concat": "cat", "concatenate": "cat", "row_stack": "vstack",
    "moveaxis": "movedim", "swapaxes": "transpose", "swapdims": "transpose",
    "linalg_matmul": "matmul", "ger": "outer", "special_erf": "erf", "special_erfc": "erfc",
    "special_expit": "sigmoid", "special_exp2": "exp2", "special_expm1": "expm1",
    "special_log1p": "log1p", "special_logsumexp": "logsumexp", "special_round": "round",
    "special_sinc": "sinc", "special_softmax": "softmax", "special_log_softmax": "log_softmax",
    "special_digamma": "digamma", "special_gammaln": "lgamma", "special_xlogy": "xlogy",
    "special_psi": "digamma", "special_erfinv": "erfinv", "special_logit": "logit",
    "special_i0": "i0", "special_multigammaln": "mvlgamma", "conj_physical": "conj_physical",
}  # fmt: skip
# Builtins that take a list of integers also one by one, and the place where the list begins.
INTEGERS_FROM: dict[str, int] = {
    "view": 1, "reshape": 1, "permute": 1, "expand": 1, "repeat": 1, "flip": 1, "tile": 1,
    "new_zeros": 1, "new_ones": 1, "new_empty": 1, "broadcast_to": 1, "squeeze": 1,
    "zeros": 0, "ones": 0, "empty": 0, "rand": 0, "randn": 0,
}  # fmt: skip
NUMPY_NAMES: dict[str, tuple[str, ...]] = {
    "self": ("input", "x", "a", "x1"), "other": ("x2",), "dim": ("axis",), "keepdim": ("keepdims",),
    "dims": ("axis", "dim"), "end": ("stop",),
}  # fmt: skip
# Builtins whose second argument is a dimension if it is an integer, and `unbiased` if it is a bool.
DIMENSION_OR_FLAG = frozenset({"std", "var", "std_mean", "var_mean"})
# Arguments of builtins that say nothing about the value.
IGNORED = frozenset({"requires_grad"})


def resolve(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[OpOverload, tuple[Any, ...], dict[str, Any]] | None:
    """The overload that a builtin call means and its arguments; None where ATen has no such name.

    Raises:
        Unsupported: ATen has the name, but no overload takes these arguments.
    """
    name = _synonym(name)
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, OpOverloadPacket):
        return None
    args = _packed(name, tuple(args))
    kwargs = _renamed(name, kwargs)
    return choose(packet, args, kwargs), args, kwargs


def _synonym(name: str) -> str:
    if name in SYNONYMS:
        return SYNONYMS[name]
    if name.startswith("__i") and name.endswith("__"):
        return SYNONYMS["__" + name[3:]] + "_"
    if name.endswith("_") and name[:-1] in SYNONYMS:
        return SYNONYMS[name[:-1]] + "_"
    return name


def _packed(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    if name in DIMENSION_OR_FLAG and len(args) > 1 and type(args[1]) is int:
        return (args[0], [args[1]], *args[2:])
    start = INTEGERS_FROM.get(name)
    if start is None or len(args) <= start or not isinstance(args[start], int | torch.SymInt):
        return args
    if name == "squeeze" and len(args) == start + 1:
        return args
    return (*args[:start], list(args[start:]))


@cache
def _names(name: str) -> frozenset[str]:
    packet = getattr(torch.ops.aten, name)
    overloads = (getattr(packet, overload) for overload in packet.overloads())
    return frozenset(parameter.name for each in overloads for parameter in parameters(each))


def _renamed(name: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    kwargs = {key: value for key, value in kwargs.items() if key not in IGNORED}
    known = _names(name)
    for wanted, others in NUMPY_NAMES.items():
        if wanted not in known or wanted in kwargs:
            continue
        for other in others:
            if other in kwargs and other not in known:
                kwargs[wanted] = kwargs.pop(other)
    return kwargs


def choose(packet: OpOverloadPacket, args: Sequence[Any], kwargs: Mapping[str, Any]) -> OpOverload:
    """The overload of a packet that takes these arguments.

    Raises:
        Unsupported: none does.
    """
    resolver = getattr(torch._C, "_jit_resolve_packet", None)
    if resolver is not None:
        with suppress(RuntimeError):
            found: OpOverload = getattr(
                packet, resolver(packet._qualified_op_name, *args, **kwargs)
            )
            return found
    # The resolver takes no number where the schema has a list of symbolic integers.
    return _first_that_binds(packet, args, kwargs)


def _first_that_binds(
    packet: OpOverloadPacket, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> OpOverload:
    bound: list[tuple[OpOverload, dict[str, Any]]] = []
    for overload in packet.overloads():
        with suppress(TypeError):
            candidate: OpOverload = getattr(packet, overload)
            bound.append((candidate, bind(candidate, args, kwargs)))
    bound.sort(key=lambda pair: "self" not in pair[1])
    # A number passes for a tensor only where no overload takes it as a number.
    for tensors in ((torch.Tensor,), (torch.Tensor, int, float, complex)):
        for candidate, named in bound:
            schema = candidate._schema.arguments
            if all(_fits(each, named[each.name], tensors) for each in schema):
                return candidate
    raise Unsupported(f"no overload of {packet} takes these arguments")


_NUMBER = (int, float, complex)
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int, torch.SymInt),
    "float": (float, int),
    "number": _NUMBER,
    "bool": (bool,),
    "str": (str,),
}
# Written as integers in a schema.
_OWN_TYPES: dict[str, tuple[type, ...]] = {
    "dtype": (torch.dtype,),
    "layout": (torch.layout,),
    "memory_format": (torch.memory_format,),
    "device": (torch.device, str),
}


def _fits(argument: Any, value: Any, tensors: tuple[type, ...]) -> bool:
    kind = str(argument.type)
    if kind.startswith("Optional["):
        if value is None:
            return True
        kind = kind[len("Optional[") : -1]
    if argument.has_default_value() and same_literal(value, argument.default_value):
        return True
    if argument.name in _OWN_TYPES:
        return isinstance(value, _OWN_TYPES[argument.name])
    return _fits_kind(kind, value, tensors)


def _fits_kind(kind: str, value: Any, tensors: tuple[type, ...]) -> bool:
    if kind.startswith("List["):
        inner = kind[len("List[") : -1].removeprefix("Optional[").removesuffix("]")
        if not isinstance(value, list):
            return False
        return all(item is None or _fits_kind(inner, item, tensors) for item in value)
    if kind == "Tensor":
        return isinstance(value, tensors) and not isinstance(value, bool)
    if isinstance(value, bool) and kind != "bool":
        return kind == "number"
    return isinstance(value, _KINDS.get(kind, (object,)))
