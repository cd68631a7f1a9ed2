"""Where in the module tree the model runs now, known by torch's global module hooks.

No class is patched: a pre-hook pushes each called module, a forward hook pops it. While a leaf
module runs, nothing is recorded; when it has run, its call is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from fxquant.errors import TraceError
from fxquant.ir.edit import free_name
from fxquant.tracing.calls import CallRecord
from fxquant.tracing.leaves import is_leaf, is_own, shallow_copy

if TYPE_CHECKING:
    from fxquant.tracing.recorder import Recorder


class ModuleStack:
    """The modules that are being called, outermost first."""

    recorder: Recorder

    def __init__(self, model: nn.Module, root: nn.Module) -> None:
        self.model = model
        self.root = root
        self.paths = {id(module): path for path, module in model.named_modules()}
        self.modules: list[nn.Module] = []
        self.names: list[str] = []
        self.calls = CallRecord(model)
        self.leaf: nn.Module | None = None
        self._strangers: list[nn.Module] = []

    @property
    def path(self) -> str:
        """Path of the innermost module that is followed inside."""
        return self.names[-1] if self.names else ""

    @property
    def call(self) -> int | None:
        """Number of the innermost call that is followed inside."""
        return self.calls.current

    @property
    def inside_leaf(self) -> bool:
        """Whether a leaf module runs now."""
        return self.leaf is not None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Keep track while the model runs."""
        before = register_module_forward_pre_hook(self._enter)
        after = register_module_forward_hook(self._leave, with_kwargs=True, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()
            # torch forgets this one; `torch.compile` then warns of global hooks.
            _global_forward_hooks_with_kwargs.pop(after.id, None)

    def _enter(self, module: nn.Module, args: Any) -> None:
        if self.leaf is not None:
            return
        if isinstance(module, torch.jit.ScriptModule):
            raise TraceError(
                f"{self._describe(module)} is a scripted module without Python code to follow",
                fix="trace the original module before torch.jit.script or torch.jit.trace",
            )
        if module is not self.model and is_leaf(module):
            self.leaf = module
            max_norm = getattr(module, "max_norm", None)
            for parameter in module._parameters.values() if max_norm is not None else ():
                if parameter is not None:
                    self.recorder.snapshot.protect(parameter)
            return
        self.modules.append(module)
        self.names.append(self.paths.get(id(module), self.path))
        self.calls.enter(module, self.path, args, self.recorder.values.name_of)

    def _leave(self, module: nn.Module, args: Any, *rest: Any) -> Any:
        if module is self.leaf:
            self.leaf = None
            result = rest[-1]
            if result is None:
                return None
            if is_own(module) and any(result is each for each in args):
                with torch._C.DisableTorchFunction():  # a value of its own, as in the graph
                    result = result.view_as(result)
            kwargs = rest[0] if len(rest) == 2 else {}
            self.recorder.record_module(module, self._leaf_path(module), args, kwargs, result)
            return result
        elif self.leaf is None and self.modules and self.modules[-1] is module:
            self.modules.pop()
            self.names.pop()
            self.calls.leave()
        return None

    def _leaf_path(self, module: nn.Module) -> str:
        path = self.paths.get(id(module))
        if path is None:
            self._strangers.append(module)
            path = free_name(self.root, type(module).__name__.lower())
            self.root.add_module(path, shallow_copy(module))
            self.paths[id(module)] = path
        return path

    def _describe(self, module: nn.Module) -> str:
        path = self.paths.get(id(module))
        name = getattr(module, "original_name", type(module).__name__)
        return f"{path} ({name})" if path else str(name)
