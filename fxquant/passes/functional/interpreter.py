"""Walks a graph of the torch dialect on fake tensors and lets the engine write the core graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from fxquant.errors import InvalidGraph, Problem, UnsupportedOp
from fxquant.ir.edit import get_attribute
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.passes.functional import rules
from fxquant.passes.functional.builtins import run_builtin
from fxquant.passes.functional.engine import Engine, map_tensors
from fxquant.passes.functional.interception import Interception
from fxquant.passes.functional.modules import call_kept, stays
from fxquant.passes.functional.unsupported import Unsupported
from fxquant.quant.stubs import DeQuantStub, QuantStub

__all__ = ["Interpreter", "rules"]


class Unknown(Exception):
    """A value that is unknown because the node that makes it is unsupported."""


class Interpreter:
    """One walk over one graph."""

    def __init__(self, graph_module: GraphModule) -> None:
        self.root = graph_module
        self.engine = Engine(graph_module, _fake_mode(graph_module))
        self.interception = Interception(
            lambda function, args, kwargs: run_builtin(self.engine, function, args, kwargs)
        )
        self._values: dict[Node, Any] = {}
        self._problems: list[Problem] = []

    def run(self) -> Engine:
        """Write the core graph.

        Raises:
            UnsupportedOp: some nodes cannot be written in the core dialect; all are listed.
        """
        with torch.enable_grad(), self.engine.fake_mode:
            for node in self.root.graph.nodes:
                self.engine.begin(node)
                self._visit(node)
        if self._problems:
            raise UnsupportedOp(
                f"cannot be written in the core dialect: {len(self._problems)} of the operations",
                problems=self._problems,
            )
        return self.engine

    def _visit(self, node: Node) -> None:
        try:
            value = self._value(node)
        except Unknown:
            return
        except Unsupported as error:
            self._note(node, error.what, error.fix)
            return
        except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            self._note(node, f"{type(error).__name__}: {first}", None)
            return
        self._values[node] = value
        if node.op not in {"placeholder", "get_attr", "output"}:
            self.engine.finish(value)

    def _note(self, node: Node, what: str, fix: str | None) -> None:
        self._problems.append(Problem(what, format_node(node, None), source_text(node), fix))

    def _value(self, node: Node) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return self._attribute(node)
        args, kwargs = map_arg((node.args, node.kwargs), self._known)
        if node.op == "output":
            return self._output(node, args[0])
        if node.op == "call_module":
            return self._module(str(node.target), args, kwargs)
        if node.op == "call_method":
            receiver = self.engine.lift(args[0])
            with self.interception:
                return getattr(receiver, str(node.target))(*args[1:], **kwargs)
        if node.target is torch.is_grad_enabled:
            return self.engine.gradients
        if isinstance(node.target, HigherOrderOperator):
            raise Unsupported(f"{node.target} calls functions as values")
        assert callable(node.target)
        with self.interception:
            return node.target(*args, **kwargs)

    def _known(self, node: Node) -> Any:
        if node not in self._values:
            raise Unknown
        return self._values[node]

    def _placeholder(self, node: Node) -> Any:
        value = node.meta.get("val")
        new = self.engine.graph.create_node(
            "placeholder", node.target, node.args, {}, node.name, node.type
        )
        new.meta.update(node.meta)
        if isinstance(value, Tensor):
            fake = value.detach()
            new.meta["val"] = fake
            self.engine.define(fake, new)
            return fake
        return value

    def _attribute(self, node: Node) -> Any:
        value = get_attribute(self.root, str(node.target))
        return self.engine.lift(value) if isinstance(value, Tensor) else value

    def _module(self, path: str, args: Any, kwargs: Any) -> Any:
        module = get_attribute(self.root, path)
        if isinstance(module, QuantStub | DeQuantStub):
            return args[0]
        if stays(module):
            return call_kept(self.engine, path, module, *args, *kwargs.values())
        with self.interception:
            return module(*args, **kwargs)

    def _output(self, node: Node, value: Any) -> None:
        self.engine.gradients = True
        result = map_tensors(value, lambda tensor: self.engine.read(self.engine.lift(tensor)))
        output = self.engine.graph.output(result)
        output.meta.update(node.meta)
        output.meta["val"] = map_arg(result, lambda each: each.meta["val"])


def _fake_mode(graph_module: GraphModule) -> FakeTensorMode:
    """The mode that the placeholders' fake tensors belong to.

    Raises:
        InvalidGraph: the inputs have no shapes yet.
    """
    for node in graph_module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, FakeTensor):
            mode: FakeTensorMode = value.fake_mode
            return mode
        if node.op == "placeholder" and value is None and node.users:
            raise InvalidGraph(
                f"the input %{node.name} has no shape and dtype (meta['val'])",
                fix="make the graph with fxquant.trace(model, example_inputs)",
            )
    return FakeTensorMode(allow_non_fake_inputs=True)
