"""Traces at several sizes as one graph that holds for all: numbers become what they stand for.

    %view = .view(%x, 1, -1)                         %size = .size(%x, 0)
    %view = .view(%x, 2, -1)  (at batch=2)     ->    %view = .view(%x, %size, -1)

Constants that only repeat along a dimension are kept once and expanded; those whose beginning is
the same at every size are kept at the largest that the dimension allows, and cut.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from fxquant.errors import TraceError
from fxquant.ir.edit import get_attribute, inherit
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.tracing.codegen import SignatureCodeGen
from fxquant.tracing.dynamic.alignment import Aligned, Misaligned, Varying, one_slice
from fxquant.tracing.dynamic.formula import Formula, formula_of

Sizes = Mapping[str, int]
LEAVE_OUT = "leave the dimension out of dynamic_shapes"


def spelled(sizes: Sizes) -> str:
    """Sizes as text: `batch=2, length=40`."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def failure_at(sizes: Sizes, error: Exception) -> TraceError:
    """What to say when the model fails at a size that it was told to take."""
    first = next(iter(str(error).splitlines()), "")
    return TraceError(
        f"at {spelled(sizes)} the model fails: {type(error).__name__}: {first}",
        fix=f"bound the dimension with torch.export.Dim(name, min=…, max=…), or {LEAVE_OUT}",
    )


def generalized(traces: Sequence[GraphModule], sizes: Sequence[Sizes]) -> GraphModule:
    """The first of the traces, changed to hold for every size.

    Args:
        traces: the graphs of one model, in the torch dialect.
        sizes: the sizes of all named dimensions in each.

    Raises:
        TraceError: the model does other things at other sizes, or needs a number that no formula
            of the sizes gives.
    """
    writer = _Writer(traces, sizes)
    try:
        for nodes in list(writer.aligned.rows()):
            writer.visit(nodes)
    except Misaligned as place:
        raise TraceError(
            f"the model does not do the same at {spelled(sizes[0])} and at {spelled(sizes[1])}",
            node=format_node(place.node),
            source=source_text(place.node),
            fix=f"let its code not ask for the size, or {LEAVE_OUT}",
        ) from None
    writer.finish()
    return traces[0]


class _Writer:
    def __init__(self, traces: Sequence[GraphModule], sizes: Sequence[Sizes]) -> None:
        self.aligned = Aligned(traces, sizes)
        self.traces, self.sizes = traces, sizes
        self.root, self.graph = traces[0], traces[0].graph
        self.named: dict[str, tuple[Node, int]] = {}
        self.numbers: dict[Formula, Node] = {}
        signature = state_of(self.root).signature
        for node, spec in zip(
            self.graph.find_nodes(op="placeholder"), signature.inputs, strict=True
        ):
            if any(spec.names):
                node.meta["names"] = spec.names
            for axis, (name, _) in enumerate(spec.dimensions):
                if name is not None:
                    self.named.setdefault(name, (node, axis))

    def visit(self, nodes: tuple[Node, ...]) -> None:
        node = nodes[0]
        if node.op == "get_attr":
            self._constant(nodes)
            return
        self._check_ranks(nodes)
        merged = self.aligned.merge(nodes)
        args, kwargs = self._written(merged, node)
        node.args, node.kwargs = args, kwargs

    def _check_ranks(self, nodes: tuple[Node, ...]) -> None:
        values = [node.meta.get("val") for node in nodes]
        ranks = [value.dim() for value in values if isinstance(value, torch.Tensor)]
        for rank, sizes in zip(ranks, self.sizes, strict=False):
            if rank != ranks[0]:
                what = f"{ranks[0]} dimensions at {spelled(self.sizes[0])}, {rank} at"
                raise self._refusal(
                    f"a value has {what} {spelled(sizes)}",
                    nodes[0],
                    "say which dimension goes, as in squeeze(1)",
                )

    def _written(self, value: Any, node: Node) -> Any:
        """Arguments with nodes that compute what differs."""
        if isinstance(value, Varying):
            return self._number(value, node)
        if isinstance(value, dict):
            return {key: self._written(item, node) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*(self._written(each, node) for each in _parts(value)))
        if isinstance(value, list | tuple):
            items = [self._written(item, node) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return value

    def _number(self, value: Varying, node: Node) -> Node:
        if value.formula is None:
            seen = ", ".join(
                f"{each} at {spelled(sizes)}"
                for each, sizes in zip(value.values, self.sizes, strict=True)
            )
            raise self._refusal(f"a number depends on the size of an input: {seen}", node)
        return self._computed(value.formula, node)

    def _computed(self, formula: Formula, user: Node) -> Node:
        """A node that computes a formula from the sizes of the inputs."""
        if formula in self.numbers:
            return self.numbers[formula]
        with self.graph.inserting_before(user):
            found: Any = None
            for name in formula.names:
                size = self._node("call_method", "size", self.named[name], user)
                found = size if found is None else self._call(operator.mul, found, size, user)
            if formula.factor != 1:
                found = self._call(operator.mul, found, formula.factor, user)
            if formula.offset:
                found = self._call(operator.add, found, formula.offset, user)
        assert isinstance(found, Node)
        found.meta["val"] = formula(self.sizes[0])
        self.numbers[formula] = found
        return found

    def _call(self, function: Any, x: Any, y: Any, user: Node) -> Node:
        return self._node("call_function", function, (x, y), user)

    def _node(self, op: str, target: Any, args: tuple[Any, ...], user: Node) -> Node:
        name = target if isinstance(target, str) else target.__name__
        node = inherit(self.graph.create_node(op, target, args, {}, name), user, value=False)
        values = [arg.meta["val"] if isinstance(arg, Node) else arg for arg in args]
        node.meta["val"] = (
            getattr(values[0], target)(*values[1:]) if op == "call_method" else target(*values)
        )
        return node

    # -- constants -----------------------------------------------------------------------------

    def _constant(self, nodes: tuple[Node, ...]) -> None:
        node = nodes[0]
        data = [get_attribute(t, str(n.target)) for t, n in zip(self.traces, nodes, strict=True)]
        if all(each is data[0] for each in data) or not isinstance(data[0], torch.Tensor):
            return
        if len({each.shape for each in data}) == 1 and all(_same(data[0], each) for each in data):
            return
        found = one_slice(data)
        if found is not None:
            self._expand(node, data, *found)
        elif not self._cut(node, data):
            raise self._refusal(
                "a constant depends on the size of an input",
                node,
                "give its largest size by torch.export.Dim(name, max=…), make it from the input's "
                "values",
            )

    def _expand(
        self, node: Node, data: list[torch.Tensor], part: torch.Tensor, axes: list[int]
    ) -> None:
        sizes: list[Any] = [-1] * part.dim()
        after = node.next
        for axis in axes:
            values = tuple(each.shape[axis] for each in data)
            sizes[axis] = self._number(Varying(values, formula_of(values, self.sizes)), after)
        with self.graph.inserting_before(after):
            new = self.graph.call_method("expand", (node, *sizes))
        self._replace(node, part, new)

    def _cut(self, node: Node, data: list[torch.Tensor]) -> bool:
        """Keep the largest of the constants, of which the others are the beginning."""
        signature = state_of(self.root).signature
        bounded = {item.name: item.high for item in signature.dimensions}
        largest = max(data, key=torch.numel)
        if any(each.dim() != largest.dim() or each.dtype != largest.dtype for each in data):
            return False
        places: list[Any] = []
        after = node.next
        for axis in range(largest.dim()):
            values = tuple(each.shape[axis] for each in data)
            number = self.aligned.number(values)
            if isinstance(number, int):
                places.append(slice(None))
                continue
            formula = number.formula
            if formula is None or any(bounded[name] is None for name in formula.names):
                return False
            places.append(slice(None, self._number(number, after)))
        beginnings = [largest[tuple(slice(0, n) for n in each.shape)] for each in data]
        if not all(_same(a, b) for a, b in zip(beginnings, data, strict=True)):
            return False
        with self.graph.inserting_before(after):
            new = self.graph.call_function(operator.getitem, (node, tuple(places)))
        self._replace(node, largest, new)
        return True

    def _replace(self, node: Node, data: torch.Tensor, part: Node) -> None:
        """The constant holds other data, of which the users get a part."""
        owner, _, name = str(node.target).rpartition(".")
        setattr(get_attribute(self.root, owner) if owner else self.root, name, data)
        inherit(part, node)
        self.aligned.place[part] = self.aligned.place[node]
        node.meta["val"] = part.meta["val"].new_empty(data.shape)
        node.replace_all_uses_with(part, delete_user_cb=lambda user: user is not part)

    def _refusal(self, what: str, node: Node, fix: str = "") -> TraceError:
        advice = f"{fix}, or {LEAVE_OUT}" if fix else LEAVE_OUT
        user = next(iter(node.users), node) if node.op == "get_attr" else node
        return TraceError(what, node=format_node(user), source=source_text(user), fix=advice)

    # -- results -------------------------------------------------------------------------------

    def finish(self) -> None:
        """Name the dimensions of the results, and make the code anew."""
        state = state_of(self.root)
        signatures = [state_of(trace).signature for trace in self.traces]
        outputs = tuple(
            replace(specs[0], names=self._names([spec.shape for spec in specs]))
            for specs in zip(*(each.outputs for each in signatures), strict=True)
        )
        state.signature = replace(signatures[0], outputs=outputs)
        self.graph.set_codegen(SignatureCodeGen(state.signature))
        self.graph.lint()
        self.root.recompile()

    def _names(self, shapes: Sequence[tuple[int, ...]]) -> tuple[str | None, ...]:
        if len({len(shape) for shape in shapes}) > 1:
            return ()
        numbers = [self.aligned.number(values) for values in zip(*shapes, strict=True)]
        return tuple(None if isinstance(n, int) else str(n.formula or "any") for n in numbers)


def _parts(value: slice) -> tuple[Any, Any, Any]:
    return value.start, value.stop, value.step


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.shape == second.shape and bool(torch.equal(first, second))
