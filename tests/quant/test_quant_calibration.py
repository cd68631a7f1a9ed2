"""calibrate: any data, nothing kept, clear errors."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.data import DataLoader, TensorDataset

from fxquant.errors import CalibrationError, InputError
from fxquant.ir.edit import tensor_at
from fxquant.ir.state import state_of
from fxquant.quant.calibration import calibrate
from fxquant.quant.config import QuantConfig
from fxquant.quant.settle import fake_quantizes
from fxquant.tracing import trace
from tests.passes.core_graphs import TABLE, Builder, pooled_convolution
from tests.passes.quantized_graphs import prepared

SHAPE = (1, 3, 8, 8)


def images(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


def scales(graph_module: torch.fx.GraphModule) -> dict[str, Tensor]:
    return {str(node.target): module.scale for node, module in fake_quantizes(graph_module)}


def test_afterwards_the_graph_simulates() -> None:
    graph_module = prepared(pooled_convolution())
    assert calibrate(graph_module, images(4)) is graph_module
    modes = {(m.observing, m.quantizing) for _, m in fake_quantizes(graph_module)}
    assert modes == {(False, True)}
    x = images(1)[0]
    result, expected = graph_module(x)[0], pooled_convolution()(x)[0]
    assert not torch.equal(result, expected)
    assert (result - expected).norm() / expected.norm() < 0.05


class Batch(NamedTuple):
    image: Tensor


@pytest.mark.parametrize("form", ["tensor", "tuple", "list", "named", "generator", "loader"])
def test_data_of_any_form(form: str) -> None:
    data = images(6)
    forms: dict[str, object] = {
        "tensor": data,
        "tuple": [(x,) for x in data],
        "list": [[x] for x in data],
        "named": [Batch(x) for x in data],
        "generator": (x for x in data),
        "loader": DataLoader(TensorDataset(torch.cat(data)), batch_size=1),
    }
    found = scales(calibrate(prepared(pooled_convolution()), forms[form]))  # type: ignore[arg-type]
    expected = scales(calibrate(prepared(pooled_convolution()), data))
    assert all(torch.equal(found[name], scale) for name, scale in expected.items())


def test_a_transform_drops_labels() -> None:
    data = DataLoader(TensorDataset(torch.cat(images(6)), torch.arange(6)), batch_size=2)
    with pytest.raises(InputError, match="drops labels"):
        calibrate(prepared(pooled_convolution()), data)
    calibrate(prepared(pooled_convolution()), data, transform=lambda batch: batch[0])


def test_larger_batches_find_the_same_ranges() -> None:
    data = torch.cat(images(8))
    one, many = (
        scales(calibrate(prepared(pooled_convolution()), data.split(size))) for size in (1, 3)
    )
    assert all(torch.allclose(many[name], scale, rtol=0.05) for name, scale in one.items())


def test_the_limit_stops_early() -> None:
    drawn = 0

    def data() -> Iterator[Tensor]:
        nonlocal drawn
        for image in images(10):
            drawn += 1
            yield image

    calibrate(prepared(pooled_convolution()), data(), limit=3)
    assert drawn == 3


def test_calibrating_again_adds_to_what_was_seen() -> None:
    graph_module = calibrate(prepared(pooled_convolution()), images(2))
    before = scales(graph_module)["quantizers.linear"]
    calibrate(graph_module, [100 * images(1)[0]])
    assert scales(graph_module)["quantizers.linear"] > before


def test_no_batch_is_kept() -> None:
    kept: list[weakref.ref[Tensor]] = []

    def data() -> Iterator[Tensor]:
        for _ in range(5):
            batch = torch.randn(SHAPE)
            kept.append(weakref.ref(batch))
            yield batch

    graph_module = prepared(pooled_convolution())
    calibrate(graph_module, data())
    gc.collect()
    assert [reference() for reference in kept] == [None] * 5


def test_no_data_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="no calibration data"):
        calibrate(prepared(pooled_convolution()), [])


def test_a_graph_without_observers_is_an_error() -> None:
    with pytest.raises(CalibrationError, match="no observers"):
        calibrate(pooled_convolution(), images(1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_first_bad_value_and_batch_are_named(bad: float) -> None:
    data = images(4)
    data[2][0, 0, 0, 0] = bad
    with pytest.raises(CalibrationError) as error:
        calibrate(prepared(pooled_convolution()), data)
    assert "@quantizers.x_quant saw NaN or infinity in batch 2" in str(error.value)


def test_gradients_and_modes_are_left_alone() -> None:
    graph_module = prepared(pooled_convolution())
    graph_module.train()
    graph_module.quantizers.eval()  # type: ignore[union-attr]
    calibrate(graph_module, images(2))
    assert graph_module.training and not graph_module.quantizers.training  # type: ignore[union-attr]
    assert all(p.grad is None and p.requires_grad for p in graph_module.parameters())


def test_an_unreached_observer_is_named() -> None:
    b = Builder()
    x, y = b.input("x", torch.randn(2, 3)), b.input("y", torch.randn(2, 3))
    graph_module = prepared(b.finish(b("relu", x), b("relu", y)))
    module = graph_module.quantizers.relu_1.observer  # type: ignore[union-attr]
    module.observe = lambda value: None  # type: ignore[union-attr]
    with pytest.raises(CalibrationError, match="@quantizers.relu_1 saw nothing"):
        calibrate(graph_module, [(torch.randn(2, 3), torch.randn(2, 3))])


class TwoInputs(nn.Module):
    def forward(self, a: Tensor, *, options: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sum": torch.relu(a) + options["b"]}


def test_the_user_s_own_call_with_keywords_and_other_batch_sizes() -> None:
    example = {"a": torch.randn(1, 4), "options": {"b": torch.randn(1, 4)}}
    traced = trace(TwoInputs(), (example["a"],), kwargs={"options": example["options"]})
    from fxquant.passes.functionalize import Functionalize
    from fxquant.passes.pipeline import Pipeline

    core = Pipeline((Functionalize(),))(traced)
    state_of(core).constraints = TABLE
    graph_module = prepared(core)
    batch = {"a": torch.randn(8, 4), "options": {"b": 5 * torch.randn(8, 4)}}
    calibrate(graph_module, [batch])
    result = graph_module(**example)["sum"]
    expected = torch.relu(example["a"]) + example["options"]["b"]  # type: ignore[arg-type, index]
    assert (result - expected).abs().max() < 0.5


def constants(graph_module: GraphModule) -> list[Tensor]:
    nodes = [n for n in graph_module.graph.nodes if n.op == "get_attr" and n.users]
    return [tensor_at(graph_module, node) for node in nodes]


@pytest.mark.parametrize("equalize", [True, False])
@pytest.mark.parametrize("correct_bias", [True, False])
def test_corrections_can_be_left_out(equalize: bool, correct_bias: bool) -> None:
    config = QuantConfig(equalize=equalize, correct_bias=correct_bias)
    graph_module = two_layers(config)
    before = constants(graph_module)
    changed = {
        (old.dim(), not torch.equal(old, new))
        for old, new in zip(before, constants(calibrate(graph_module, images(4))), strict=True)
    }
    assert (4, equalize) in changed and (1, equalize or correct_bias) in changed


def two_layers(config: QuantConfig) -> GraphModule:
    torch.manual_seed(0)
    wide = torch.logspace(-2, 0, 8)
    b = Builder(
        w=torch.randn(8, 3, 3, 3) * wide.view(-1, 1, 1, 1),
        b=torch.randn(8) * wide,
        v=torch.randn(4, 8, 1, 1) / wide.view(1, -1, 1, 1),
        c=torch.randn(4),
    )
    x = b.input("x", torch.randn(SHAPE))
    hidden = b("relu", b("conv2d", x, b.get("w"), b.get("b")))
    return prepared(b.finish(b("conv2d", hidden, b.get("v"), b.get("c")), config=config))


def test_a_stream_that_can_be_read_once_gives_the_same() -> None:
    data = images(40)
    stream, listed = (two_layers(QuantConfig()) for _ in range(2))
    calibrate(stream, iter(data))
    calibrate(listed, data)
    pairs = zip(constants(stream), constants(listed), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_calibrating_again_corrects_anew() -> None:
    data = images(10)
    graph_module = calibrate(two_layers(QuantConfig()), data)
    once = [bias.clone() for bias in constants(graph_module)]
    calibrate(graph_module, data)
    pairs = zip(once, constants(graph_module), strict=True)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in pairs)
