"""The file: names, options, half precision, external weights, what the runtime makes of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.backends.base import Lowered
from fxquant.backends.onnx.dialect import quantization
from fxquant.backends.onnx.verify import run, session
from fxquant.errors import InputError, OutputError, PassError, VerifyError
from fxquant.quant.spec import INT8_ACTIVATIONS
from tests.backends.onnx.runtime_checks import check, check_int8, quantized, run_file, sqnr


class TwoOutputs(nn.Module):
    """A model with named inputs and outputs, one of them an input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, Tensor]:
        logits = self.linear(tokens) * mask
        return {"logits": logits, "again": logits, "mask": mask}


def net() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6()
    rest = nn.Conv2d(8, 8, 3, groups=8), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*first, *rest, nn.Linear(8, 4)).eval()


def picture() -> Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_inputs_and_outputs_have_the_users_names() -> None:
    inputs = (torch.randn(3, 4), torch.ones(3, 2))
    lowered = fq.compile(TwoOutputs(), inputs, backend="onnx")
    model = onnx.load_from_string(lowered.to_bytes())
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.input] == ["tokens", "mask"]
    names = [each.name for each in model.graph.output]
    assert names[:2] == ["logits", "again"]
    assert len(set(names) | {"tokens", "mask"}) == 5
    found, wanted = run_file(lowered, *inputs), TwoOutputs().eval()
    assert len(found) == 3
    assert torch.equal(found[2], inputs[1])
    assert found[0].shape == wanted(*inputs)["logits"].shape


def test_a_quantized_file_holds_integers() -> None:
    lowered = check_int8(net(), picture())
    model = onnx.load_from_string(lowered.to_bytes())
    kinds = Counter(
        onnx.TensorProto.DataType.Name(each.data_type) for each in model.graph.initializer
    )
    assert kinds["INT32"] >= 3
    weights = [each for each in model.graph.initializer if each.name.endswith("weight")]
    assert {each.data_type for each in weights} == {onnx.TensorProto.INT8}


def test_the_runtime_finds_its_integer_kernels(tmp_path: Path) -> None:
    core, _ = quantized(net(), picture())
    path = fq.lower(core, "onnx").save(tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(str(tmp_path / "optimized.onnx"))
    kinds = Counter(node.op_type for node in optimized.graph.node)
    assert kinds["QLinearConv"] == 2
    assert kinds["QGemm"] == 1
    assert kinds["Conv"] == kinds["Gemm"] == kinds["Relu"] == kinds["Clip"] == 0


def test_optimized_and_plain_agree() -> None:
    core, _ = quantized(net(), picture())
    lowered = fq.lower(core, "onnx")
    (plain,), (fast,) = (run_file(lowered, picture(), optimized=o) for o in (False, True))
    assert sqnr(plain, fast) > 30


def test_what_tensorrt_takes() -> None:
    activations = replace(INT8_ACTIVATIONS, symmetric=True)
    config = fq.QuantConfig(activations=activations)
    lowered = check_int8(net(), picture(), config=config, options={"float_bias": True})
    nodes = lowered.graph_module.graph.find_nodes(
        op="call_function", target=quantization.quantize_linear
    )
    assert {node.args[2] for node in nodes} == {0}
    model = onnx.load_from_string(lowered.to_bytes())
    assert onnx.TensorProto.INT32 not in {each.data_type for each in model.graph.initializer}


def test_float16() -> None:
    lowered = fq.compile(net(), (picture(),), backend="onnx", options={"precision": "float16"})
    model = onnx.load_from_string(lowered.to_bytes())
    onnx.checker.check_model(model, full_check=True)
    assert {each.type.tensor_type.elem_type for each in model.graph.input} == {1}
    halves = [
        each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT16
    ]
    assert len(halves) == 6 + 2, "weights, biases and the bounds of the clip"
    (found,), wanted = run_file(lowered, picture()), net()(picture())
    assert found.dtype == torch.float32
    assert sqnr(wanted.detach(), found) > 50
    fq.verify(lowered, [(picture(),)]).check()


def test_bfloat16_runs() -> None:
    """Weights in bfloat16, every result rounded to it, sums in float32: as torch computes."""
    lowered = fq.compile(net(), (picture(),), backend="onnx", options={"precision": "bfloat16"})
    model = onnx.load_from_string(lowered.to_bytes())
    wide = [each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    assert all(not each.dims for each in wide), "only the bounds of the clip are float32"
    inputs = [picture().mul(scale) for scale in (1.0, -0.5, 3.0)]
    rounded = net().bfloat16()
    for x in inputs:
        with torch.no_grad():
            (found,), wanted = run_file(lowered, x), rounded(x.bfloat16()).float()
            simulated = lowered.graph_module(x)
        assert found.dtype == torch.float32
        assert torch.equal(found.bfloat16().float(), found)
        assert torch.equal(found, simulated)
        assert sqnr(wanted, found) > 35
        assert 30 < sqnr(net()(x).detach(), found) < 80
    report = fq.verify(lowered, [(x,) for x in inputs])
    report.check()
    assert report.samples == 3
    assert any(row.operator == "conv" for row in report.rows)


def test_bfloat16_for_other_runtimes() -> None:
    options = {"precision": "bfloat16", "cast_missing": False}
    lowered = fq.compile(net(), (picture(),), backend="onnx", options=options)
    report = fq.verify(lowered, [(picture(),)])
    assert report.samples == 0
    text = "checked, not run: ONNX Runtime has no kernels in bfloat16 for Clip, Conv, Gemm"
    assert report.render().startswith(text)
    assert sqnr(net()(picture()).detach(), lowered.graph_module(picture()).detach()) > 30


HALVES: dict[str, nn.Module] = {
    "transposed": nn.ConvTranspose2d(3, 4, 3, stride=2),
    "upsampled": nn.Upsample(scale_factor=2, mode="bilinear"),
    "normed": nn.Sequential(nn.GroupNorm(1, 3), nn.CELU(), nn.PixelUnshuffle(2)),
    "attended": nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(64, 2, 32, batch_first=True), nn.LayerNorm(64)
    ),
    "largest": nn.Sequential(nn.MaxPool2d(2), nn.Softmax(1), nn.Softplus()),
}


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", HALVES)
def test_operators_in_half_precision_run(name: str, precision: str) -> None:
    torch.manual_seed(0)
    model, x = HALVES[name].eval(), picture()
    lowered = fq.compile(model, (x,), backend="onnx", options={"precision": precision})
    (found,) = run_file(lowered, x)
    with torch.no_grad():
        assert sqnr(model(x), found) > (50 if precision == "float16" else 30)
    report = fq.verify(lowered, [(x,)])
    report.check()
    assert report.samples == 1


def test_a_quantized_graph_is_not_narrowed() -> None:
    core, _ = quantized(net(), picture())
    with pytest.raises(PassError, match="a quantized graph cannot be turned into float16"):
        fq.lower(core, "onnx", options={"precision": "float16"})


def test_weights_in_a_second_file(tmp_path: Path) -> None:
    model = nn.Linear(64, 64).eval()
    x = torch.randn(2, 64)
    lowered = fq.compile(model, (x,), backend="onnx", options={"external_data": True})
    path = lowered.save(tmp_path / "model.onnx")
    assert {each.name for each in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert path.stat().st_size < 2048
    onnx.checker.check_model(str(path), full_check=True)
    (found,) = run(session(str(path)), {"input": x}).values()
    torch.testing.assert_close(found, model(x))
    fq.verify(lowered, [x]).check()
    with pytest.raises(OutputError, match="outside of the protobuf"):
        lowered.to_bytes()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"opsett": 17}, "there is no option opsett\n.*did you mean opset?"),
    "type": ({"opset": "17"}, "opset='17' is no int"),
    "bool": ({"opset": True}, "opset=True is no int"),
    "opset": ({"opset": 5}, "opset 5 is not supported"),
    "precision": ({"precision": "float8"}, "onnx has no precision 'float8'"),
    "bfloat16": ({"precision": "bfloat16", "opset": 17}, "bfloat16 needs opset 22"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=list(REFUSED))
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fq.compile(nn.ReLU(), (torch.ones(1),), backend="onnx", options=options)


def test_every_wrong_option_is_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        fq.compile(nn.ReLU(), (torch.ones(1),), backend="onnx", options={"a": 1, "opset": "x"})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("border", [{"io_layout": "nhwc"}, {"io_dtype": "int8"}])
def test_borders_that_the_file_does_not_have(border: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="onnx has no io_"):
        fq.compile(nn.ReLU(), (torch.ones(1),), backend="onnx", **border)


def test_options_of_a_backend_that_has_none() -> None:
    with pytest.raises(InputError, match="do not fit the backend tflite"):
        fq.compile(nn.ReLU(), (torch.ones(1),), backend="tflite", options={"opset": 17})


def test_the_verifier_names_a_wrong_operator() -> None:
    lowered: Lowered = check(lambda x: torch.relu(x * 3) + 1, torch.randn(2, 3))
    lowered.segments()
    nodes = lowered.graph_module.graph.nodes
    (multiplied,) = [node for node in nodes if getattr(node.target, "__name__", "") == "mul"]
    multiplied.args = (multiplied.args[0], 4.0)
    report = fq.verify(lowered, [torch.randn(2, 3)])
    assert not report.ok
    assert "NOT ok" in report.render()
    with pytest.raises(VerifyError, match="computes 1 value otherwise") as caught:
        report.check()
    assert "mul" in str(caught.value)


def test_a_compiled_file_is_verified_before_it_is_written(tmp_path: Path) -> None:
    lowered = fq.compile(net(), (picture(),), backend="onnx", output=tmp_path / "m.onnx")
    assert "verify" in lowered.report.seconds
    assert lowered.report.operators["Conv"] == 2


def test_uint8() -> None:
    lowered = check_int8(net(), picture(), config=fq.QuantConfig(precision="uint8"))
    model = onnx.load_from_string(lowered.to_bytes())
    kinds = {each.data_type for each in model.graph.initializer}
    assert onnx.TensorProto.UINT8 in kinds
    assert onnx.TensorProto.INT8 not in kinds


def test_precisions_without_kernels_stay_float_with_a_reason() -> None:
    core, _ = quantized(net(), picture(), config=fq.QuantConfig(precision="int16x8"))
    lowered = fq.lower(core, "onnx")
    assert "QuantizeLinear" not in lowered.report.operators
    reasons = {each.reason for each in lowered.report.stayed_float}
    assert "onnx has no int16x8 kernel for aten.conv2d" in reasons


def test_tied_weights_are_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.second(torch.relu(self.first(x)))
            return y

    lowered = check(Tied(), torch.randn(2, 4))
    model = onnx.load_from_string(lowered.to_bytes())
    assert sum(len(each.dims) == 2 for each in model.graph.initializer) == 1
