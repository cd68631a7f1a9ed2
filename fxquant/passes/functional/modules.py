"""Modules in the core dialect: which stay, which are entered, and what is left of those.

    call_module[conv](x)   ->  conv2d(%x, @conv.weight, @conv.bias)
    call_module[bn](x)     ->  call_module[bn](x)
    call_module[add]("add", x, y)  ->  add(%x, %y)        for `fxquant.nn.FloatFunctional`

What follows train and eval mode stays a module. Of the others a plain module with the same
parameters is left, so that every name in the state dict stays; modules without tensors go.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import GraphModule

from fxquant.ir.validity import CORE_MODULES
from fxquant.passes.functional.engine import Engine
from fxquant.quant.float_functional import FloatFunctional

OWN_PACKAGE = "fxquant."


def stays(module: nn.Module) -> bool:
    """Whether a module is allowed in the core dialect."""
    own = type(module).__module__.startswith(OWN_PACKAGE) and not isinstance(
        module, FloatFunctional
    )
    return own or isinstance(module, CORE_MODULES)


def call_kept(engine: Engine, path: str, module: nn.Module, *args: Any) -> Any:
    """Call a module that stays; dropout in place becomes dropout and a write."""
    source = engine.lift(args[0])
    result = engine.emit_module(path, source, *args[1:])
    if not getattr(module, "inplace", False):
        return result
    copy = type(module)(module.p)
    copy.training = module.training
    engine.new_modules[path] = copy
    return engine.assign(source, result)


def leave_shells(graph_module: GraphModule, kept: set[str]) -> None:
    """Replace every module that the graph no longer calls by a plain one with its tensors."""
    memo: dict[int, nn.Module | None] = {}
    _shells(graph_module, "", kept, memo)


def _shells(
    parent: nn.Module, prefix: str, kept: set[str], memo: dict[int, nn.Module | None]
) -> None:
    for name, child in list(parent._modules.items()):
        path = prefix + name
        if child is None or path in kept:
            continue
        if id(child) not in memo:
            memo[id(child)] = _shell(child)
            shell = memo[id(child)]
            _shells(shell, path + ".", kept, memo)  # type: ignore[arg-type]
        shell = memo[id(child)]
        assert shell is not None
        if shell._parameters or shell._buffers or shell._modules:
            parent._modules[name] = shell
        else:
            del parent._modules[name]


def _shell(module: nn.Module) -> nn.Module:
    shell = nn.Module()
    shell.training = module.training
    shell._parameters.update(module._parameters)
    shell._buffers.update(module._buffers)
    shell._non_persistent_buffers_set.update(module._non_persistent_buffers_set)
    shell._modules.update(module._modules)
    return shell
