"""Bisection: the first pass after which a predicate of the user's fails, then the first bad node.

    found = bisect(model, (x,), lambda graph: (graph(x) - model(x)).abs().max() < 1e-3)
    print(found)

    after pass 4, fuse-conv-bn, the predicate fails
      node   %conv = conv2d(%x, @conv.weight, @conv.bias) : f32[1,4,8,8]
      from   model.py:41  x = self.conv(x)
      gap    relative error 0.31

Passes run one by one and the predicate sees every graph that differs from the one before. All
stages share their tensors, so this costs no more memory than a compile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn
from torch.fx import GraphModule

from fxquant.backends.base import Backend, LowerOptions
from fxquant.backends.registry import get_backend
from fxquant.errors import InputError
from fxquant.ir.edit import copy_graph_module
from fxquant.ir.printer import format_node
from fxquant.ir.source import source_text
from fxquant.ir.state import state_of
from fxquant.passes.base import CHANGES, EXACT, Pass, PassResult, Semantics
from fxquant.passes.instruments import active_instruments
from fxquant.passes.instruments.comparison import first_deviating
from fxquant.passes.instruments.probe import given_inputs
from fxquant.passes.instruments.validate import contract_of, inputs_after
from fxquant.passes.pipeline import Pipeline, run_pass
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from fxquant.tracing import trace

Predicate = Callable[[GraphModule], Any]


@dataclass(frozen=True)
class Bisection:
    """What was found.

    Attributes:
        item: the first pass after which the predicate fails, as text; None if there is none.
        number: its place in the pipeline, from 1.
        node: the first node of the graph after it that deviates from the graph before it.
        source: the user's line of that node.
        gap: how far the node is off.
        error: what the pass or the predicate raised, if it did.
    """

    item: str | None = None
    number: int = 0
    node: str | None = None
    source: str | None = None
    gap: str | None = None
    error: str | None = None

    def __str__(self) -> str:
        if self.item is None:
            return "the predicate holds after every pass"
        facts = (
            ("node", self.node),
            ("from", self.source),
            ("gap", self.gap),
            ("raised", self.error),
        )
        head = f"after pass {self.number}, {self.item}, the predicate fails"
        return "\n".join([head, *(f"  {label:<6} {text}" for label, text in facts if text)])


@dataclass(frozen=True)
class _Calibrate(Pass):
    """Shows data to the observers; only here a step among passes."""

    name: ClassVar[str] = "calibrate"
    requires: ClassVar[frozenset[str]] = frozenset({"observed"})
    semantics: ClassVar[Semantics] = CHANGES

    data: Iterable[Any] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return self.name

    def run(self, graph_module: GraphModule) -> PassResult:
        return PassResult(calibrate(graph_module, self.data, progress=False), True)


def bisect(
    model: nn.Module,
    example_inputs: Any,
    predicate: Predicate,
    *,
    pipeline: Pipeline | str | None = None,
    calibration: Iterable[Any] | None = None,
    config: QuantConfig | None = None,
    backend: str | Backend = "tflite",
    kwargs: Mapping[str, Any] | None = None,
) -> Bisection:
    """Find the pass, and in it the node, that breaks a predicate.

    Args:
        model: any module, or the graph of a stage.
        example_inputs: a tuple of inputs; the first bad node is looked for on them.
        predicate: is given the graph of a stage, which is called like the model; true is good, and
            an exception is bad.
        pipeline: the passes; all of a compile, up to the backend's last, if None.
        calibration: data, for a pipeline that quantizes to int8.
        config: what to quantize and how.
        backend: the target.
        kwargs: keyword inputs of the model.

    Raises:
        InputError: the predicate fails before any pass.
    """
    target = get_backend(backend)
    current = copy_graph_module(_graph(model, example_inputs, kwargs))
    state = state_of(current)
    if state.target is None:
        state.target, state.constraints = target.name, target.constraints()
        state.config = config or QuantConfig()
    given = dict(kwargs) if kwargs else example_inputs
    inputs = given_inputs(current, given)
    passes = Pipeline.parse(pipeline) if isinstance(pipeline, str) else pipeline
    passes = passes or _whole(target, calibration)
    passes.check(state.properties)
    if (failure := _failure(predicate, current)) is not None:
        raise InputError(
            f"the predicate fails on the graph before any pass{failure and ': '}{failure}",
            fix="bisect finds what breaks a predicate that holds at first",
        )
    return _search(current, passes, predicate, inputs)


def _graph(model: nn.Module, example_inputs: Any, kwargs: Mapping[str, Any] | None) -> GraphModule:
    """The graph of a model in eval mode, or the graph itself if that is what was given."""
    if isinstance(model, GraphModule) and state_of(model).properties:
        return model
    modes = [(module, module.training) for module in model.modules()]
    try:
        return trace(model.eval(), example_inputs, kwargs=None if kwargs is None else dict(kwargs))
    finally:
        for module, training in modes:
            module.training = training


def _whole(target: Backend, calibration: Iterable[Any] | None) -> Pipeline:
    """All passes of a compile."""
    last = target.pipeline(LowerOptions())
    if calibration is None:
        return Pipeline((Pipeline.default("float"), last))
    steps = (Pipeline.default("ptq"), _Calibrate(calibration), Pipeline.default("freeze"), last)
    return Pipeline(steps)


def _search(
    current: GraphModule, passes: Pipeline, predicate: Predicate, inputs: list[Any]
) -> Bisection:
    for number, item in enumerate(passes.flat(), start=1):
        before = copy_graph_module(current)
        try:
            result = run_pass(item, current, active_instruments())
        except Exception as error:
            return Bisection(str(item), number, error=f"{type(error).__name__}: {error}")
        current = result.graph_module
        after = inputs_after(before, current, inputs)
        failure = _failure(predicate, current) if result.modified else None
        if failure is not None:
            return _located(item, number, before, current, inputs, after, failure)
        inputs = after
    return Bisection()


def _failure(predicate: Predicate, graph_module: GraphModule) -> str | None:
    """None if the predicate holds, else what it raised, or nothing."""
    try:
        return None if bool(predicate(graph_module)) else ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _located(
    item: Pass,
    number: int,
    before: GraphModule,
    after: GraphModule,
    first: list[Any],
    second: list[Any],
    failure: str,
) -> Bisection:
    # A predicate may be stricter than the contract: then any difference counts.
    for semantics in (contract_of(item, before, after), EXACT):
        try:
            culprit = first_deviating(before, after, first, second, semantics)
        except Exception as error:  # the graph does not run: nothing to compare
            return Bisection(str(item), number, error=failure or str(error))
        if culprit is not None:
            node, gap = culprit
            text, source = format_node(node, after), source_text(node)
            return Bisection(str(item), number, text, source, str(gap), failure or None)
    return Bisection(str(item), number, error=failure or None)
