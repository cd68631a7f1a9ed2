"""`require=`: files of nothing but integers, and what is said of those that cannot be; borders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fxquant as fq
from fxquant.backends.base import IoDtype, Lowered, Require
from fxquant.backends.tflite.contents import FileModel, FileTensor
from fxquant.backends.tflite.interpreter import LiteRT
from fxquant.backends.tflite.reader import read_bytes
from fxquant.backends.tflite.sample_outputs import run_graph
from fxquant.errors import InputError, UnsupportedOp
from tests.support.vision import vision_models

PROMISES: tuple[Require, ...] = ("int8", "uint8", "int16x8")
BORDERS: tuple[IoDtype, ...] = ("int8", "uint8", "int16")


class Net(nn.Module):
    """A net whose default file has float islands: hard swish and softmax."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardswish(self.conv(x))
        x = x * functional.hardsigmoid(self.gate(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits.softmax(1)


def samples(count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 8, 8, generator=generator) for _ in range(count)]


def compiled(model: nn.Module, **options: Any) -> Lowered:
    data = samples()
    given = {"calibration": data, "progress": False, **options}
    return fq.compile(model.eval(), (data[0][:1],), **given)


def used(model: FileModel) -> list[FileTensor]:
    main = model.main
    indices = {n for op in main.operators for n in (*op.inputs, *op.outputs) if n >= 0}
    return [main.tensors[n] for n in sorted(indices | {*main.inputs, *main.outputs})]


def dtypes(lowered: Lowered) -> set[str]:
    return {tensor.dtype for tensor in used(read_bytes(lowered.to_bytes()))}


def border_dtypes(lowered: Lowered) -> tuple[str, str]:
    main = read_bytes(lowered.to_bytes()).main
    return main.tensors[main.inputs[0]].dtype, main.tensors[main.outputs[0]].dtype


def run(lowered: Lowered, kernels: Any, x: Tensor) -> Tensor:
    with LiteRT(lowered.to_bytes(), kernels=kernels) as runtime:
        return torch.from_numpy(np.array(*runtime.run([x.numpy()]).values()))


@pytest.mark.parametrize("require", PROMISES)
def test_a_promise_is_kept_in_every_tensor(require: Require) -> None:
    lowered = compiled(Net(), require=require)
    integer = {"int8": "int8", "uint8": "uint8", "int16x8": "int16"}[require]
    assert not any(dtype.startswith("float") for dtype in dtypes(lowered))
    assert border_dtypes(lowered) == (integer, integer)
    assert {"QUANTIZE", "DEQUANTIZE"}.isdisjoint(lowered.report.operators)


def test_without_a_promise_the_same_net_has_float_islands() -> None:
    assert "float32" in dtypes(compiled(Net(), quantize="int8"))


@pytest.mark.parametrize("kernels", ["reference", "optimized", "xnnpack"])
@pytest.mark.parametrize("require", PROMISES)
def test_the_integer_file_computes_what_is_simulated(require: Require, kernels: str) -> None:
    lowered = compiled(Net(), require=require)
    (node,) = lowered.graph_module.graph.find_nodes(op="placeholder")
    dtype = node.meta["val"].dtype
    limits = torch.iinfo(dtype)
    x = torch.randint(limits.min, limits.max + 1, (1, 3, 8, 8)).to(dtype)
    wanted = fq.simulate(lowered, kernels=kernels)(x)
    assert torch.equal(wanted, run(lowered, kernels, x))


@pytest.mark.parametrize("require", PROMISES)
def test_the_integer_file_is_near_the_model(require: Require) -> None:
    model = Net().eval()
    lowered = compiled(model, require=require)
    x = samples()[0][:1]
    (found,) = run_graph(lowered, (x,))
    with torch.no_grad():
        error = float((found - model(x)).abs().max())
    assert error < (2e-3 if require == "int16x8" else 0.03)


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("precision", ["int8", "uint8", "int16x8"])
def test_any_integers_at_the_borders(precision: str, border: IoDtype) -> None:
    config = fq.QuantConfig(precision)
    lowered = compiled(nn.Conv2d(3, 4, 3), quantize=config, io_dtype=border)
    assert border_dtypes(lowered) == (border, border)
    limits = torch.iinfo(getattr(torch, border))
    x = torch.randint(limits.min, limits.max + 1, (1, 3, 8, 8)).to(getattr(torch, border))
    assert torch.equal(lowered.graph_module(x), run(lowered, "reference", x))


def test_camera_bytes_into_an_int8_net_are_the_same_values() -> None:
    """uint8 of zero point z + 128 is int8 of zero point z: the QUANTIZE loses nothing."""
    model = nn.Conv2d(3, 4, 3)
    by_dtype = {d: compiled(model, require="int8", io_dtype=d) for d in ("int8", "uint8")}
    integers = torch.randint(-128, 128, (1, 3, 8, 8), dtype=torch.int8)
    pixels = (integers.to(torch.int16) + 128).to(torch.uint8)
    plain = by_dtype["int8"].graph_module(integers)
    shifted = by_dtype["uint8"].graph_module(pixels)
    assert torch.equal(shifted.to(torch.int16) - 128, plain.to(torch.int16))


def test_integer_borders_of_a_float_net_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        fq.compile(nn.Conv2d(3, 4, 3).eval(), (samples()[0],), io_dtype="uint8")
    text = str(caught.value)
    assert 'io_dtype="uint8", but nothing at the borders is quantized: input %' in text
    assert 'leave io_dtype="float32"' in text


def test_a_border_that_stays_float_is_noted() -> None:
    class Tail(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.erf(self.conv(x))

    lowered = compiled(Tail(), quantize="int8", io_dtype="int8")
    assert border_dtypes(lowered) == ("int8", "float32")
    assert "output %erf stays float32, not int8" in lowered.report.notes


class Mixed(nn.Module):
    """Three things stand in the way of integers only, and one moves their values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cumsum(self.conv(x), 1)
        y = torch.floor(x)
        z = self.conv(y).flatten(1).reshape(2, -1)
        result: Tensor = torch.sinh(z)
        return result


def test_everything_in_the_way_is_listed_with_line_and_advice() -> None:
    with pytest.raises(UnsupportedOp) as caught:
        compiled(Mixed(), require="int8")
    text = str(caught.value)
    assert 'require="int8" cannot be kept: 3 operators of the file would not be integer' in text
    assert "tflite has no int8 kernel for aten.cumsum" in text
    assert "tflite has no int8 kernel for aten.floor" in text
    assert "tflite has no int8 kernel for aten.sinh" in text
    for line in ("torch.cumsum(self.conv(x), 1)", "torch.floor(x)", "torch.sinh(z)"):
        assert "test_integer_promise.py:" in text and line in text


def test_an_operator_kept_in_float_by_the_user_is_in_the_way() -> None:
    config = fq.QuantConfig(keep_float=("hardswish",))
    with pytest.raises(UnsupportedOp, match="1 operator of the file") as caught:
        compiled(Net(), quantize=config, require="int8")
    assert "aten.hardswish computes in float: rule " in str(caught.value)


def test_other_integers_than_promised_are_in_the_way() -> None:
    config = fq.QuantConfig("int16x8")
    with pytest.raises(UnsupportedOp, match='require="int8" cannot be kept') as caught:
        compiled(nn.Conv2d(3, 4, 3), quantize=config, require="int8")
    assert "is int16[" in str(caught.value)


def test_long_rows_of_softmax_are_in_the_way() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Softmax(1))
    with pytest.raises(UnsupportedOp, match="SOFTMAX of 512 or more 8-bit values"):
        compiled(model, require="int8")
    assert compiled(model, require="int16x8").report.operators["SOFTMAX"] == 1


CONFLICTS: Sequence[tuple[dict[str, Any], str]] = (
    ({"require": "int4"}, "require='int4' is not known"),
    ({"require": "int8", "io_dtype": "float32"}, 'rules out io_dtype="float32"'),
    ({"require": "int8", "backend": "onnx"}, "onnx has no require='int8'"),
)


@pytest.mark.parametrize(("options", "text"), CONFLICTS)
def test_contradictions_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        compiled(nn.Conv2d(3, 4, 3), **options)


NETS = ("mobilenet_v2", "mobilenet_v3_small", "resnet18", "squeezenet1_1", "efficientnet_b0")


@pytest.mark.parametrize(
    ("name", "require"),
    [*((name, "int8") for name in NETS), *((NETS[1], other) for other in PROMISES[1:])],
)
def test_convolutional_nets_become_integer_only(name: str, require: Require) -> None:
    torch.manual_seed(0)
    try:
        model = getattr(vision_models(), name)(weights=None)
    except ImportError:
        pytest.skip("torchvision is not installed")
    settle_norms(model)
    x = torch.randn(1, 3, 64, 64)
    data = [torch.randn(2, 3, 64, 64)]
    lowered = fq.compile(
        model, (x,), require=require, calibration=data, progress=False, verify=True
    )
    assert not any(dtype.startswith("float") for dtype in dtypes(lowered))


def settle_norms(model: nn.Module) -> None:
    """Statistics of some batches, without which activations vanish in a net nobody trained."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    model.train()
    with torch.no_grad():
        model(torch.randn(8, 3, 64, 64))
    model.eval()
