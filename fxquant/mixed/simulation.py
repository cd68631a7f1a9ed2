"""A prepared graph run in mixed precisions, without preparing it again.

    simulation = Simulation(prepared)
    simulation.measure([{}, {"conv": FLOAT32}, {"linear": INT16}], data)      # one pass over data

Every value that can be quantized has its FakeQuantize already. Which of them round follows from
the precisions: a value is rounded where its writer computes in integers, and otherwise for each
reader that does. Operators that move values pass on what they get. A layer in another integer
precision uses the same range with that precision's integers.

A mixture differs from the graph all in float, or all as prepared, in a few layers, so only what
lies behind those is computed again. One batch's values are in memory at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from fxquant.errors import CalibrationError
from fxquant.ir.edit import get_attribute
from fxquant.mixed.layers import Layer
from fxquant.mixed.noise import Noise
from fxquant.passes.float_regions import dynamic_operand
from fxquant.quant.arithmetic import affine_parameters, symmetric_parameters
from fxquant.quant.batches import BatchRunner
from fxquant.quant.bias_correction import BIAS, UNCORRECTED, UNROUNDED
from fxquant.quant.constraints import annotation_of
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.narrow import dynamically_quantized
from fxquant.quant.settle import fake_quantizes, settle
from fxquant.quant.spec import FLOAT32, Precision, QuantSpec

Mixture = Mapping[str, Precision]
"""Node name -> what it computes in instead of what annotate decided."""


def _grid_spec(precision: Precision) -> QuantSpec | None:
    """The integers of an operator's results; None where it computes in float."""
    return precision.activations if precision.quantized else None


@dataclass(frozen=True)
class _Value:
    """A value on its way.

    Attributes:
        raw: the tensor (or tensors).
        grid: the FakeQuantize that it passed; None in float regions.
        dtype: the integers that it was rounded to already; None if not yet.
    """

    raw: Any
    grid: FakeQuantize | None = None
    dtype: str | None = None


Values = dict[str, _Value]


class Simulation:
    """A calibrated graph that runs in any mixture of precisions.

    Args:
        prepared: what `prepare` returned, calibrated; it is not changed.

    Raises:
        CalibrationError: observers that saw nothing.
    """

    def __init__(self, prepared: GraphModule) -> None:
        settle(prepared)
        self.root = prepared
        self.runner = BatchRunner(prepared)
        self.floats: Mixture = {
            node.name: FLOAT32
            for node in prepared.graph.nodes
            if (annotation := annotation_of(node)) is not None and annotation.quantized
        }
        self.constants = {module for _, module in fake_quantizes(prepared) if module.constant}
        self._rounded: dict[tuple[str, QuantSpec], Tensor] = {}

    def measure(self, mixtures: Sequence[Mixture], data: Iterable[Any]) -> list[Noise]:
        """The noise of each mixture against float, in one pass over the data.

        Raises:
            CalibrationError: there are no data.
            InputError: a batch does not fit the model's inputs.
        """
        distinct = {frozenset(mixture.items()): mixture for mixture in mixtures}
        noises = {key: Noise() for key in distinct}
        count = 0
        with self.evaluated():
            for batch in data:
                for graph, inputs in self.runner.calls(batch, count):
                    values = list(distinct.values())
                    self._measure_call(graph, inputs, values, list(noises.values()))
                count += 1
        if count == 0:
            raise CalibrationError("there are no data", fix="give an iterable of batches")
        return [noises[frozenset(mixture.items())] for mixture in mixtures]

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[None]:
        """Evaluation mode and no gradients inside; every module's own mode back afterwards."""
        training = {module: module.training for module in self.root.modules()}
        self.root.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, mode in training.items():
                module.training = mode

    def only(self, layer: Layer, precision: Precision) -> Mixture:
        """Everything in float but one layer."""
        floats = {name: each for name, each in self.floats.items() if name not in layer.nodes}
        return {**floats, **({} if precision == layer.precision else layer.assigned(precision))}

    def local_errors(
        self,
        graph: GraphModule,
        inputs: tuple[Tensor, ...],
        plan: Sequence[tuple[Layer, Precision]],
    ) -> tuple[list[Tensor | None], dict[str, Tensor], list[Tensor]]:
        """What each item of a plan does to its layer's own result, if nothing else is quantized.

        Returns:
            The errors, None for layers of several results; what stands for those results when
            gradients are taken, by the name of the layer's last node; the float outputs.
        """
        run = _Run(self, graph.graph, inputs)
        run.leaves = dict.fromkeys(layer.nodes[-1] for layer, _ in plan)
        with torch.enable_grad():
            values = run.all(self.floats)
        errors = [run.local_error(values, layer, self.only(layer, p)) for layer, p in plan]
        leaves = {name: leaf for name, leaf in run.leaves.items() if leaf is not None}
        return errors, leaves, run.outputs(values)

    def _measure_call(
        self,
        graph: GraphModule,
        inputs: tuple[Tensor, ...],
        mixtures: Sequence[Mixture],
        noises: Sequence[Noise],
    ) -> None:
        run = _Run(self, graph.graph, inputs)
        floats = run.all(self.floats)
        wanted = run.outputs(floats)
        parted = [
            (mixture, noise, len(mixture) * 2 > len(self.floats))
            for mixture, noise in zip(mixtures, noises, strict=True)
        ]
        for mixture, noise, near_float in parted:
            if near_float:
                noise.add(wanted, run.outputs(run.changed(floats, self.floats, mixture)))
        del floats
        if any(mixture and not near_float for mixture, _, near_float in parted):
            prepared = run.all({})
            for mixture, noise, near_float in parted:
                if mixture and not near_float:
                    noise.add(wanted, run.outputs(run.changed(prepared, {}, mixture)))
            del prepared
        if not all(mixtures):
            run.corrected = True
            found = run.outputs(run.all({}))
            for mixture, noise, _ in parted:
                if not mixture:
                    noise.add(wanted, found)

    def rounded(self, value: _Value, spec: QuantSpec, name: str) -> Tensor:
        """A value on its own grid, or on that of other integers over the same range."""
        assert value.grid is not None
        if value.dtype == spec.dtype:
            return value.raw  # type: ignore[no-any-return]
        constant = value.grid in self.constants
        key = (name, replace(spec, axis=value.grid.spec.axis))
        if constant and key in self._rounded:
            return self._rounded[key]
        if spec.dtype == value.grid.spec.dtype:
            result = value.grid.rounded(value.raw)
        elif constant and value.grid.spec.symmetric:
            result = _stored(value.raw, spec.along(value.grid.spec.axis))
        else:
            result = recast(value.grid, spec, value.raw)
        if constant:
            self._rounded[key] = result
        return result


def recast(grid: FakeQuantize, spec: QuantSpec, value: Tensor) -> Tensor:
    """A value rounded to other integers over the range that a grid covers."""
    zero = grid.zero_point.double()
    low = (grid.spec.low - zero) * grid.scale
    high = (grid.spec.high - zero) * grid.scale
    parameters_for = symmetric_parameters if spec.symmetric else affine_parameters
    scale, zero_point = parameters_for(low, high, spec.low, spec.high)
    if grid.spec.axis is None:
        return torch.fake_quantize_per_tensor_affine(value, scale, zero_point, spec.low, spec.high)
    axis = grid.spec.axis
    return torch.fake_quantize_per_channel_affine(
        value, scale, zero_point, axis, spec.low, spec.high
    )


def _stored(weights: Tensor, spec: QuantSpec) -> Tensor:
    """Weights as they would be stored in another precision."""
    channels = 1 if spec.axis is None else weights.shape[spec.axis]
    quantizer = FakeQuantize(spec, channels, constant=True)
    if spec.observed:
        quantizer.measure(weights)
        quantizer.take_parameters()
    return quantizer.rounded(weights)


class _Run:
    """One call: the values of all nodes, computed as a mixture says."""

    def __init__(self, simulation: Simulation, graph: Graph, inputs: tuple[Tensor, ...]) -> None:
        self.simulation, self.root = simulation, simulation.root
        self.nodes = list(graph.nodes)
        self.leaves: dict[str, Tensor | None] = {}
        self.corrected = False  # biases are corrected for the graph as prepared, no other
        self.inputs = dict(
            zip((n.name for n in self.nodes if n.op == "placeholder"), inputs, strict=True)
        )

    def all(self, mixture: Mixture) -> Values:
        """The values of every node."""
        values: Values = {}
        for node in self.nodes:
            value = self._value(node, values, mixture)
            if node.name in self.leaves and isinstance(value.raw, Tensor):
                leaf = self.leaves[node.name] = torch.zeros_like(value.raw, requires_grad=True)
                value = replace(value, raw=value.raw + leaf)
            values[node.name] = value
        return values

    def local_error(self, values: Values, layer: Layer, mixture: Mixture) -> Tensor | None:
        """The change of a layer's result, its inputs being those of `values`."""
        result = dict(values)
        named = {node.name: node for node in self.nodes}
        for name in layer.nodes:
            result[name] = self._value(named[name], result, mixture)
        end = named[layer.nodes[-1]]
        exact = values[end.name].raw
        if not isinstance(exact, Tensor):
            return None
        found = result[end.name].raw
        for user in end.users:
            called = user.op == "call_module"
            if called and isinstance(get_attribute(self.root, str(user.target)), FakeQuantize):
                found = self._value(user, result, mixture).raw
                break
        assert isinstance(found, Tensor)
        return found - exact.detach()

    def changed(self, values: Values, known: Mixture, mixture: Mixture) -> Values:
        """The values under another mixture; what it does not touch is taken from `values`."""
        names = {name for name in {*known, *mixture} if known.get(name) != mixture.get(name)}
        result = dict(values)
        fresh: set[Node] = set()
        for node in self.nodes:
            if node.name in names or any(source in fresh for source in node.all_input_nodes):
                result[node.name] = self._value(node, result, mixture)
                fresh.add(node)
        return result

    def outputs(self, values: Values) -> list[Tensor]:
        """The tensors that the graph returns."""
        found = pytree.tree_leaves(values[self.nodes[-1].name].raw)
        return [leaf for leaf in found if isinstance(leaf, Tensor)]

    def _value(self, node: Node, values: Values, mixture: Mixture) -> _Value:
        if node.op == "placeholder":
            return _Value(self.inputs[node.name])
        if node.op == "get_attr":
            return _Value(get_attribute(self.root, str(node.target)))
        if node.op == "output":
            return _Value(map_arg(node.args[0], lambda n: values[n.name].raw))
        module = get_attribute(self.root, str(node.target)) if node.op == "call_module" else None
        if isinstance(module, FakeQuantize):
            return self._quantized(node, module, values, mixture)
        annotation = annotation_of(node)
        if annotation is not None and annotation.quantized and annotation.output.moves:
            return self._moved(node, module, values)
        raw = self._called(
            node, module, values, _grid_spec(self._precision(node, mixture)), mixture
        )
        return _Value(raw)

    def _precision(self, node: Node, mixture: Mixture) -> Precision:
        annotation = annotation_of(node)
        own = FLOAT32 if annotation is None else annotation.precision
        return mixture.get(node.name, own)

    def _quantized(
        self, node: Node, module: FakeQuantize, values: Values, mixture: Mixture
    ) -> _Value:
        """Rounded if the writer computes in integers; otherwise left to the readers."""
        source = node.all_input_nodes[0]
        before = values[source.name]
        if before.grid is not None:  # moved, or to be quantized again for one reader
            return _Value(before.raw, module, before.dtype if before.grid is module else None)
        spec = _grid_spec(self._precision(source, mixture))
        value = _Value(before.raw, module)
        if spec is None or module.constant:
            return value
        rounded = self.simulation.rounded(value, spec, node.name)
        return _Value(rounded, module, spec.dtype)

    def _moved(self, node: Node, module: Any, values: Values) -> _Value:
        """A mover: what is rounded stays so; the parts of a joined value become alike."""
        annotation = annotation_of(node)
        assert annotation is not None
        sources = [values[n.name] for n in node.all_input_nodes]
        known = [s for s in sources if s.grid is not None]
        done = next((s for s in known if s.dtype is not None), None)
        if annotation.output.kind != "shared":
            raw = self._called(node, module, values, None, {})
            return replace(known[0], raw=raw) if known else _Value(raw)
        spec = annotation.precision.activations if done is not None else None
        if done is None or spec is None or spec.dtype != done.dtype:
            spec = None
        raw = self._called(node, module, values, spec, {})
        return _Value(raw) if done is None else replace(done, raw=raw)

    def _called(
        self, node: Node, module: Any, values: Values, spec: QuantSpec | None, mixture: Mixture
    ) -> Any:
        """The operator's result; `spec` is what it reads activations as, None for float."""
        precision = self._precision(node, mixture)
        dynamic = dynamic_operand(node, precision) if precision.form == "dynamic" else None

        def read(source: Node) -> Any:
            if dynamic is not None and source is dynamic[0]:
                own = dynamic[1]
                return dynamically_quantized(values[source.name].raw, own.dims, own.low, own.high)
            return self._read(node, source, values[source.name], spec, precision)

        args, kwargs = map_arg((node.args, node.kwargs), read)
        if (spec is None or not self.corrected) and UNCORRECTED in node.meta:
            args = self._with_own_bias(node, args)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Any = module if module is not None else node.target
        return function(*args, **kwargs)

    def _read(
        self, node: Node, source: Node, value: _Value, spec: QuantSpec | None, precision: Precision
    ) -> Any:
        """A value as a node reads it: weights in its own dtype for them, others in `spec`."""
        if value.grid is None:
            return value.raw
        is_weight = value.grid in self.simulation.constants and value.grid.spec.symmetric
        narrow = is_weight and (spec is not None or not precision.quantized)
        wanted = precision.weights if narrow and precision.weights is not None else spec
        if wanted is None:
            return self._unrounded(node, source, value).raw
        if wanted.dtype != value.grid.spec.dtype:
            value = self._unrounded(node, source, value)
        return self.simulation.rounded(value, wanted, source.name)

    def _unrounded(self, node: Node, source: Node, value: _Value) -> _Value:
        """A weight as it was before it was rounded by its effect; any other value unchanged."""
        if UNROUNDED not in node.meta or source is not node.all_input_nodes[1]:
            return value
        return replace(value, raw=get_attribute(self.root, node.meta[UNROUNDED]))

    def _with_own_bias(self, node: Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """With the bias that the layer had before it was corrected."""
        path = node.meta[UNCORRECTED]
        bias = None if path is None else get_attribute(self.root, path)
        return (*args[:BIAS], bias, *args[BIAS + 1 :])
