"""What a C builtin of torch means, where it is not simply the operator of the same name.

x[..., 1:3, idx]      -> slice.Tensor, index.Tensor
x[mask] = 0           -> masked_fill, then the write
x.float(), x.to(y)    -> _to_copy, or nothing
x.size(0), x.dim()    -> a Python number, now
torch.tensor([1, 2])  -> a constant
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import GetSetDescriptorType, MethodDescriptorType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch._subclasses.fake_tensor import FakeTensor

from fxquant.ir.aten import aten
from fxquant.passes.functional.engine import Engine
from fxquant.passes.functional.resolution import choose, resolve
from fxquant.passes.functional.rules.movement import converted
from fxquant.passes.functional.schema import first_tensor
from fxquant.passes.functional.subscripts import getitem, setitem
from fxquant.passes.functional.tail import traced
from fxquant.passes.functional.unsupported import Unsupported

Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]
Builtin = Callable[[Engine, Any, Arguments, Keywords], Any]

# Answered by the fake tensor itself.
ANSWERS = frozenset({
    "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset",
    "is_floating_point", "is_complex", "is_contiguous", "is_signed", "is_same_size",
    "element_size", "__len__", "get_device", "is_inference", "is_conj", "is_neg", "is_pinned",
    "result_type", "can_cast", "promote_types", "is_nested", "get_default_dtype",
})  # fmt: skip
# Leave the value as it is and return it.
UNCHANGED = frozenset({
    "requires_grad_", "retain_grad", "share_memory_", "refine_names", "coalesce", "pin_memory",
})  # fmt: skip
CONVERSIONS = frozenset({
    "to", "type", "type_as", "float", "double", "half", "bfloat16", "int", "long", "short", "char",
    "byte", "bool", "cpu", "cuda", "cfloat", "cdouble",
})  # fmt: skip
PERMUTED_PROPERTIES = {
    "T": aten.numpy_T.default,
    "mT": aten.mT.default,
    "H": aten.matrix_H.default,
    "mH": aten.mH.default,
}


def run_builtin(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """The value of one call of a builtin, its operators written to the graph."""
    if isinstance(function, OpOverload):
        return engine.call(function, *args, **kwargs)
    if isinstance(function, OpOverloadPacket):
        args, kwargs = engine.lift(args), engine.lift(kwargs)
        return engine.call(choose(function, args, kwargs), *args, **kwargs)
    name = getattr(function, "__name__", "")
    if name in {"__get__", "__set__"}:
        return _property(engine, function, name, args)
    if name in ANSWERS:
        return function(*engine.lift(args), **kwargs)
    if name in UNCHANGED:
        return args[0]
    special = SPECIAL.get(name)
    if special is not None:
        return special(engine, function, args, kwargs)
    return _operator(engine, function, name, engine.lift(args), engine.lift(kwargs))


def _operator(
    engine: Engine, function: Any, name: str, args: Arguments, kwargs: dict[str, Any]
) -> Any:
    """The ATen operator of the builtin's name, with `out=` as a write."""
    out = kwargs.pop("out", None)
    found = resolve(name, args, kwargs)
    if found is None:
        return traced(engine, function, args, kwargs)
    overload, args, kwargs = found
    result = engine.call(overload, *args, **kwargs)
    return result if out is None else _write_out(engine, out, result)


def _write_out(engine: Engine, out: Any, result: Any) -> Any:
    if isinstance(out, Tensor):
        return _write_out_one(engine, out, result)
    return tuple(_write_out_one(engine, *pair) for pair in zip(out, result, strict=True))


def _write_out_one(engine: Engine, out: Tensor, result: Tensor) -> Tensor:
    if out.shape != result.shape:
        raise Unsupported(
            f"out= has the shape {list(out.shape)}, the result {list(result.shape)}",
            "use the returned tensor instead of out=",
        )
    return engine.assign(out, result)


def _property(engine: Engine, function: Any, kind: str, args: Arguments) -> Any:
    descriptor = function.__self__
    assert isinstance(descriptor, GetSetDescriptorType)
    name, tensor = descriptor.__name__, engine.lift(args[0])
    if kind == "__set__":
        if name != "requires_grad":
            raise Unsupported(f"the attribute .{name} of a tensor is replaced", "use x.copy_(y)")
        return None
    if name in PERMUTED_PROPERTIES:
        return engine.call(PERMUTED_PROPERTIES[name], tensor)
    if name == "data":
        return engine.call(aten.detach.default, tensor)
    if name in {"real", "imag"}:
        return engine.call(getattr(aten, name).default, tensor)
    value = getattr(tensor, name)
    if isinstance(value, Tensor):
        raise Unsupported(f"the attribute .{name} of a tensor is read")
    return value


def _convert(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """Let the fake tensor say which dtype and device result."""
    source = engine.lift(args[0])
    result = function(*engine.lift(args), **engine.lift(kwargs))
    if not isinstance(result, Tensor):
        return result
    if result is not source and result.dtype == source.dtype and result.device == source.device:
        return engine.call(aten.clone.default, source)
    return converted(engine, source, result)


def _constant(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """`torch.tensor`, `as_tensor`, `from_numpy`: a constant, unless it is a tensor already."""
    data = args[0] if args else kwargs.get("data")
    if isinstance(data, Tensor):
        source = engine.call(aten.clone.default, engine.lift(data))
        dtype = kwargs.get("dtype") or source.dtype
        return engine.call(aten._to_copy.default, source, dtype=dtype)
    if first_tensor((data,)) is not None:
        raise Unsupported("torch.tensor reads the values of tensors", "use torch.stack")
    with engine.real():
        value = function(*args, **kwargs)
    return engine.alias(value).tensor


def _new_tensor(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    dtype = kwargs.get("dtype") or args[0].dtype
    return _constant(engine, torch.tensor, args[1:], {"dtype": dtype})


def _dropout(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """Off: nothing. On: the operator, which draws anew on each call."""
    name = function.__name__
    source, probability, train = engine.lift(args[0]), args[1], args[2]
    if train and probability > 0:
        overload = getattr(aten, name.removesuffix("_")).default
        result = engine.call(overload, source, probability, train)
    else:
        result = engine.call(aten.clone.default, source)
    return engine.assign(source, result) if name.endswith("_") else result


def _normalization(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """batch_norm and instance_norm with fixed statistics, or without any."""
    args, names = engine.lift(args), ("running_mean", "running_var")
    uses_batch = args[5]
    tracked = [engine.alias(each).state for each in args[3:5] if each is not None]
    if uses_batch and any(tracked):
        raise Unsupported(
            f"{function.__name__} in train mode writes @{tracked[0]} and its like",
            f"let a torch.nn module own {names[0]} and {names[1]}, or call model.eval() first",
        )
    return engine.call(getattr(aten, function.__name__).default, *args, **kwargs)


def _set_gradients(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> None:
    engine.gradients = bool(args[0])


def _gradients(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> bool:
    return engine.gradients


def _getitem(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    return getitem(engine, engine.lift(args[0]), engine.lift(args[1]))


def _setitem(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> None:
    setitem(engine, engine.lift(args[0]), engine.lift(args[1]), engine.lift(args[2]))


def _where(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    if len(args) + len(kwargs) == 1:
        raise Unsupported("torch.where(condition) has a shape that depends on the data")
    if isinstance(function, MethodDescriptorType):  # x.where(condition, other)
        args = (args[1], args[0], *args[2:]) if len(args) > 1 else args
    return _operator(engine, function, "where", engine.lift(args), engine.lift(kwargs))


def _polygamma(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """`x.polygamma(1)` has its arguments the other way round."""
    name, args = function.__name__, engine.lift(args)
    if isinstance(args[0], Tensor):
        args = (args[1], args[0])
    result = engine.call(aten.polygamma.default, *args)
    return engine.assign(args[1], result) if name.endswith("_") else result


def _nothing(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> None:
    return None


def _reads_data(engine: Engine, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    source = engine.lift(args[0])
    if not isinstance(source, FakeTensor):
        return function(*args, **kwargs)
    raise Unsupported(f"{function.__name__} reads the values of a tensor")


SPECIAL: dict[str, Builtin] = {
    "__getitem__": _getitem,
    "__setitem__": _setitem,
    "tensor": _constant,
    "as_tensor": _constant,
    "asarray": _constant,
    "from_numpy": _constant,
    "new_tensor": _new_tensor,
    "where": _where,
    "batch_norm": _normalization,
    "instance_norm": _normalization,
    "_set_grad_enabled": _set_gradients,
    "is_grad_enabled": _gradients,
    "_assert_async": _nothing,
    "polygamma": _polygamma,
    "polygamma_": _polygamma,
    **dict.fromkeys(CONVERSIONS, _convert),
    **{
        name + end: _dropout
        for name in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
        for end in ("", "_")
    },
    **dict.fromkeys(("item", "__bool__", "__int__", "__float__", "tolist"), _reads_data),
}
