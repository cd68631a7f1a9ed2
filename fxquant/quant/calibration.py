"""Run data through a prepared model so that its observers find the ranges.

    calibrate(prepared, loader, transform=lambda batch: batch[0])

Any iterable of inputs will do: tensors, tuples of inputs, dicts by parameter name, DataLoader
batches. Nothing of a batch is kept. Larger batches than the example's run whole where the model
takes them, and in slices of the example's size where it does not.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from fxquant.errors import CalibrationError, InputError
from fxquant.ir.state import state_of
from fxquant.quant.settle import check_observers, fake_quantizes, flags, settle

Transform = Callable[[Any], Any]


def calibrate(
    prepared: GraphModule,
    data: Iterable[Any],
    *,
    progress: bool = True,
    transform: Transform | None = None,
    limit: int | None = None,
) -> GraphModule:
    """Find the range of every observed value, and switch to simulated quantization.

    Args:
        prepared: what `prepare` returned; its observers are filled in place.
        data: batches of inputs.
        progress: show a progress bar, if the output is a terminal.
        transform: makes the inputs from a batch, e.g. drops labels.
        limit: the number of batches to use; None uses all.

    Returns:
        The prepared graph itself.

    Raises:
        CalibrationError: there are no data, NaN or infinity passed, or an observer saw nothing.
        InputError: a batch does not fit the model's inputs.
    """
    if "observed" not in state_of(prepared).properties:
        raise CalibrationError(
            "the graph has no observers", fix="calibrate what prepare(model, …) returned"
        )
    runner = _Runner(prepared)
    count = 0
    with _observing(prepared), _bar(progress, data, limit) as advance:
        for batch in islice(data, limit):
            runner.run(_inputs(batch if transform is None else transform(batch)), count)
            _check_finite(prepared)
            count += 1
            advance()
    if count == 0:
        raise CalibrationError(
            "there are no calibration data", fix="give an iterable with at least one batch"
        )
    settle(prepared)
    for _, module in fake_quantizes(prepared):
        module.switch(observing=False, quantizing=True)
    return prepared


@contextlib.contextmanager
def _observing(prepared: GraphModule) -> Iterator[None]:
    """Observers on, gradients off, evaluation mode; the model's mode is restored afterwards."""
    training = {module: module.training for module in prepared.modules()}
    for _, module in fake_quantizes(prepared):
        module.switch(observing=not module.constant, quantizing=False)
        module.assigned = False
    prepared.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in training.items():
            part.training = mode
        for _, module in fake_quantizes(prepared):
            module.observing = False


def _check_finite(prepared: GraphModule) -> None:
    if int(flags(prepared)) >= 0:
        check_observers(prepared)


def _inputs(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs of one batch."""
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, list | tuple):
        return tuple(batch), {}
    return (batch,), {}


class _Runner:
    """Calls the model with batches, whole or in slices, and says what does not fit."""

    def __init__(self, prepared: GraphModule) -> None:
        self.prepared = prepared
        nodes = [node for node in prepared.graph.nodes if node.op == "placeholder"]
        self.expected = [node for node in nodes if isinstance(node.meta.get("val"), Tensor)]
        self.sliced: dict[tuple[int, ...], bool] = {}

    def run(self, inputs: tuple[tuple[Any, ...], dict[str, Any]], number: int) -> None:
        args, kwargs = inputs
        leaves = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
        self._check(leaves, number)
        size = self._slice_size(leaves)
        try:
            if size is None:
                self.prepared(*args, **kwargs)
            else:
                self._run_slices(inputs, leaves[0].shape[0], size)
        except TypeError as error:
            raise InputError(
                f"batch {number} cannot be given to the model: {error}",
                fix="pass transform= that makes the model's inputs from a batch, e.g. drops labels",
            ) from error

    def _check(self, leaves: list[Tensor], number: int) -> None:
        if len(leaves) != len(self.expected):
            names = ", ".join(node.name for node in self.expected)
            raise InputError(
                f"batch {number} holds {len(leaves)} tensors, the model takes {len(self.expected)}",
                node=names,
                fix="pass transform= that makes the model's inputs from a batch, e.g. drops labels",
            )
        for node, leaf in zip(self.expected, leaves, strict=True):
            wanted = node.meta["val"]
            if leaf.shape[1:] != wanted.shape[1:] or leaf.dim() != wanted.dim():
                raise InputError(
                    f"batch {number}: input {node.name} has shape {list(leaf.shape)}, "
                    f"the model was prepared for {list(wanted.shape)}",
                    fix="only the first dimension may differ",
                )
            if leaf.dtype != wanted.dtype:
                raise InputError(
                    f"batch {number}: input {node.name} is {leaf.dtype}, "
                    f"the model takes {wanted.dtype}"
                )

    def _slice_size(self, leaves: list[Tensor]) -> int | None:
        """The size of slices, where the batch is not the example's and the model cannot take it."""
        wanted = self.expected[0].meta["val"] if self.expected else None
        if wanted is None or wanted.dim() == 0 or leaves[0].shape[0] == wanted.shape[0]:
            return None
        key = tuple(leaf.shape[0] for leaf in leaves if leaf.dim())
        if key not in self.sliced:
            self.sliced[key] = not _takes(self.prepared, self.expected, leaves)
        return int(wanted.shape[0]) if self.sliced[key] else None

    def _run_slices(self, inputs: Any, total: int, size: int) -> None:
        for start in range(0, total, size):
            # A short last slice begins earlier: some samples count twice, none is lost.
            cut = partial(_cut, start=max(0, min(start, total - size)), size=size)
            args, kwargs = pytree.tree_map(cut, inputs)
            self.prepared(*args, **kwargs)


def _cut(leaf: Any, start: int, size: int) -> Any:
    if not isinstance(leaf, Tensor) or leaf.dim() == 0:
        return leaf
    cut = leaf[start : start + size]
    short = size - cut.shape[0]
    return torch.cat([cut, cut[:1].expand(short, *cut.shape[1:])]) if short > 0 else cut


def _takes(prepared: GraphModule, expected: list[Node], leaves: list[Tensor]) -> bool:
    """Whether the graph computes with another batch size, tried without data."""
    ratio = leaves[0].shape[0] / max(1, expected[0].meta["val"].shape[0])
    try:
        interpreter = _Shapes(prepared)
        interpreter.run(*(leaf.to("meta") for leaf in leaves), enable_io_processing=False)
    except Exception:
        return False
    return interpreter.scaled(ratio)


class _Shapes(torch.fx.Interpreter):
    """Runs a graph on the meta device, FakeQuantize left out, and keeps the shapes."""

    def __init__(self, prepared: GraphModule) -> None:
        super().__init__(prepared)
        self.shapes: dict[Node, tuple[torch.Size, torch.Size]] = {}

    def run_node(self, node: Node) -> Any:
        result = super().run_node(node)
        wanted = node.meta.get("val")
        if isinstance(result, Tensor) and isinstance(wanted, Tensor) and node.op != "get_attr":
            self.shapes[node] = (wanted.shape, result.shape)
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[0]

    def get_attr(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return super().get_attr(target, args, kwargs).to("meta")

    def scaled(self, ratio: float) -> bool:
        """Whether every value that grew did so in its first dimension, by the batch's ratio."""
        return all(
            new == old or (new[1:] == old[1:] and new[0] == old[0] * ratio)
            for old, new in self.shapes.values()
        )


@contextlib.contextmanager
def _bar(progress: bool, data: Iterable[Any], limit: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; elsewhere nothing."""
    if not progress or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("calibrating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    length = len(data) if isinstance(data, Sized) else None
    total = length if limit is None or length is None else min(limit, length)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("calibrating", total=total)
        yield lambda: bar.advance(task)
