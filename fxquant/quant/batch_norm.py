"""Batch norm statistics: found again on data, and batch norms made anew where they were folded.

    reestimate_batch_norm(model, loader)     running mean and variance are those of these data
    restore_batch_norm(core, loader)         %c = conv2d(…)  ->  %c = conv2d(…); %n = BatchNorm(%c)

Quantized or rewritten layers put out other statistics than those the norms remember. And a model
whose norms were folded, as deployed files and equalized models are, trains badly without them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm

from fxquant.errors import CalibrationError, InputError
from fxquant.ir.edit import add_module, copy_graph_module, inherit
from fxquant.ir.state import state_of
from fxquant.ir.stepping import Stepper
from fxquant.ir.views import convolution
from fxquant.quant.batches import BatchRunner
from fxquant.quant.progress import progress_bar

Transform = Callable[[Any], Any]

FROZEN = "frozen"
"""What a norm that is trained quantized calls itself while its statistics stand still."""


@dataclass
class Moments:
    """Mean and variance of each channel over any number of batches, whatever their sizes.

    >>> moments = Moments()
    >>> for part in torch.arange(6.0).view(6, 1).split([4, 2]):
    ...     moments.add(part)
    >>> float(moments.mean), float(moments.variance), int(moments.count)
    (2.5, 3.5, 6)
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()).double())
    squares: Tensor = field(default_factory=lambda: torch.zeros(()).double())

    def add(self, value: Tensor) -> None:
        """Take in a batch [samples, channels, …]."""
        rows = value.detach().transpose(0, 1).flatten(1).double()
        count, mean = rows.shape[1], rows.mean(1)
        squares = (rows - mean[:, None]).square().sum(1)
        total, gap = self.count + count, mean - self.mean
        self.squares = self.squares + squares + gap**2 * (self.count * count / total)
        self.mean = self.mean + gap * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """The unbiased variance, as running statistics hold it."""
        return self.squares / max(self.count - 1, 1)


def reestimate_batch_norm(
    model: nn.Module,
    data: Iterable[Any],
    *,
    transform: Transform | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> nn.Module:
    """Set the running statistics of every batch norm to those of data, exactly.

    Each norm normalizes with its batch while the data pass, as in training, so that the norms
    behind it see what they will see. Mean and variance are those of all values of all batches, not
    an average of batches, and `num_batches_tracked` counts these batches. Nothing else changes, the
    modes of modules and the momenta included.

    Args:
        model: any module with batch norms, a graph or one prepared for QAT included.
        data: batches of inputs: tensors, tuples or dicts.
        transform: makes the inputs from a batch, e.g. drops labels.
        limit: the number of batches to use; None uses all.
        progress: show a progress bar, if the output is a terminal.

    Returns:
        The model itself.

    Raises:
        InputError: there is no batch norm with running statistics.
        CalibrationError: there are no data.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        raise InputError(
            "the model has no batch norm with running statistics",
            fix="restore_batch_norm(graph, data) makes them where they were folded",
        )
    moments = {norm: Moments() for norm in norms}
    batches = islice(data if transform is None else map(transform, data), limit)
    call, number = _caller(model), -1
    with (
        _statistics_of_batches(model, moments),
        progress_bar("batch norms", progress, data, limit) as advance,
    ):
        for number, batch in enumerate(batches):
            call(batch, number)
            advance()
    if not any(found.count for found in moments.values()):
        raise CalibrationError("there are no data", fix="give an iterable with at least one batch")
    for norm, found in moments.items():
        assert norm.running_mean is not None and norm.running_var is not None
        if found.count:
            norm.running_mean.copy_(found.mean)
            norm.running_var.copy_(found.variance)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.fill_(number + 1)  # what a momentum of None averages over
    return model


def _caller(model: nn.Module) -> Callable[[Any, int], object]:
    """How a batch is given to the model; graphs take batches of any size."""
    if isinstance(model, GraphModule) and state_of(model).signature is not None:
        return BatchRunner(model).run

    def call(batch: Any, number: int) -> object:
        if isinstance(batch, Mapping):
            return model(**batch)
        return model(*batch) if isinstance(batch, list | tuple) else model(batch)

    return call


@contextlib.contextmanager
def _statistics_of_batches(model: nn.Module, moments: dict[_BatchNorm, Moments]) -> Iterator[None]:
    """Norms normalize with their batch and note its moments; their state stays."""
    modes = {module: module.training for module in model.modules()}
    kept = {norm: (norm.momentum, norm.num_batches_tracked, _frozen(norm)) for norm in moments}
    hooks = [norm.register_forward_pre_hook(_noting(found)) for norm, found in moments.items()]
    model.eval()
    for norm in moments:
        norm.training, norm.momentum, norm.num_batches_tracked = True, 0.0, None
        if _frozen(norm):
            setattr(norm, FROZEN, False)
    try:
        with torch.no_grad():
            yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, (momentum, batches, frozen) in kept.items():
            norm.momentum, norm.num_batches_tracked = momentum, batches
            if frozen:
                setattr(norm, FROZEN, True)
        for module, training in modes.items():
            module.training = training


def _frozen(norm: _BatchNorm) -> bool:
    return bool(getattr(norm, FROZEN, False))


def _noting(found: Moments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda module, inputs: found.add(inputs[0])


NORMS: dict[int, type[_BatchNorm]] = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def restore_batch_norm(
    graph_module: GraphModule, data: Iterable[Any], *, transform: Transform | None = None
) -> GraphModule:
    """A copy of a core graph with a batch norm behind every convolution that has none.

    The new norms compute nothing at first: running statistics are those of the data, and gamma and
    beta undo them. In training they normalize, so that a model whose norms were folded (a deployed
    one, or an equalized one) can be fine-tuned; `prepare_qat` takes the graph.

    Args:
        graph_module: a functional graph in float, e.g. `Pipeline.default("float")(trace(…))`.
        data: batches of inputs to find the statistics on.
        transform: makes the inputs from a batch.

    Raises:
        InputError: the graph is not functional, is quantized, or has no convolution without norm.
        CalibrationError: there are no data.
    """
    properties = state_of(graph_module).properties
    if "functional" not in properties or {"observed", "frozen"} & properties:
        fix = 'give Pipeline.default("float")(trace(model, example_inputs))'
        raise InputError("batch norms go into a functional graph in float", fix=fix)
    restored = copy_graph_module(graph_module)
    bare = [node for node in restored.graph.nodes if _is_bare(restored, node)]
    if not bare:
        raise InputError("the graph has no convolution without a batch norm")
    moments = {node.name: Moments() for node in bare}
    runner = BatchRunner(restored)
    with torch.no_grad():
        for number, batch in enumerate(data if transform is None else map(transform, data)):
            for graph, inputs in runner.calls(batch, number):
                _Collector(graph, moments).run(*inputs)
    if not any(found.count for found in moments.values()):
        raise CalibrationError("there are no data", fix="give an iterable with at least one batch")
    for node in bare:
        _insert(restored, node, moments[node.name])
    state_of(restored).properties.clear()  # a module like any other: to be traced anew
    restored.recompile()
    return restored


def _is_bare(root: GraphModule, node: Node) -> bool:
    if convolution(node) is None:
        return False
    followers = [user for user in node.users if user.op == "call_module"]
    return not any(isinstance(root.get_submodule(str(u.target)), _BatchNorm) for u in followers)


class _Collector(Stepper):
    def __init__(self, graph: GraphModule, moments: dict[str, Moments]) -> None:
        super().__init__(graph)
        self.moments = moments

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n.name in self.moments:
            self.moments[n.name].add(value)
        return value


def _insert(root: GraphModule, node: Node, found: Moments) -> None:
    """Put a norm that undoes its own statistics behind a node."""
    value = node.meta["val"]
    norm = NORMS[value.dim()](value.shape[1]).to(value.device)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(found.mean)
    norm.running_var.copy_(found.variance)
    with torch.no_grad():
        norm.bias.copy_(norm.running_mean)
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
    path = add_module(root, f"{node.name}_bn", norm.eval())
    with root.graph.inserting_after(node):
        new = root.graph.create_node("call_module", path, (), {}, name=f"{node.name}_bn")
    node.replace_all_uses_with(new)
    new.args = (node,)
    inherit(new, node)
