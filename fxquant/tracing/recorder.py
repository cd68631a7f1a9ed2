"""Following one call of a model: every torch function on a traced tensor becomes a node.

    y = self.conv(x)          ->  %conv = call_module[conv](%x)
    y = F.relu(y) + self.b    ->  %relu = relu(%conv); %b = @b; %add = add(%relu, %b)
    m = torch.arange(4)       ->  nothing: a constant, kept when a traced value meets it

The model itself runs, on fake tensors, so Python code of any kind works as long as it does not look
at the values of the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import Graph, Node
from torch.overrides import TorchFunctionMode

from fxquant.ir.source import SourceLocation
from fxquant.tracing import functions as known
from fxquant.tracing import refusals
from fxquant.tracing.location import called_from, user_location
from fxquant.tracing.modules import ModuleStack
from fxquant.tracing.shortcuts import KEEPS_SHAPE, shape_kept
from fxquant.tracing.snapshot import Snapshot
from fxquant.tracing.stateful import functional_module
from fxquant.tracing.values import Values, tensors_in

PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    type(Ellipsis),
)


class Recorder(TorchFunctionMode):
    """Records torch functions while it is active."""

    def __init__(
        self, graph: Graph, values: Values, stack: ModuleStack, snapshot: Snapshot
    ) -> None:
        super().__init__()
        self.graph = graph
        self.values = values
        self.stack = stack
        self.snapshot = snapshot
        self.grad_mode: Node | None = None
        values.locate = self.location
        stack.recorder = self

    def location(self) -> SourceLocation | None:
        """The user's line that runs now."""
        return user_location(self.stack.path, self.stack.call)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run a torch function, and record it when it works on traced tensors."""
        kwargs = kwargs or {}
        if self.stack.inside_leaf:
            return call(func, args, kwargs)
        name = known.name_of(func)
        if name in _SPECIAL:
            return _SPECIAL[name](self, func, args, kwargs)
        if name in known.NOT_RECORDED:
            with torch._C.DisableTorchFunction():
                return func(*args, **kwargs)
        traced = [t for t in tensors_in((args, kwargs)) if self.values.is_traced(t)]
        if not traced and name not in known.RANDOM:
            args, kwargs = self._refuse_unseen(args, kwargs)
            return func(*args, **kwargs)
        if name in _GUARDED:
            self._guard(func, name, args, kwargs)
        if known.followed_inside(func):
            with self:
                return known.without_dispatch(func)(*args, **kwargs)
        return self._record(func, name, args, kwargs)

    def record_module(
        self, module: nn.Module, path: str, args: tuple[Any, ...], kwargs: Any, result: Any
    ) -> None:
        """Record the call of a leaf module that has just been run."""
        with torch._C.DisableTorchFunction():
            traced = any(self.values.is_traced(t) for t in tensors_in((args, kwargs)))
            constant = not (module._parameters or module._buffers or module.training)
            if traced or not constant:
                self._refuse_autocast()
                self.emit("call_module", path, path.replace(".", "_"), args, kwargs, result)

    def emit(
        self,
        op: str,
        target: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
    ) -> Node:
        """Append a node for a call that gave `result`."""
        node_args = tuple([self.argument(each) for each in args])
        node_kwargs = {key: self.argument(each) for key, each in kwargs.items()}
        node = self.graph.create_node(op, target, node_args, node_kwargs, name)
        node.meta["val"] = self.values.fake(result)
        source = self.location()
        if source is not None:
            own = op == "call_module"  # a leaf is called from the module around it
            node.meta["source"] = replace(source, layer=str(target)) if own else source
        dependent = self.values.dependent
        if any(each in dependent for each in node.all_input_nodes):
            dependent.add(node)
        self.values.bind(result, node)
        return node

    def argument(self, value: Any) -> Any:
        """An argument as it stands in the graph."""
        if isinstance(value, torch.Tensor):
            return self.values.node_of(value)
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, tuple | list):
            items = [self.argument(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, dict):
            return {key: self.argument(item) for key, item in value.items()}
        if isinstance(value, slice):
            parts = (value.start, value.stop, value.step)
            return slice(*(self.argument(part) for part in parts))
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            return self.values.node_of(torch.from_numpy(value))
        if isinstance(value, range):
            return list(value)
        raise refusals.cannot_express(
            f"an argument of type {type(value).__qualname__} has no form in a graph",
            self.location(),
            "pass tensors and plain Python values to torch functions",
        )

    def _record(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._refuse_autocast()
        args = self._constant_masks(name, args)
        written = self._prepare_writes(func, name, args, kwargs)
        module = functional_module(self, func, args, kwargs)
        result = self._run(func, args, kwargs)
        if module is not None:
            owner, path, inputs = module
            self.emit("call_module", path, path.replace(".", "_"), inputs, {}, result)
            return result
        if not written and next(tensors_in(result), None) is None:
            return result
        op, target, swapped = known.target_of(func)
        if swapped:
            args = (args[1], args[0], *args[2:])
        kept = known.significant(func, kwargs)
        node = self.emit(op, target, self._node_name(name), args, kept, result)
        self._after_writes(node, written, name)
        return result

    def _node_name(self, name: str) -> str:
        stem = name.strip("_") or "call"
        return f"{self.stack.path.replace('.', '_')}_{stem}" if self.stack.path else stem

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return call(func, args, kwargs)
        except refusals.DATA_ERRORS as error:
            dynamic = isinstance(error, refusals.DATA_ERRORS[1])
            refuse = refusals.shape_from_data if dynamic else refusals.reads_data
            raise refuse(func, self.location()) from None

    def _guard(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name in known.REFUSED:
            raise refusals.cannot_express(
                f"{known.REFUSED[name]} ({name})", self.location(), "move it out of the model"
            )
        varying = any(self.values.depends_on_input(t) for t in tensors_in((args, kwargs)))
        if not varying:
            return
        if name in known.READS_DATA:
            raise refusals.reads_data(func, self.location())
        if name in known.SHAPE_FROM_DATA or (name == "where" and len(args) + len(kwargs) == 1):
            raise refusals.shape_from_data(func, self.location())

    def _constant_masks(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """`x[mask]` with a mask known now: write the places instead of the mask."""
        if name != "__getitem__":
            return args
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        if not any(_is_mask(each) for each in index):
            return args
        places: list[Any] = []
        for each in index:
            if not _is_mask(each):
                places.append(each)
            elif self.values.depends_on_input(each):
                raise refusals.shape_from_data(torch.masked_select, self.location())
            else:
                places.extend(each.nonzero(as_tuple=True))
        return (args[0], tuple(places), *args[2:])

    def _prepare_writes(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[torch.Tensor]:
        """The tensors that a call writes, made ready: constants owned, parameters saved."""
        written: list[torch.Tensor] = []
        if args and known.writes_in_place(func, kwargs):
            written.extend(tensors_in(args[0]))
        if kwargs.get("out") is not None:
            written.extend(tensors_in(kwargs["out"]))
        if not written:
            return written
        varying = any(self.values.depends_on_input(t) for t in tensors_in((args, kwargs)))
        for tensor in written:
            self.snapshot.protect_alias(tensor)
            self.values.own(tensor, dependent=varying or name in known.RANDOM)
            if name in known.RESHAPES_IN_PLACE:
                node = self.values.node_of(tensor)
                node.meta["val"] = node.meta["val"].detach()
        return written

    def _after_writes(self, node: Node, written: list[torch.Tensor], name: str) -> None:
        if name in known.RANDOM:
            self.values.dependent.add(node)
        if node in self.values.dependent:
            for tensor in written:
                self.values.dependent.update(self.values.written_nodes(tensor))

    def _refuse_unseen(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for tensor in tensors_in((args, kwargs)):
            self.values.refuse_unseen(tensor)
        return args, kwargs

    def _refuse_autocast(self) -> None:
        if torch._C._is_any_autocast_enabled():
            raise refusals.cannot_express(
                "autocast changes the dtype of operations behind the graph's back",
                self.location(),
                "trace outside torch.autocast, and choose dtypes by quantize= instead",
            )

    def _property(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`x.T` is recorded; `x.shape` is not."""
        name = known.property_name(func)
        if name is None or not self.values.is_traced(args[0]):
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if name not in _NOT_VALUES and isinstance(result, torch.Tensor):
            self.emit("call_function", getattr, self._node_name(name), (args[0], name), {}, result)
        return result

    def _set_property(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`x.data = y` has no form in a graph; `x.requires_grad = True` does not matter."""
        if known.property_name(func) == "data" and self.values.is_traced(args[0]):
            raise refusals.cannot_express(
                "the data of a traced tensor are replaced", self.location(), "use x.copy_(y)"
            )
        return func(*args, **kwargs)

    def _set_grad_enabled(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`torch.no_grad()`; what held at the call of the graph is put back at the end."""
        before = torch.is_grad_enabled()
        result = func(*args, **kwargs)
        enabled = bool(args[0])
        if enabled == before or called_from("torch/utils/checkpoint.py"):
            return result
        if self.grad_mode is None:
            self.grad_mode = self._plain(torch.is_grad_enabled, (), "grad_mode")
        self._plain(torch._C._set_grad_enabled, (self.grad_mode if enabled else False,), "set_grad")
        return result

    def _plain(self, function: Callable[..., Any], args: tuple[Any, ...], name: str) -> Node:
        node = self.graph.create_node("call_function", function, args, {}, name)
        source = self.location()
        if source is not None:
            node.meta["source"] = source
        return node

    def _new_tensor(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`torch.tensor([a, b])` reads its arguments as numbers."""
        data = args[0] if args else kwargs.get("data")
        traced = [t for t in tensors_in(data) if self.values.is_traced(t)]
        if isinstance(data, torch.Tensor) and traced:
            return self._record(func, known.name_of(func), args, kwargs)
        if any(self.values.depends_on_input(t) for t in traced):
            raise refusals.reads_data(func, self.location())
        return func(*args, **kwargs)


def call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a torch function, the slow fake norms by a shortcut."""
    if func in KEEPS_SHAPE:
        result = shape_kept(func, args, kwargs)
        if result is not None:
            return result
    return func(*args, **kwargs)


def _is_mask(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in (torch.bool, torch.uint8)


_NOT_VALUES = frozenset({"grad", "_base", "_grad"})
_GUARDED = known.READS_DATA | known.SHAPE_FROM_DATA | known.REFUSED.keys() | {"where"}
_SPECIAL: dict[str, Callable[[Recorder, Any, tuple[Any, ...], dict[str, Any]], Any]] = {
    "__get__": Recorder._property,
    "__set__": Recorder._set_property,
    "_set_grad_enabled": Recorder._set_grad_enabled,
    "tensor": Recorder._new_tensor,
    "as_tensor": Recorder._new_tensor,
}
