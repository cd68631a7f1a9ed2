"""Values and modules as the Python code that makes them anew.

    torch.float16                ->  torch.float16
    a convolution                ->  nn.Conv2d(3, 8, kernel_size=3, bias=False)

The code that a `Construction` stands for has been run once, without data, and gave a module with
the same tensors and attributes. What the constructor cannot set is listed as an override.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

OWN_MODULES = "fxquant.nn"
OWN_ALIAS = "fqnn"
RECURRENT = (
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
)
# Constructors of `*args`: what they take is not to be read from their signature.
PARAMETERS: Mapping[type[nn.Module], tuple[str, ...]] = {
    nn.LSTM: (*RECURRENT, "proj_size"),
    nn.GRU: RECURRENT,
    nn.RNN: ("input_size", "hidden_size", "num_layers", "nonlinearity", *RECURRENT[3:]),
    nn.Identity: (),
}
RECURRENT_DEFAULTS: Mapping[str, Any] = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "proj_size": 0,
    "nonlinearity": "tanh",
}
# Classes that exist to be told apart by torch's own quantization, and do nothing else.
SAME_AS: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.modules.linear.NonDynamicallyQuantizableLinear: nn.Linear
}
NAMED = frozenset({"kernel_size", "size", "scale_factor"})  # clearer with their names
WINDOWS = frozenset({"kernel_size", "stride", "padding", "dilation", "output_padding"})


class Unspellable(ValueError):
    """A value that no short code makes."""


def spell(value: Any) -> str:
    """A plain value as code.

    >>> spell((1, torch.float16, None, float("inf")))
    '(1, torch.float16, None, float("inf"))'

    Raises:
        Unspellable: it is none of Python's plain values and none of torch's.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if isinstance(value, torch.Size):
        value = tuple(value)
    if isinstance(value, str):
        return '"' + repr("'" + value)[2:-1].replace('"', '\\"') + '"'
    if value is None or value is ... or isinstance(value, bool | int | float | complex | bytes):
        return "..." if value is ... else repr(value)
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return str(value)
    if isinstance(value, slice):
        return f"slice({spell(value.start)}, {spell(value.stop)}, {spell(value.step)})"
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        inner = ", ".join(spell(item) for item in value)
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{spell(k)}: {spell(v)}" for k, v in value.items()) + "}"
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("fxquant."):
        return f"{OWN_ALIAS}.{type(value).__name__}({', '.join(_fields(value))})"
    raise Unspellable(f"a {type(value).__qualname__} cannot be written as code")


def _fields(value: Any) -> Iterator[str]:
    for each in dataclasses.fields(value):
        given = getattr(value, each.name)
        if each.init and not (each.default is not dataclasses.MISSING and given == each.default):
            yield f"{each.name}={spell(given)}"


@dataclass(frozen=True)
class TensorShape:
    """What a tensor is without its data."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @staticmethod
    def of(tensor: Tensor) -> TensorShape:
        """That of a tensor."""
        return TensorShape(tuple(tensor.shape), tensor.dtype)


@dataclass(frozen=True)
class Construction:
    """How a module is made.

    Attributes:
        callee: the class as code, `nn.Conv2d`.
        arguments: what its constructor is given, in order, defaults included.
        defaults: what may be left out.
        positional: how many of the arguments are given by position.
        overrides: attributes to set afterwards, tensors as their shapes.
    """

    callee: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    positional: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The call, without what is the default."""
        return f"{self.callee}({', '.join(self._arguments())})"

    def _arguments(self) -> Iterator[str]:
        for index, (name, value) in enumerate(self.arguments.items()):
            if index < self.positional:
                yield spell(value)
            elif not (name in self.defaults and same(self.defaults[name], value)):
                yield f"{name}={spell(value)}"


def same(first: Any, second: Any) -> bool:
    """Equality that tells `True` from `1`."""
    return type(first) is type(second) and bool(first == second)


def class_code(cls: type[nn.Module]) -> str | None:
    """A class as code, None if it is neither of torch nor of fxquant."""
    cls = SAME_AS.get(cls, cls)
    if getattr(nn, cls.__name__, None) is cls:
        return f"nn.{cls.__name__}"
    if cls.__module__.startswith("fxquant."):
        return f"{OWN_ALIAS}.{cls.__name__}"
    if cls.__module__.startswith("torch."):
        return f"{cls.__module__}.{cls.__qualname__}"
    return None


def construction(module: nn.Module) -> Construction:
    """How a module of torch or fxquant is made.

    Raises:
        Unspellable: its constructor, its arguments or its attributes cannot be written as code.
    """
    callee = class_code(type(module))
    if callee is None:
        raise Unspellable(f"the class {type(module).__qualname__} is not of torch.nn")
    arguments, defaults = _arguments(module)
    first = next(module.parameters(recurse=False), None)
    made = _make(type(module), arguments)
    if first is not None and first.is_floating_point() and first.dtype != torch.float32:
        defaults["dtype"], arguments["dtype"] = torch.float32, first.dtype
        made = made.to(first.dtype)
    positional = 0
    for name in arguments:
        if name in defaults or name in NAMED:
            break
        positional += 1
    for value in arguments.values():
        spell(value)
    return Construction(callee, arguments, defaults, positional, _overrides(module, made))


def _arguments(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """The constructor's arguments as the module's attributes tell them, and the defaults."""
    cls = type(module)
    parameters = inspect.signature(cls).parameters
    names = PARAMETERS.get(cls, tuple(parameters))
    arguments: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    for name in names:
        parameter = parameters.get(name)
        default = _default(cls, name, parameter)
        value = getattr(module, name, inspect.Parameter.empty)
        if isinstance(value, Tensor) or (value is None and isinstance(default, bool)):
            value = value is not None  # such as `bias`, which says whether there is one
        if name.startswith("_") or name in {"device", "dtype"} or not _readable(value):
            if default is inspect.Parameter.empty:
                raise Unspellable(f"{cls.__name__} does not say with which {name} it was made")
            continue
        arguments[name] = _short(cls, name, value)
        if default is not inspect.Parameter.empty:
            defaults[name] = _short(cls, name, default)
    for name in ("affine", "elementwise_affine"):
        if arguments.get(name) is False and "bias" in defaults:
            arguments["bias"] = defaults["bias"]  # there is none because there is no weight
    return arguments, defaults


def _readable(value: Any) -> bool:
    if value is inspect.Parameter.empty or isinstance(value, enum.Enum):
        return False
    return not callable(value)


def _default(cls: type[nn.Module], name: str, parameter: inspect.Parameter | None) -> Any:
    if parameter is not None:
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        return () if variadic else parameter.default
    return RECURRENT_DEFAULTS.get(name, inspect.Parameter.empty)


def _short(cls: type[nn.Module], name: str, value: Any) -> Any:
    """`(3, 3)` is `3` for convolutions and `(8,)` is `8` for norms, which store both alike."""
    if isinstance(value, tuple) and value:
        window = name in WINDOWS and issubclass(cls, _ConvNd) and len(set(value)) == 1
        if window or (name == "normalized_shape" and len(value) == 1):
            return value[0]
    return tuple(value) if isinstance(value, torch.Size) else value


def _make(cls: type[nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"):
            return cls(**arguments)
    except Exception as error:
        raise Unspellable(f"{cls.__name__} cannot be made anew: {error}") from error


def _overrides(module: nn.Module, made: nn.Module) -> dict[str, Any]:
    """What differs between a module and its remake: attributes, and tensors by their shapes."""
    found: dict[str, Any] = {}
    keeps_own_state = type(module).get_extra_state is not nn.Module.get_extra_state
    for name, value in () if keeps_own_state else module.__dict__.items():
        if name.startswith("_") or name == "training" or isinstance(value, nn.Module):
            continue
        if not _equal(made.__dict__.get(name, Unspellable), value):
            spell(value)
            found[name] = value
    for table in ("_parameters", "_buffers"):
        mine, others = getattr(module, table), getattr(made, table)
        for name in others.keys() - mine.keys():
            raise Unspellable(f"{type(module).__name__} has lost its {name}")
        for name, tensor in mine.items():
            other = others.get(name)
            if (tensor is None) != (other is None) and tensor is None:
                found[name] = None
            elif tensor is not None and (
                other is None or TensorShape.of(tensor) != TensorShape.of(other)
            ):
                found[name] = TensorShape.of(tensor)
    return found


def _equal(first: Any, second: Any) -> bool:
    """Equal for the purpose of a constructor: a list is as good as a tuple."""
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return list(first) == list(second)
    try:
        return bool(type(first) is type(second) and (first == second or _opaque(first)))
    except Exception:
        return False


def _opaque(value: Any) -> bool:
    """Objects of fxquant's that modules make for themselves."""
    return type(value).__module__.startswith("fxquant.") or callable(value)
