"""Files that take any batch, run in ONNX Runtime at sizes that no stage was made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxquant as fq
from fxquant.backends.base import Lowered
from tests.backends.onnx.runtime_checks import assert_close, run_file, sqnr
from tests.support.vision import vision_models

SIZES = (1, 2, 5)
BATCH = {0: "batch"}
LENGTH = torch.export.Dim("length", max=32)


class Attention(nn.Module):
    """Heads and a causal mask written by hand, with the sizes of the input."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.register_buffer("mask", torch.ones(32, 32).tril().bool())

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.project(x).view(n, t, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~self.mask[:t, :t], -1e9)
        result: Tensor = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, d))
        return result


class Last(nn.Module):
    """A recurrent net: its first state has the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.lstm(x)[0][:, -1]
        return last


class Images(nn.Module):
    """Group norm, resizing to a size, and two spellings of flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)
        self.head = nn.Linear(8 * 81, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(self.norm(self.conv(x)), size=(9, 9))
        rows = y.reshape(-1, 8, 81).flatten(1)
        result: Tensor = self.head(rows.view(x.size(0), -1))
        return result


class Upscale(nn.Sequential):
    """A net for pictures of any size."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.MaxPool2d(2)
        )


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")


def vision_transformer() -> nn.Module:
    made: nn.Module = vision_models().VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=7)
    nn.init.normal_(made.heads.head.weight)  # type: ignore[union-attr,arg-type]
    return made


def zoo(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        made: nn.Module = getattr(vision_models(), name)(weights=None, num_classes=10)
        return made

    return build


IMAGE = (3, 32, 32)
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "attention": (Attention, (6, 16)),
    "encoder": (encoder, (6, 16)),
    "lstm": (Last, (5, 8)),
    "images": (Images, (3, 8, 8)),
    "vision_transformer": (vision_transformer, (3, 32, 32)),
    "shufflenet": (zoo("shufflenet_v2_x0_5"), IMAGE),
    "squeezenet1_1": (zoo("squeezenet1_1"), IMAGE),
}


def float_file(model: nn.Module, x: Tensor, shapes: Any) -> Lowered:
    return fq.compile(model, (x,), backend="onnx", dynamic_shapes=shapes)


@pytest.mark.parametrize("name", NETS)
def test_any_batch(name: str) -> None:
    torch.manual_seed(0)
    build, shape = NETS[name]
    model, example = build().eval(), torch.randn(1, *shape)
    lowered = float_file(model, example, [BATCH])
    config = fq.QuantConfig(equalize=False, correct_bias=False)
    prepared = fq.prepare(model, (example,), config, backend="onnx", dynamic_shapes=[BATCH])
    fq.calibrate(prepared, [torch.randn(4, *shape)], progress=False)
    core = fq.convert(prepared)
    int8 = fq.lower(core, "onnx")
    for size in SIZES:
        x = torch.randn(size, *shape)
        with torch.no_grad():
            assert_close(run_file(lowered, x), [model(x)], 1e-4, f"batch {size}")
            assert_close([lowered.graph_module(x)], [model(x)], 1e-4, f"last graph {size}")
            (found,) = run_file(int8, x)
            assert found.shape == model(x).shape
            assert sqnr(core(x), found) > 20
    fq.verify(int8, [(torch.randn(3, *shape),)]).check()


def test_the_file_names_its_dimensions() -> None:
    x = torch.randn(2, 6, 16)
    lowered = float_file(Attention().eval(), x, [{0: "batch", 1: LENGTH}])
    graph = onnx.load_from_string(lowered.to_bytes()).graph
    for value in (graph.input[0], graph.output[0]):
        sizes = value.type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in sizes] == ["batch", "length", 16]


@pytest.mark.parametrize("length", [1, 9, 32])
def test_batch_and_length(length: int) -> None:
    model, example = Attention().eval(), torch.randn(1, 6, 16)
    lowered = float_file(model, example, [{0: "batch", 1: LENGTH}])
    for size in SIZES:
        x = torch.randn(size, length, 16)
        assert_close(run_file(lowered, x), [model(x).detach()], 1e-5, f"{size}, {length}")


def test_pictures_of_any_size() -> None:
    model, example = Upscale().eval(), torch.randn(1, 3, 8, 8)
    lowered = float_file(model, example, [{0: "n", 2: "height", 3: "width"}])
    for shape in ((1, 3, 8, 8), (2, 3, 12, 6), (3, 3, 5, 20)):
        x = torch.randn(shape)
        assert_close(run_file(lowered, x), [model(x).detach()], 1e-5, str(shape))


def small() -> nn.Module:
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    return nn.Sequential(*layers)


def test_trained_with_batches_of_any_size() -> None:
    example = torch.randn(2, 3, 8, 8)
    prepared = fq.prepare_qat(small(), (example,), backend="onnx", dynamic_shapes=[BATCH])
    optimizer = torch.optim.SGD(prepared.parameters(), 0.01)
    for size in (4, 3, 5):
        prepared(torch.randn(size, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    core = fq.convert(prepared.eval())
    lowered = fq.lower(core, "onnx")
    for size in SIZES:
        x = torch.randn(size, 3, 8, 8)
        with torch.no_grad():
            assert sqnr(core(x), run_file(lowered, x)[0]) > 30


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision(precision: str) -> None:
    model = small().eval()
    lowered = fq.compile(
        model,
        (torch.randn(2, 3, 8, 8),),
        backend="onnx",
        dynamic_shapes=[BATCH],
        options={"precision": precision},
    )
    for size in SIZES:
        x = torch.randn(size, 3, 8, 8)
        assert sqnr(model(x).detach(), run_file(lowered, x)[0]) > 30
    fq.verify(lowered, [(torch.randn(3, 3, 8, 8),)]).check()


def test_every_pass_keeps_its_word() -> None:
    with fq.instruments("lint", "validate"):
        float_file(Images().eval(), torch.randn(2, 3, 8, 8), [BATCH])


FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "roll": lambda x: torch.roll(x, 1, 0),
    "flip": lambda x: x.flip(0),
    "repeat": lambda x: torch.ones(1, 3).repeat(x.shape[0], 2) + x.repeat(1, 2),
    "new_zeros": lambda x: torch.cat([x.new_zeros(x.shape[0], 2), x], 1),
    "last": lambda x: x[-1],
    "behind": lambda x: torch.cat([x[1:], x[:1]]),
    "split": lambda x: x.split(x.shape[0])[0],
    "products": lambda x: x.view(-1, 3, 1).bmm(x.view(-1, 1, 3)).view(x.shape[0], -1),
    "sum": lambda x: x.sum(0),
    "einsum": lambda x: torch.einsum("bi,bj->bij", x, x),
}


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_spelling(name: str, opset: int) -> None:
    model = Calls(FUNCTIONS[name])
    lowered = fq.compile(
        model,
        (torch.randn(2, 3),),
        backend="onnx",
        dynamic_shapes={"x": BATCH},
        options={"opset": opset},
    )
    for size in SIZES:
        x = torch.randn(size, 3)
        assert_close(run_file(lowered, x), [model(x)], 1e-6, f"{name} at {size}")
