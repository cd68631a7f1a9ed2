"""What quantizing each layer does to the output of the whole model.

    prepared = fq.calibrate(fq.prepare(model, example_inputs), data)
    print(fq.sensitivity(prepared, data).render())

    layer        operator  precision  alone, dB  all others, dB  bytes saved
    blocks.0.fc  linear    int8            21.3            12.9        49152
    …
    together                int8                           12.1       …

*Alone*: only this layer is quantized. *All others*: everything else is. Both against the float
graph, in one pass over the data.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from torch import nn
from torch.fx import GraphModule

from fxquant.api import prepare, traced
from fxquant.backends.base import Backend
from fxquant.errors import InputError
from fxquant.ir.state import state_of
from fxquant.mixed.layers import Layer, can_compute, layers_of
from fxquant.mixed.noise import decibels
from fxquant.mixed.probes import alone
from fxquant.mixed.simulation import Mixture, Simulation
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from fxquant.quant.spec import FLOAT32, Precision, precision

By = Literal["layer", "module"]
Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class Sensitivity:
    """One layer, or the layers of one module, in one precision.

    Attributes:
        layer: the module path, or the node where it has none.
        nodes: names of the nodes quantized.
        operator: what they compute; `3 operators` where there are several.
        precision: the precision tried.
        alone: SQNR at the output in dB with nothing else quantized.
        others: SQNR at the output in dB with everything else quantized as prepared; NaN where it
            was not measured.
        bytes_saved: bytes of weights less than in float32.
        source: the user's line.
    """

    layer: str
    nodes: tuple[str, ...]
    operator: str
    precision: str
    alone: float
    others: float
    bytes_saved: int
    source: str = ""


@dataclass(frozen=True)
class SensitivityTable(Sequence[Sensitivity]):
    """The rows in the order of the graph.

    Attributes:
        rows: one a layer and precision.
        sqnr: SQNR at the output in dB with everything quantized as prepared.
    """

    rows: tuple[Sensitivity, ...]
    sqnr: float

    def __getitem__(self, place: Any) -> Any:
        return self.rows[place]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Sensitivity]:
        return iter(self.rows)

    def worst(self, count: int = 10) -> SensitivityTable:
        """The rows that harm most alone, worst first."""
        ordered = sorted(self.rows, key=lambda row: row.alone)
        return SensitivityTable(tuple(ordered[:count]), self.sqnr)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain data, e.g. for `pandas.DataFrame`."""
        return [asdict(row) for row in self.rows]

    def __rich__(self) -> Table:
        title = f"sensitivity: all together {self.sqnr:.1f} dB"
        table = Table(title=title, title_justify="left")
        for heading in ("layer", "node", "operator", "precision"):
            table.add_column(heading)
        for heading in ("alone, dB", "all others, dB", "bytes saved"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            others = "" if math.isnan(row.others) else f"{row.others:.1f}"
            figures = (f"{row.alone:.1f}", others, str(row.bytes_saved))
            table.add_row(row.layer, row.nodes[0], row.operator, row.precision, *figures)
        return table

    def render(self, width: int = 120) -> str:
        """The table as plain text."""
        file = io.StringIO()
        Console(file=file, width=width, color_system=None).print(self)
        return file.getvalue()

    def __str__(self) -> str:
        return self.render()


def sensitivity(
    model: nn.Module,
    data: Iterable[Any],
    *,
    example_inputs: Any = None,
    config: QuantConfig | None = None,
    backend: str | Backend = "tflite",
    by: By = "layer",
    precisions: Sequence[str] = (),
    probes: int = 0,
    transform: Transform | None = None,
) -> SensitivityTable:
    """Measure what quantizing each layer does to the model's output.

    Every figure is a signal-to-quantization-noise ratio: output power by the power of its error,
    the mean over the model's outputs, summed over all data. The data are read once (once more where
    a module has to be calibrated first, or with probes), and one batch's values are in memory at a
    time.

    Args:
        model: a prepared and calibrated graph, or any module, which is prepared and calibrated.
        data: batches of inputs, as for `calibrate`.
        example_inputs: needed for a module.
        config: what to quantize; for a module only.
        backend: the target; for a module only.
        by: one row for each layer, or for each of the user's modules.
        precisions: names of other precisions to try besides the prepared one.
        probes: estimate what layers do alone by so many backward passes a batch, and leave out
            what all others do; dozens of times as quick for large nets (see `probes`).
        transform: makes the inputs from a batch, e.g. drops labels.

    Raises:
        InputError: a module without example inputs, or data that can be read only once.
        CalibrationError: a graph that was not prepared or calibrated; no data.
        ConfigError: there is no precision of that name.
    """
    tried = [precision(name) for name in precisions]
    prepared = calibrated(model, data, example_inputs, config, backend, transform)
    groups = _groups(layers_of(prepared), by)
    simulation = Simulation(prepared)
    plan = [(group, chosen) for group in groups for chosen in _precisions(prepared, group, tried)]
    batches: Iterable[Any] = data if transform is None else Transformed(data, transform)
    if probes:
        check_readable_again(data)
        return _estimated(simulation, plan, batches, probes)
    mixtures: list[Mixture] = [{}]
    for group, chosen in plan:
        mixtures += [_only(simulation, group, chosen), _without(group)]
    together, *noises = simulation.measure(mixtures, batches)
    rows = [
        _row(group, chosen, only.ratio, others.ratio)
        for (group, chosen), only, others in zip(plan, noises[::2], noises[1::2], strict=True)
    ]
    return SensitivityTable(tuple(rows), together.sqnr)


def _estimated(
    simulation: Simulation,
    plan: Sequence[tuple[Sequence[Layer], Precision]],
    batches: Iterable[Any],
    probes: int,
) -> SensitivityTable:
    """The table of estimates: the noise of a module is the sum of its layers'."""
    single = [(layer, chosen) for group, chosen in plan for layer in group]
    ratios = iter(alone(simulation, single, batches, probes))
    sums = [sum(next(ratios) for _ in group) for group, _ in plan]
    (together,) = simulation.measure([{}], batches)
    rows = [
        _row(group, chosen, ratio, math.nan)
        for (group, chosen), ratio in zip(plan, sums, strict=True)
    ]
    return SensitivityTable(tuple(rows), together.sqnr)


def calibrated(
    model: nn.Module,
    data: Iterable[Any],
    example_inputs: Any,
    config: QuantConfig | None,
    backend: str | Backend,
    transform: Transform | None,
) -> GraphModule:
    """The graph itself if it is prepared; a module prepared and calibrated."""
    if isinstance(model, GraphModule) and "observed" in state_of(model).properties:
        return model
    if example_inputs is None:
        fix = "give example_inputs=, or what prepare and calibrate returned"
        raise InputError("a model is prepared by following it on example inputs", fix=fix)
    check_readable_again(data)
    prepared = prepare(traced(model, example_inputs, None), example_inputs, config, backend=backend)
    return calibrate(prepared, data, progress=False, transform=transform)


class Transformed:
    """Data whose batches are made anew in every pass."""

    def __init__(self, data: Iterable[Any], transform: Transform) -> None:
        self.data, self.transform = data, transform

    def __iter__(self) -> Iterator[Any]:
        return map(self.transform, self.data)


def check_readable_again(data: Iterable[Any]) -> None:
    """Raise if the data are gone after one pass."""
    if iter(data) is data:
        fix = "give a list or a DataLoader"
        raise InputError("the data can be read only once, and are needed several times", fix=fix)


def _groups(layers: Sequence[Layer], by: By) -> list[list[Layer]]:
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        key = layer.place if by == "module" else layer.name
        groups.setdefault(key, []).append(layer)
    return list(groups.values())


def _precisions(
    prepared: GraphModule, group: Sequence[Layer], tried: Sequence[Precision]
) -> list[Precision]:
    own = list(dict.fromkeys(layer.precision for layer in group))
    names = {each.name for each in own}
    others = [p for p in tried if p.name not in names and p.form != "float"]
    return own[:1] + [p for p in others if all(can_compute(prepared, each, p) for each in group)]


def _only(simulation: Simulation, group: Sequence[Layer], chosen: Precision) -> Mixture:
    """Everything in float but the layers of a group."""
    own = {name for layer in group for name in layer.nodes}
    floats = {name: p for name, p in simulation.floats.items() if name not in own}
    same = {layer.precision for layer in group} == {chosen}
    assigned = {name: each for layer in group for name, each in layer.assigned(chosen).items()}
    return floats if same else {**floats, **assigned}


def _without(group: Sequence[Layer]) -> Mixture:
    """Everything as prepared but the layers of a group, which are in float."""
    return {name: FLOAT32 for layer in group for name in layer.nodes}


def _row(group: Sequence[Layer], chosen: Precision, alone: float, others: float) -> Sensitivity:
    first = group[0]
    saved = sum(layer.weight_bytes(FLOAT32) - layer.weight_bytes(chosen) for layer in group)
    operators = list(dict.fromkeys(layer.operator for layer in group))
    operator = operators[0] if len(operators) == 1 else f"{len(operators)} operators"
    nodes = tuple(name for layer in group for name in layer.nodes)
    return Sensitivity(
        first.place,
        nodes,
        operator,
        chosen.name,
        decibels(alone),
        others if math.isnan(others) else decibels(others),
        saved,
        first.source,
    )
