"""Golden texts of whole graphs, and what is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxquant as fq
from fxquant.backends.onnx.dialect import DEFAULTS, OPERATORS
from fxquant.backends.onnx.legalize.registry import legalize
from fxquant.errors import RegistrationError, UnsupportedOp
from fxquant.ir.aten import aten
from tests.conftest import Golden


def block() -> nn.Module:
    torch.manual_seed(0)
    parts = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*parts, nn.Linear(16, 3)).eval()


def test_a_float_graph(golden: Golden) -> None:
    lowered = fq.compile(block(), (torch.ones(1, 2, 4, 4),), backend="onnx")
    golden("float", fq.format_graph(lowered.graph_module))


class Quantized(nn.Module):
    """A block whose grids are written by hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(2, 4, 3, padding=1)
        self.register_buffer("scale", torch.full((4,), 0.004))
        self.register_buffer("zero_point", torch.zeros(4, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, 0.02, 3, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(
            self.layer.weight, self.get_buffer("scale"), self.get_buffer("zero_point"), 0, -127, 127
        )
        x = torch.relu(F.conv2d(x, weight, self.layer.bias, padding=1))
        x = torch.fake_quantize_per_tensor_affine(x, 0.01, -128, -128, 127)
        return F.max_pool2d(x, 2).flatten(1)


def test_a_quantized_graph(golden: Golden) -> None:
    lowered = fq.compile(Quantized().eval(), (torch.ones(1, 2, 4, 4),), backend="onnx")
    golden("int8", fq.format_graph(lowered.graph_module))


def test_all_refused_operators_are_named_with_their_lines() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.lgamma(x) + torch.relu(torch.erfinv(x)) + torch.median(x)

    with pytest.raises(UnsupportedOp) as caught:
        fq.compile(_Module(model), (torch.rand(4),), backend="onnx")
    text = str(caught.value)
    assert text.startswith("onnx cannot express 3 operators of the graph")
    assert all(f"aten.{name}" in text for name in ("lgamma", "erfinv", "median"))
    assert "test_legalize_onnx.py" in text


class _Module(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        assert callable(self.function)
        found: Tensor = self.function(x)
        return found


def test_a_second_rule_for_an_operator_names_both() -> None:
    with pytest.raises(RegistrationError, match="has the rule relu of .*wants to be its rule too"):
        legalize(aten.relu.default)(lambda r, x: x)


def test_the_dialect_names_operators_of_the_standard() -> None:
    onnx = pytest.importorskip("onnx")
    for row in OPERATORS.values():
        schema = onnx.defs.get_schema(row.name, row.since)
        assert schema.since_version <= row.since
        if not row.variadic:
            assert len(row.inputs) - len(row.attribute_before) <= schema.max_input


def test_options_left_out_have_the_defaults_of_the_standard() -> None:
    onnx = pytest.importorskip("onnx")
    for called, row in OPERATORS.items():
        attributes = onnx.defs.get_schema(row.name, row.since).attributes
        for name, default in DEFAULTS[called].items():
            if name in row.hidden or default is inspect.Parameter.empty:
                continue
            known = onnx.helper.get_attribute_value(attributes[name].default_value)
            near = pytest.approx(default) if isinstance(default, float) else default
            assert _plain(known) == near, f"{called} {name}"


def _plain(value: Any) -> Any:
    """An attribute's value as a dialect function takes it."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return value.decode() if isinstance(value, bytes) else value
