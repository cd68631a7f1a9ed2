"""The public functions on small models: what they return, refuse and leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.backends.tflite.interpreter import LiteRT
from fxquant.errors import ConfigError, InputError, OutputError, PipelineError, UnsupportedOp


class Net(nn.Module):
    """A convolution with batch norm, a residual and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.block(x))
        logits: Tensor = self.head(self.drop(x.mean((2, 3))))
        return logits


@pytest.fixture
def data() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, 16, 16, generator=generator) for _ in range(4)]


def example() -> tuple[Tensor]:
    return (torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)),)


def test_step_by_step_and_at_once_give_the_same_file(data: list[Tensor]) -> None:
    model = Net()
    prepared = fq.prepare(model, example())
    fq.calibrate(prepared, data, progress=False)
    stepwise = fq.lower(fq.convert(prepared), "tflite").to_bytes()
    at_once = fq.compile(model, example(), quantize="int8", calibration=data, progress=False)
    assert at_once.to_bytes() == stepwise


def test_the_users_model_is_left_as_it_was(data: list[Tensor]) -> None:
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fq.compile(model, example(), quantize="int8", calibration=data, progress=False)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kernels", ["reference", "optimized", "xnnpack"])
def test_the_simulation_is_what_the_runtime_computes(kernels: str, data: list[Tensor]) -> None:
    lowered = fq.compile(
        Net(),
        example(),
        quantize="int8",
        calibration=data,
        io_dtype="int8",
        io_layout="nhwc",
        progress=False,
    )
    integers = torch.randint(-128, 128, (1, 16, 16, 3), dtype=torch.int8)
    simulated = fq.simulate(lowered, kernels=kernels)(integers)
    with LiteRT(lowered.to_bytes(), kernels=kernels) as runtime:  # type: ignore[arg-type]
        (found,) = runtime.run([integers.numpy()]).values()
    assert np.array_equal(simulated.numpy(), found)


def test_unknown_kernels_are_refused() -> None:
    lowered = fq.compile(nn.ReLU(), (torch.randn(2),))
    with pytest.raises(InputError, match="LiteRT has no 'gpu' kernels"):
        fq.simulate(lowered, kernels="gpu")


def test_every_unsupported_operator_is_listed_with_its_line() -> None:
    class Exotic(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.special.erfinv(x)
            x = torch.lgamma(x + 2)
            y: Tensor = torch.special.digamma(x)
            return y

    with pytest.raises(UnsupportedOp) as caught:
        fq.compile(Exotic(), (torch.rand(3),))
    text = str(caught.value)
    assert text.count("tflite has no rule for") == 3
    for line in ("erfinv(x)", "lgamma(x + 2)", "digamma(x)"):
        assert "test_api.py:" in text and line in text


def test_a_model_that_fails_on_its_inputs_says_where() -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(7, 7)

    with pytest.raises(InputError, match="the model fails on the example inputs") as caught:
        fq.compile(Picky(), (torch.rand(3),))
    assert "return x.reshape(7, 7)" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantize": "int7"}, "quantize='int7' is not known"),
        ({"quantize": "int8"}, "needs calibration data"),
        ({"config": fq.QuantConfig()}, "config= is given, quantize= is not"),
        (
            {"quantize": fq.QuantConfig(), "config": fq.QuantConfig()},
            "the configuration is given twice",
        ),
        ({"backend": "telegraph"}, "there is no backend 'telegraph'"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fq.compile(Net(), example(), **arguments)  # type: ignore[arg-type]


def test_a_graph_with_observers_is_not_lowered() -> None:
    with pytest.raises(PipelineError, match="the graph still holds observers"):
        fq.lower(fq.prepare(Net(), example()))


def test_nothing_is_written_when_something_is_wrong(tmp_path: Path, data: list[Tensor]) -> None:
    target = tmp_path / "model.tflite"
    bad = [*data, torch.full((1, 3, 16, 16), float("nan"))]
    with pytest.raises(fq.FxquantError):
        fq.compile(
            Net(), example(), quantize="int8", calibration=bad, output=target, progress=False
        )
    with pytest.raises(OutputError):
        fq.compile(Net(), example(), output=tmp_path / "nowhere" / "model.tflite")
    assert list(tmp_path.iterdir()) == []


def test_keyword_inputs_are_verified_too(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def forward(self, x: Tensor, *, mask: Tensor | None = None) -> dict[str, Tensor]:
            return {"y": x if mask is None else x * mask}

    target = tmp_path / "model.tflite"
    fq.compile(Masked(), (torch.rand(2, 3),), kwargs={"mask": torch.rand(2, 1)}, output=target)
    with LiteRT(target) as runtime:
        found = runtime.run({"x": np.ones((2, 3), np.float32), "mask": np.full((2, 1), 2.0, "f4")})
    assert np.array_equal(found["y"], np.full((2, 3), 2.0))


@pytest.mark.parametrize(
    "precision", ["dynamic", "dynamic4", "int8_weights", "int4_weights", "float16", "bfloat16"]
)
def test_precisions_that_need_no_data(precision: str, tmp_path: Path) -> None:
    target = tmp_path / "model.tflite"
    lowered = fq.compile(Net(), example(), quantize=precision, output=target)
    assert "calibrate" not in lowered.report.seconds and target.stat().st_size == lowered.size()


def test_precisions_that_need_data_say_so() -> None:
    with pytest.raises(InputError, match='quantize="int8w4" needs calibration data'):
        fq.compile(Net(), example(), quantize="int8w4")


def test_an_unknown_precision_lists_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        fq.compile(Net(), example(), quantize="int7")
    text = str(caught.value)
    assert all(name in text for name in ("int7", "int8", "dynamic", "float16", "bfloat16"))


def test_two_precisions_at_once_are_refused() -> None:
    config = fq.QuantConfig("float16")
    with pytest.raises(InputError, match="the configuration says 'float16'"):
        fq.compile(Net(), example(), quantize="dynamic", config=config)
    fq.compile(Net(), example(), quantize="float16", config=config)


def test_quantize_dynamic_returns_a_graph_that_runs() -> None:
    quantized = fq.quantize_dynamic(Net(), example())
    (x,) = example()
    with torch.no_grad():
        wanted, found = Net().eval()(x), quantized(x)
    assert 0 < float((found - wanted).norm() / wanted.norm()) < 0.05


def test_quantize_dynamic_refuses_what_needs_data() -> None:
    with pytest.raises(ConfigError, match="int8, whose grids need calibration"):
        fq.quantize_dynamic(Net(), example(), fq.QuantConfig())


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_onnx_rounds_by_itself(precision: str) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    lowered = fq.compile(Net(), example(), quantize=precision, backend="onnx")
    assert lowered.options.own["precision"] == precision
    assert lowered.size() < fq.compile(Net(), example(), backend="onnx").size()


def test_an_image_channels_last_needs_no_transpose(data: list[Tensor]) -> None:
    first = fq.compile(Net(), example())
    last = fq.compile(Net(), example(), io_layout="nhwc")
    assert first.report.operators["TRANSPOSE"] == 1
    assert "TRANSPOSE" not in last.report.operators
    (x,) = example()
    torch.testing.assert_close(last.graph_module(x.permute(0, 2, 3, 1)), Net().eval()(x))
