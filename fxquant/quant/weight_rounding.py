"""Round weights by what they do to the layer's output, not each to its nearest integer.

    calibrate(prepared, loader)
    refine_rounding(prepared, loader)

Rounding one weight makes an error that the weights not yet rounded can take back in part, as far
as their inputs are correlated: column by column the error of a column is spread over the later
ones, weighted by the inverse of H = X X^T, the second moments of the layer's inputs (OBQ, Frantar
2022; GPTQ, Frantar 2023). Layers go in order, each on the inputs that the refined ones before it
give. First each row's scale is chosen anew, for the least error weighted by the diagonal of H: with
four bits the widest weight is better cut. The program stays the same; only constants change.

`calibrate` does it by itself for weights of four bits (`QuantConfig.refine_rounding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule, Node

from fxquant.ir.edit import add_parameter, get_attribute, inherit, read_attribute, tensor_at
from fxquant.ir.views import Convolution, Layer, layer
from fxquant.quant.arithmetic import Parameters
from fxquant.quant.batches import Call
from fxquant.quant.bias_correction import (
    UNROUNDED,
    Run,
    calls_of,
    check_calibrated,
    restore_bias,
)
from fxquant.quant.equalization.channels import constant_of
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.settle import settle
from fxquant.quant.spec import QuantSpec

DAMPING = 0.01
"""Added to the diagonal of H, relative to its mean: few samples leave directions without data."""

LONGEST = 8192
"""The most weights of one row: H has the square of it, in float64."""

BLOCK = 128
"""Columns after which the error that they leave is spread over all later ones at once."""

RATIOS = tuple(1 - step / 20 for step in range(11))
"""Scales that are tried, relative to the one that cuts nothing."""


def refine_rounding(
    prepared: GraphModule,
    data: Iterable[Any],
    *,
    samples: int = 32,
    transform: Callable[[Any], Any] | None = None,
) -> GraphModule:
    """Round the weights of convolutions and linear layers for the least error of their outputs.

    `calibrate` does so by itself for weights of four bits, on the samples that it keeps; this is
    for others, and for more samples. Rounding that was refined before is refined anew. Biases that
    `calibrate` corrected are taken back to what they were: correcting them after refined rounding
    made the logits of ResNet-20 and SqueezeNet worse by 2 to 5 dB, of MobileNetV2 by 0.3 to 2 dB.
    Left as they are: transposed convolutions, layers whose weights are shared or were trained, and
    rows of more than `LONGEST` weights.

    Args:
        prepared: a calibrated graph; its weights are replaced, the user's tensors are not touched.
        data: batches of inputs, as for `calibrate`; only the first ones are used.
        samples: how many samples to use. Their activations are held in memory.
        transform: makes the inputs from a batch.

    Returns:
        The graph itself.

    Raises:
        CalibrationError: the graph was not calibrated, or there are no data.
        InputError: a batch does not fit the model's inputs.
    """
    check_calibrated(prepared)
    restore_bias(prepared)
    restore_weights(prepared)
    prepared.recompile()
    settle(prepared)
    refine_rounding_on(prepared, calls_of(prepared, data, samples, transform))
    return prepared


def refine_rounding_on(
    prepared: GraphModule,
    calls: Sequence[Call],
    chosen: Callable[[QuantSpec], bool] = lambda spec: True,
) -> bool:
    """The same with calls that are at hand: of the graph itself, or copies with its nodes' names.

    The copies are of no use afterwards, they read the old weights.

    Args:
        prepared: a calibrated graph whose weights and biases are the float model's.
        calls: what it is run on.
        chosen: which weights, by their spec.

    Returns:
        Whether any weights were replaced.
    """
    wanted = {
        node.name: node
        for node in prepared.graph.nodes
        if _can_refine(prepared, node) and chosen(_parts(prepared, node)[1].spec)
    }
    if not wanted:
        return False
    with torch.no_grad():
        refined = _refined(prepared, calls, wanted)
    for node, weight in refined.items():
        _replace(prepared, node, weight)
    prepared.recompile()
    settle(prepared)
    return True


def has_few_bits(spec: QuantSpec) -> bool:
    """Whether weights have so few bits that refined rounding is worth it without being asked."""
    return spec.dtype == "int4"


def restore_weights(prepared: GraphModule) -> None:
    """Let every layer read the weights again that it had before their rounding was refined.

    Their ranges are found anew by the next `settle`.
    """
    for node in prepared.graph.nodes:
        if UNROUNDED not in node.meta:
            continue
        view, module = _parts(prepared, node)
        refined, path = _read(view), node.meta.pop(UNROUNDED)
        with prepared.graph.inserting_before(view.weight):
            old = read_attribute(prepared.graph, prepared, path)
        inherit(old, refined, value=False)
        view.weight.replace_input_with(refined, old)
        if not refined.users:
            prepared.graph.erase_node(refined)
        module.trained = False


def _refined(
    prepared: GraphModule, calls: Sequence[Call], wanted: Mapping[str, Node]
) -> dict[Node, Tensor]:
    """The weights on their grids, by the node that reads them; runs the calls in step."""
    runs = [Run(*call) for call in calls]
    found: dict[Node, Tensor] = {}
    for nodes in zip(*(graph.graph.nodes for graph, _ in calls), strict=True):
        own = wanted.get(nodes[0].name)
        if own is not None:
            view, module = _parts(prepared, own)
            weight = tensor_at(prepared, _read(view)).detach()
            inputs = [run.env[_x(node)] for run, node in zip(runs, nodes, strict=True)]
            found[own] = _rounded(view, module, weight, inputs)
            for run, node in zip(runs, nodes, strict=True):
                run.env[node.all_input_nodes[1]] = found[own]
        for run, node in zip(runs, nodes, strict=True):
            run.step(node, None)
    return found


def _x(node: Node) -> Node:
    view = layer(node)
    assert view is not None
    return view.x


def _parts(root: GraphModule, node: Node) -> tuple[Layer, FakeQuantize]:
    view = layer(node)
    assert view is not None
    module = get_attribute(root, str(view.weight.target))
    assert isinstance(module, FakeQuantize)
    return view, module


def _read(view: Layer) -> Node:
    read = constant_of(view.weight)
    assert read is not None
    return read


def _can_refine(root: GraphModule, node: Node) -> bool:
    """Whether a layer has weights of its own on a grid for each row, or one for all."""
    view = layer(node)
    if view is None or (isinstance(view, Convolution) and not _is_flat(view)):
        return False
    read = constant_of(view.weight)
    if view.weight.op != "call_module" or read is None:
        return False
    if tensor_at(root, read)[0].numel() > LONGEST:
        return False
    module = get_attribute(root, str(view.weight.target))
    uses = sum(1 for other in root.graph.nodes if other.target == view.weight.target)
    own = isinstance(module, FakeQuantize) and module.spec.symmetric and module.has_grid
    return own and not module.trained and uses == 1 and len(view.weight.users) == 1


def _is_flat(view: Convolution) -> bool:
    """Whether a convolution is one of lines or images, in batches."""
    rank = len(view.stride)
    return not view.transposed and rank <= 2 and view.x.meta["val"].dim() == rank + 2


def _rounded(view: Layer, module: FakeQuantize, weight: Tensor, inputs: list[Tensor]) -> Tensor:
    """A layer's weights on their grid; the grid is set."""
    groups = view.groups if isinstance(view, Convolution) else 1
    rows = weight.reshape(groups, weight.shape[0] // groups, -1).double()
    moments = rows.new_zeros(groups, rows.shape[2], rows.shape[2])
    for value in inputs:
        for sample in columns(view, weight, value, groups):
            moments += (sample @ sample.mT).double()
    moments = damped(moments)
    scale = _scales(module, rows, moments)
    first, last = module.spec.low, module.spec.high
    integers = spread_rounding(rows, moments, scale, first, last)
    module.set_parameters(Parameters(scale.reshape(-1).float(), module.zero_point))
    module.trained = True
    exact = integers * scale.float().double()
    return exact.reshape(weight.shape).to(weight.dtype)


def columns(view: Layer, weight: Tensor, value: Tensor, groups: int) -> Iterable[Tensor]:
    """What a layer's rows are multiplied with, [groups, weights of a row, places]; by sample."""
    if not isinstance(view, Convolution):
        yield value.reshape(-1, value.shape[-1]).mT[None]
        return
    one = len(view.stride) == 1
    kernel = (1, *weight.shape[2:]) if one else tuple(weight.shape[2:])
    options = [(1, *o) if one else tuple(o) for o in (view.dilation, view.stride)]
    padding = (0, *view.padding) if one else tuple(view.padding)
    for sample in value:
        image = sample[:, None] if one else sample
        found = F.unfold(image[None], kernel, options[0], padding, options[1])
        yield found.reshape(groups, -1, found.shape[-1])


def _scales(module: FakeQuantize, rows: Tensor, moments: Tensor) -> Tensor:
    """The scale of each row [groups, rows, 1] with the least error, weighted by its inputs."""
    if not module.scale.dim():
        return module.scale.double().view(1, 1, 1)  # one scale for all rows keeps the range
    least_scale = torch.finfo(torch.float32).tiny
    whole = (rows.abs().amax(2, keepdim=True) / module.spec.high).clamp(min=least_scale)
    power = moments.diagonal(dim1=1, dim2=2)[:, None, :]
    best, least = whole, torch.full_like(whole, torch.inf)
    for ratio in RATIOS:
        scale = whole * ratio
        integers = (rows / scale).round().clamp(module.spec.low, module.spec.high)
        error = ((integers * scale - rows).square() * power).sum(2, keepdim=True)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best.float().double()


def spread_rounding(rows: Tensor, moments: Tensor, scale: Tensor, first: int, last: int) -> Tensor:
    """Integers whose rows give nearly the products that the weights give.

    Args:
        rows: the weights, [groups, rows, columns].
        moments: X X^T of the inputs, [groups, columns, columns], positive definite (`damped`).
        scale: of each row, [groups, rows, 1], or [1, 1, 1].
        first, last: the integers of the grid.
    """
    count = rows.shape[2]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    factor = torch.linalg.cholesky(inverse).mT  # upper: later columns, given the earlier ones
    left, integers, errors = rows.clone(), torch.zeros_like(rows), torch.zeros_like(rows)
    for start in range(0, count, BLOCK):
        end = min(start + BLOCK, count)
        for place in range(start, end):
            column = left[:, :, place : place + 1]
            integer = (column / scale).round().clamp(first, last)
            error = (column - integer * scale) / factor[:, place, place].view(-1, 1, 1)
            left[:, :, place:end] -= error * factor[:, None, place, place:end]
            integers[:, :, place : place + 1] = integer
            errors[:, :, place : place + 1] = error
        left[:, :, end:] -= errors[:, :, start:end] @ factor[:, start:end, end:]
    return integers


def damped(moments: Tensor) -> Tensor:
    """Moments with a little of their mean power added to every input's own."""
    diagonal = moments.diagonal(dim1=1, dim2=2)
    added = DAMPING * diagonal.mean(1, keepdim=True).clamp(min=1e-12)
    return moments + torch.diag_embed(added.expand_as(diagonal))


def _replace(root: GraphModule, node: Node, weight: Tensor) -> None:
    """Let a layer's FakeQuantize read other weights; the user's stay."""
    view = layer(node)
    assert view is not None
    read = _read(view)
    node.meta.setdefault(UNROUNDED, str(read.target))
    path = add_parameter(root, str(read.target), weight)
    with root.graph.inserting_before(view.weight):
        new = read_attribute(root.graph, root, path)
    inherit(new, read, value=False)
    view.weight.replace_input_with(read, new)
