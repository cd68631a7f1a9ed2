"""The long tail: one call traced by `make_fx` on fake tensors, its operators written one by one.

my_op(x)  ->  what the dispatcher sees of it, each operator by its own rule
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from fxquant.ir.edit import get_attribute
from fxquant.passes.functional.engine import Engine, map_tensors
from fxquant.passes.functional.unsupported import Unsupported


def traced(
    engine: Engine,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    pre_dispatch: bool = True,
    without: OpOverload | None = None,
) -> Any:
    """Call a function by way of the operators that it calls.

    With `without`, the result is None if that operator is among them: it has no parts.

    Raises:
        Unsupported: it cannot be traced, or calls something other than operators.
    """
    tensors: list[Tensor] = []
    map_tensors((args, dict(kwargs)), tensors.append)

    def run(*given: Tensor) -> Any:
        rest = iter(given)
        new_args, new_kwargs = map_tensors((args, dict(kwargs)), lambda _: next(rest))
        return function(*new_args, **new_kwargs)

    try:
        graph_module = make_fx(run, pre_dispatch=pre_dispatch)(*(t.detach() for t in tensors))
    except Exception as error:
        name = getattr(function, "__name__", str(function))
        raise Unsupported(f"{name} has no ATen form: {_first_line(error)}") from error
    if without is not None and any(node.target is without for node in graph_module.graph.nodes):
        return None
    return _inline(engine, graph_module, tensors)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _inline(engine: Engine, graph_module: GraphModule, tensors: list[Tensor]) -> Any:
    values: dict[Node, Any] = {}
    inputs = iter(tensors)
    for node in graph_module.graph.nodes:
        args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "placeholder":
            values[node] = next(inputs)
        elif node.op == "get_attr":
            with engine.real():
                values[node] = engine.lift(get_attribute(graph_module, str(node.target)))
        elif node.op == "output":
            return args[0]
        elif isinstance(node.target, OpOverload):
            values[node] = engine.call(node.target, *args, **kwargs)
        elif not any(isinstance(each, torch.fx.Node) for each in (args, kwargs)):
            assert callable(node.target)
            values[node] = node.target(*args, **kwargs)
    raise Unsupported("the traced call has no result")
