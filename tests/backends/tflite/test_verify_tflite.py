"""The comparison of a file with its graph: agreement, blame of the right operator, the text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.fx import GraphModule

import fxquant
from fxquant.backends.tflite import dialect as tfl
from fxquant.backends.tflite.dialect import QTensor, QType
from fxquant.backends.tflite.interpreter import Kernels
from fxquant.backends.tflite.kernels.hybrid import counted_ties, rows_on_grids
from fxquant.backends.tflite.kernels.quantized import quantized
from fxquant.backends.tflite.serialize import serialize
from fxquant.backends.tflite.verify import verify
from fxquant.errors import InputError, VerifyError
from tests.backends.tflite.hand_graph import (
    HandGraph,
    float_net,
    int8_net,
    random_float,
    random_int8,
)
from tests.conftest import Golden

SAMPLES = [random_int8(1, 8, 8, 4, seed=seed) for seed in range(3)]


@pytest.mark.parametrize("kernels", ["reference", "optimized", "xnnpack"])
def test_an_int8_net_agrees_in_every_byte(kernels: Kernels) -> None:
    report = verify(int8_net(), None, SAMPLES, kernels=kernels)
    report.check()
    assert report.ok
    assert report.agreement == 1
    assert report.first_different is None
    assert [row.alone.steps for row in report.rows] == [0] * 5
    assert report.samples == 3


def test_a_float_net_agrees() -> None:
    report = verify(float_net(), None, [random_float(1, 8, 8, 3)])
    report.check()
    assert all(row.alone.relative < 1e-5 for row in report.rows)
    assert len(report.render().splitlines()) == 12


def test_text(golden: Golden) -> None:
    golden("verify_int8_net", verify(int8_net(), None, SAMPLES).render())


def broken(net: GraphModule, name: str, shift: int) -> GraphModule:
    """The graph with one operator that computes `shift` steps too much."""
    node = next(each for each in net.graph.nodes if each.name == name)
    right = node.target

    def wrong(*args: Any, **kwargs: Any) -> QTensor:
        result: QTensor = right(*args, **kwargs)
        return result._replace(values=result.values.clamp(-100, 100) + shift)

    wrong.__name__, wrong.__module__ = right.__name__, right.__module__
    wrong.__signature__ = __import__("inspect").signature(right)  # type: ignore[attr-defined]
    node.target = wrong
    net.recompile()
    return net


def test_the_operator_to_blame_is_named_and_those_behind_it_are_not() -> None:
    report = verify(broken(int8_net(), "depthwise_conv_2d", 9), None, SAMPLES)
    assert not report.ok
    assert report.first_different is not None
    assert report.first_different.node == "depthwise_conv_2d"
    assert report.worst is report.first_different
    blamed = [row.node for row in report.rows if row.alone.steps]
    assert blamed == ["depthwise_conv_2d"]
    assert next(row for row in report.rows if row.node == "add").chained.steps > 0
    with pytest.raises(VerifyError, match=r"depthwise_conv_2d differs by \d+ steps, more than 1"):
        report.check()


def test_another_file_than_the_graph_s_own() -> None:
    graph = HandGraph()
    x = graph.input("x", random_int8(1, 8, 8, 4), QType("int8", 0.05, -3))
    other = graph.finish(graph.call(tfl.relu, x, out=QType("int8", 0.05, -3)))
    with pytest.raises(InputError, match="was not written from this graph"):
        verify(other, serialize(int8_net()), SAMPLES)


def test_the_float_model_beside() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(1, 4, 4, 8))
    small = graph.call(tfl.quantize, x, out=QType("int8", 0.03, 0))
    net = graph.finish(graph.call(tfl.dequantize, small))
    report = verify(
        net, None, [random_float(1, 4, 4, 8)], float_reference=lambda x: {"y": x.movedim(-1, 1)}
    )
    reference = report.outputs[0].reference
    assert reference is not None
    assert 30 < reference.sqnr < 60
    assert 0.99 < reference.cosine < 1


def test_samples_may_be_tensors_tuples_or_dicts() -> None:
    sample = SAMPLES[0]
    for each in (sample, (sample,), [sample], {"x": sample}, sample.numpy()):
        assert verify(int8_net(), None, [each], isolate=False).ok


def test_no_samples() -> None:
    with pytest.raises(InputError, match="no samples"):
        verify(int8_net(), None, [])


def test_at_most_so_many_samples_are_taken() -> None:
    assert verify(int8_net(), None, iter(SAMPLES), limit=2).samples == 2


def test_operators_that_the_reference_kernels_lack_use_the_optimized_ones() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(1, 8))
    report = verify(graph.finish(graph.call(tfl.ceil, x)), None, [random_float(1, 8)])
    assert report.kernels == "optimized"
    assert "no CEIL" in report.notes[0]
    assert report.ok


def test_nan_and_infinity_are_compared_too() -> None:
    graph = HandGraph()
    x = graph.input("x", random_float(1, 4))
    net = graph.finish(graph.call(tfl.relu, x))
    assert verify(net, None, [torch.tensor([[float("inf"), 1.0, -1.0, float("-inf")]])]).ok


def test_a_sum_near_zero_is_as_exact_as_what_it_adds_up() -> None:
    class Centered(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.nn.functional.layer_norm(x, (768,))
            return y.mean(-1, keepdim=True) + y

    x = torch.randn(4, 768)
    lowered = fxquant.compile(Centered(), (x,))
    assert fxquant.verify(lowered, [x], kernels="optimized").ok


def test_outputs_behind_floats_that_are_quantized_inside_are_judged_by_noise() -> None:
    """The last bit of a computed float decides which step it falls to; an input's is given."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 3, 3), torch.nn.Conv2d(3, 3, 3), torch.nn.Conv2d(3, 3, 3)]
    model, x = torch.nn.Sequential(*layers).eval(), torch.randn(1, 3, 12, 12)
    for rules, judged in (((), False), ((fxquant.Rule("float32", module="1"),), True)):
        config = fxquant.QuantConfig(rules=rules)
        lowered = fxquant.compile(model, (x,), quantize=config, calibration=[x], progress=False)
        (output,) = fxquant.verify(lowered, [x]).outputs
        assert output.hybrid is judged
        assert output.failure() == ""


def test_a_hybrid_operator_may_differ_by_ties_only() -> None:
    """A weight that is one step off is found, though it moves the result by less than 1 %."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 16).eval()
    x = [torch.randn(4, 64) for _ in range(5)]
    lowered = fxquant.compile(layer, (x[0],), quantize="dynamic", progress=False)
    right = lowered.to_bytes()
    verify(lowered.graph_module, right, x).check()
    weight = next(w for w in lowered.graph_module.buffers() if w.dtype == torch.int8)
    weight[3, 5] += 1 if weight[3, 5] < 0 else -1
    report = verify(lowered.graph_module, right, x)
    (row,) = [row for row in report.rows if row.hybrid]
    assert 1e-4 < row.alone.relative < 1e-2
    with pytest.raises(VerifyError, match="fully_connected differs by"):
        report.check()


def test_values_half_way_between_steps_are_counted() -> None:
    row = torch.tensor([[127.0, 0.5, 1.25, -3.0], [127.0, 1.0, 2.5, -3.5]])
    weights = quantized(torch.ones(1, 4), QType("int8", 1.0, 0))
    with counted_ties() as ties:
        rows_on_grids(row, weights, asymmetric=False)
    assert ties == [2]
    rows_on_grids(row, weights, asymmetric=False)
    assert ties == [2]
