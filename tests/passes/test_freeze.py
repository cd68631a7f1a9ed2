"""freeze: observers become constants."""

from __future__ import annotations

import pytest
import torch

from fxquant.errors import CalibrationError, PipelineError
from fxquant.ir.aten import aten
from fxquant.ir.edit import get_attribute
from fxquant.ir.printer import format_graph
from fxquant.ir.state import state_of
from fxquant.ir.validity import check_graph
from fxquant.passes.freeze import Freeze
from fxquant.passes.pipeline import Pipeline
from fxquant.quant.arithmetic import Parameters
from fxquant.quant.calibration import calibrate
from fxquant.quant.fake_quantize import FakeQuantize
from fxquant.quant.settle import fake_quantizes
from tests.conftest import Golden
from tests.passes.core_graphs import Builder, pooled_convolution
from tests.passes.quantized_graphs import frozen, prepared

FREEZE = Pipeline((Freeze(),))
PER_TENSOR = aten.fake_quantize_per_tensor_affine.default


def with_round_numbers() -> torch.fx.GraphModule:
    """The prepared example with parameters that print well."""
    graph_module = prepared(pooled_convolution())
    for node, module in fake_quantizes(graph_module):
        if not module.constant:
            step = torch.tensor(0.5 ** len(str(node.target).split("_")))
            module.set_parameters(Parameters(step, torch.tensor(-3)))
    return graph_module


def test_freeze_before_and_after(golden: Golden) -> None:
    before = with_round_numbers()
    after = FREEZE(before)
    golden("freeze", format_graph(before) + "\n" + format_graph(after))
    check_graph(after)
    assert "frozen" in state_of(after).properties
    assert "observed" not in state_of(after).properties
    assert not hasattr(after, "quantizers")


def test_freezing_a_calibrated_graph_changes_nothing() -> None:
    data = [torch.randn(2, 3, 8, 8) for _ in range(4)]
    simulated = calibrate(prepared(pooled_convolution()), data)
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(FREEZE(simulated)(x)[0], simulated(x)[0])


def test_the_frozen_graph_is_near_the_float_one() -> None:
    data = [torch.randn(2, 3, 8, 8) for _ in range(8)]
    x = torch.cat(data)[:1]
    expected = pooled_convolution()(x)[0]
    error = (frozen(pooled_convolution(), data)(x)[0] - expected).norm()
    assert (error / expected.norm()).item() < 0.05


def test_observers_that_saw_nothing_are_all_named() -> None:
    with pytest.raises(CalibrationError) as error:
        FREEZE(prepared(pooled_convolution()))
    for text in ("@quantizers.x_quant saw nothing", "@quantizers.relu saw nothing", "calibrate("):
        assert text in str(error.value)
    assert "conv_weight" not in str(error.value)


def test_weights_are_taken_as_they_are_now() -> None:
    simulated = calibrate(prepared(pooled_convolution()), [torch.randn(1, 3, 8, 8)])
    with torch.no_grad():
        simulated.conv_weight.mul_(2)  # type: ignore[operator]
    after = FREEZE(simulated)
    weight = get_attribute(after, "conv_weight")
    expected = weight.abs().amax((1, 2, 3)) / 127
    assert torch.allclose(get_attribute(after, "conv_weight_scale"), expected)


def test_the_prepared_graph_is_left_as_it_was() -> None:
    simulated = calibrate(prepared(pooled_convolution()), [torch.randn(1, 3, 8, 8)])
    before = format_graph(simulated)
    FREEZE(simulated)
    assert format_graph(simulated) == before
    assert all(isinstance(module, FakeQuantize) for _, module in fake_quantizes(simulated))


def test_dead_channels_get_scales_that_leave_room_for_the_bias() -> None:
    weight, bias = torch.randn(2, 3, 1, 1), torch.tensor([0.5, 3.0])
    weight[1] = 1e-20
    b = Builder(w=weight, b=bias)
    x = b.input("x", torch.randn(1, 3, 4, 4))
    after = frozen(b.finish(b("conv2d", x, b.get("w"), b.get("b"))), [torch.randn(1, 3, 4, 4)])
    (source,) = (n for n in after.graph.nodes if n.name == "x_quant_q")
    scales = get_attribute(after, "w_scale").double() * source.args[1]
    assert (bias.abs() / scales < 2**31).all()
    assert float(get_attribute(after, "w_scale")[1]) < 1e-6


def test_a_value_quantized_twice_on_one_grid_is_quantized_once() -> None:
    b = Builder()
    relu = b("relu", b.input("x", torch.randn(1, 4)))
    graph_module = calibrate(prepared(b.finish(b("cat", [relu, relu]))), [torch.randn(1, 4)])
    nodes = [node for node in FREEZE(graph_module).graph.nodes if node.target is PER_TENSOR]
    assert all(node.args[0].target is not PER_TENSOR for node in nodes)


def test_the_contract() -> None:
    with pytest.raises(PipelineError, match="insert-observers"):
        FREEZE.check({"functional", "stubbed"})
