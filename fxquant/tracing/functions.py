"""What is known of torch's functions: which are recorded, followed inside, or refused, and how.

The names are those that a `TorchFunctionMode` sees: `torch.conv2d` and `Tensor.add_` are builtins,
`F.relu` is a Python function seen whole, `x.T` is the getter of a property.
"""

from __future__ import annotations

import inspect
import operator
import types
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

TORCH_PYTHON = frozenset({"torch.nn.functional", "torch.functional", "torch._tensor", "torch._VF"})


def words(text: str) -> frozenset[str]:
    """The set of the words in a text.

    >>> sorted(words("b a"))
    ['a', 'b']
    """
    return frozenset(text.split())


INSIDE = frozenset({F.multi_head_attention_forward})
"""Python functions of torch that are followed inside: no target knows them whole."""

READS_DATA = words(
    "item tolist numpy is_nonzero equal allclose __bool__ __int__ __float__ __index__ __complex__"
    " __contains__ __array__ __dlpack__ __reduce_ex__ __long__ __nonzero__"
)
"""Functions that hand the values of a tensor to Python."""

SHAPE_FROM_DATA = words(
    "nonzero nonzero_static argwhere unique unique_consecutive unique_dim _unique2 masked_select"
    " bincount histogram combinations nms"
)
"""Functions whose result has a shape that only the data tell."""

RANDOM = words(
    "rand randn randint randperm rand_like randn_like randint_like normal bernoulli multinomial"
    " poisson bernoulli_ uniform_ normal_ exponential_ random_ cauchy_ geometric_ log_normal_"
    " dropout feature_dropout alpha_dropout feature_alpha_dropout rrelu rrelu_"
)
"""Functions whose result differs from call to call and so is never a constant."""

NOT_RECORDED = words(
    "__repr__ __str__ __format__ __hash__ __deepcopy__ __reduce_ex__ register_hook retain_grad"
    " requires_grad_ register_post_accumulate_grad_hook _assert is_grad_enabled manual_seed"
    " set_default_dtype set_default_device compile"
)
"""Functions that leave the computation as it is."""

REFUSED = {
    "backward": "gradients are taken inside the model",
    "grad": "gradients are taken inside the model",
    "set_": "the storage of a tensor is replaced",
}
"""Functions that a graph cannot express."""

RESHAPES_IN_PLACE = words(
    "unsqueeze_ squeeze_ t_ transpose_ swapaxes_ swapdims_ resize_ resize_as_ as_strided_"
)
"""In-place functions after which the tensor has another shape."""

_OPERATORS = {
    f"__{name.strip('_')}__": getattr(operator, name)
    for name in words(
        "getitem setitem eq ne lt le gt ge add sub mul truediv floordiv mod pow matmul and_ or_ xor"
        " invert neg pos lshift rshift iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior"
        " ixor ilshift irshift"
    )
}
_REFLECTED = {
    "__rsub__": operator.sub,
    "__rdiv__": operator.truediv,
    "__rtruediv__": operator.truediv,
    "__rfloordiv__": operator.floordiv,
    "__rpow__": operator.pow,
    "__rmod__": operator.mod,
    "__rmatmul__": operator.matmul,
    "__radd__": operator.add,
    "__rmul__": operator.mul,
    "__rlshift__": operator.lshift,
    "__rrshift__": operator.rshift,
    "__rand__": operator.and_,
    "__ror__": operator.or_,
    "__rxor__": operator.xor,
}
_IN_PLACE_OPERATORS = frozenset(name for name in _OPERATORS if name.startswith("__i")) - {
    "__invert__"
} | {"__setitem__"}

Target = tuple[str, Any, bool]
"""Opcode, target of the node, and whether the first two arguments change places."""


def name_of(func: Any) -> str:
    """A function's bare name.

    >>> name_of(torch.Tensor.add_)
    'add_'
    """
    return str(getattr(func, "__name__", "") or type(func).__name__)


def property_name(func: Any) -> str | None:
    """The property whose getter or setter this is.

    >>> property_name(torch.Tensor.T.__get__)
    'T'
    """
    owner = getattr(func, "__self__", None)
    return owner.__name__ if isinstance(owner, types.GetSetDescriptorType) else None


def writes_in_place(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a call writes into its first argument."""
    if isinstance(func, torch._ops.OpOverload):
        return bool(func._schema.is_mutable)
    name = name_of(func)
    if name.endswith("__"):
        return name in _IN_PLACE_OPERATORS
    return name.endswith("_") or kwargs.get("inplace") is True


def followed_inside(func: Any) -> bool:
    """Whether a Python function is followed instead of being recorded."""
    if not isinstance(func, types.FunctionType):
        return False
    if func in INSIDE:
        return True
    return func.__module__ not in TORCH_PYTHON and not _is_torch_name(func)


def _is_torch_name(func: types.FunctionType) -> bool:
    return func.__module__.startswith("torch") and (
        getattr(torch, func.__name__, None) is func or hasattr(torch.Tensor, func.__name__)
    )


def _unmoded(*_: object, **__: object) -> bool:
    return False


@cache
def without_dispatch(func: types.FunctionType) -> Callable[..., Any]:
    """The same function, with its own check for overrides switched off.

    Called under the recorder it runs its body, and the torch functions in the body are seen.
    """
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    scope = {**func.__globals__, **dict.fromkeys(checks, _unmoded)}
    inner = inspect.unwrap(func)
    assert isinstance(inner, types.FunctionType)
    body = types.FunctionType(
        inner.__code__, scope, inner.__name__, inner.__defaults__, inner.__closure__
    )
    body.__kwdefaults__ = inner.__kwdefaults__
    return body


@cache
def defaults_of(func: types.FunctionType) -> dict[str, Any]:
    """The default values of a Python function's parameters."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except ValueError:
        return {}
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def significant(func: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments that are not merely the defaults, which torch fills in on the way."""
    if not kwargs or not isinstance(func, types.FunctionType):
        return kwargs
    defaults = defaults_of(func)
    return {
        name: value
        for name, value in kwargs.items()
        if name != "_stacklevel" and not (name in defaults and _equal(defaults[name], value))
    }


def _equal(default: Any, value: Any) -> bool:
    return value is default or (
        type(value) is type(default)
        and isinstance(value, int | float | str | tuple)
        and value == default
    )


@cache
def target_of(func: Any) -> Target:
    """How a call of `func` stands in the graph.

    >>> target_of(torch.Tensor.add_)
    ('call_method', 'add_', False)
    """
    name = name_of(func)
    if isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return "call_function", func, False
    if name in _REFLECTED:
        return "call_function", _REFLECTED[name], True
    if name in _OPERATORS:
        return "call_function", _OPERATORS[name], False
    if _is_method(func):
        return "call_method", name, False
    public = getattr(torch, name, None)
    return "call_function", public if public is not None and public == func else func, False


def _is_method(func: Any) -> bool:
    if isinstance(func, types.MethodDescriptorType | types.WrapperDescriptorType):
        return True
    return getattr(func, "__module__", None) == "torch._tensor" and hasattr(
        torch.Tensor, name_of(func)
    )
