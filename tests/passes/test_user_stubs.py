"""Stubs in the user's model say what is quantized: PTQ and QAT, to a file that LiteRT runs."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq
from fxquant import nn as fqnn
from fxquant.errors import ConfigError
from fxquant.quant.constraints import annotation_of
from tests.conftest import Golden

IMAGE = torch.randn(2, 3, 8, 8)
DATA = [torch.randn(2, 3, 8, 8) for _ in range(4)]


class Stubbed(nn.Module):
    """Convolutions between stubs, a head behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = fqnn.QuantStub(), fqnn.DeQuantStub()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.add = nn.Conv2d(4, 4, 3, padding=1), fqnn.FloatFunctional()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        x = F.relu(self.bn(self.conv(x)))
        x = self.add.add_relu(self.conv2(x), x)
        x = self.dequant(x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Late(Stubbed):
    """The first stub behind the first convolution, and no second one."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = self.quant(x)
        x = self.add.add_relu(self.conv2(x), x)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Mixed(Stubbed):
    """A sum of a value inside and one outside."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = self.conv2(self.quant(x))
        return self.head((x + y).mean((2, 3)))  # type: ignore[no-any-return]


def decisions(graph: GraphModule) -> dict[str, str]:
    """Precision and reason of every operator, without the numbers of lines."""
    found = {node.name: annotation_of(node) for node in graph.graph.nodes}
    return {name: re.sub(r"py:\d+", "py", str(a)) for name, a in found.items() if a is not None}


def made(kind: type[Stubbed]) -> Stubbed:
    torch.manual_seed(0)
    return kind().eval()


OUTSIDE = "float32: outside QuantStub…DeQuantStub, test_user_stubs.py"


def test_what_is_outside_stays_float() -> None:
    found = decisions(fq.prepare(made(Stubbed), (IMAGE,)))
    assert found["head"] == found["mean"] == OUTSIDE
    assert {found[name] for name in ("add", "relu")} == {"int8"}
    assert found["conv2"].startswith("int8")


def test_the_line_is_that_of_the_stub() -> None:
    graph = fq.prepare(made(Stubbed), (IMAGE,))
    (head,) = [node for node in graph.graph.nodes if node.name == "head"]
    number = int(str(annotation_of(head)).rpartition(":")[2])
    with open(__file__, encoding="utf-8") as file:
        assert file.readlines()[number - 1].strip() == "x = self.dequant(x)"


def test_before_the_first_stub_everything_is_outside() -> None:
    found = decisions(fq.prepare(made(Late), (IMAGE,)))
    assert found["conv"] == found["relu"] == OUTSIDE
    assert found["head"] == "int8"


def test_both_sides_meet_in_float() -> None:
    found = decisions(fq.prepare(made(Mixed), (IMAGE,)))
    reason = "reads values from inside and outside QuantStub…DeQuantStub"
    assert found["add"] == f"float32: {reason}, test_user_stubs.py"
    assert found["conv2"] == "int8"


def test_stubs_print_and_leave_no_trace_in_the_core(golden: Golden) -> None:
    traced = fq.trace(made(Stubbed), (IMAGE,))
    core = fq.Pipeline.parse("functionalize")(fq.trace(made(Stubbed), (IMAGE,)))
    text = re.sub(r"py:\d+", "py", fq.format_graph(traced) + "\n" + fq.format_graph(core))
    golden("user_stubs", text)
    with torch.no_grad():
        wanted = made(Stubbed)(IMAGE)
        assert torch.equal(traced(IMAGE), wanted)
        assert torch.equal(core(IMAGE), wanted)


@pytest.mark.parametrize("precision", ["int8", "int16x8", "dynamic", "bfloat16"])
def test_every_precision_obeys(precision: str) -> None:
    found = decisions(fq.prepare(made(Stubbed), (IMAGE,), fq.QuantConfig(precision)))
    assert found["head"] == OUTSIDE
    assert found["conv2"].startswith(precision)


def test_a_rule_for_what_is_outside_is_an_error() -> None:
    config = fq.QuantConfig(rules=(fq.Rule(module="head", precision="int8"),))
    with pytest.raises(ConfigError, match="outside QuantStub…DeQuantStub"):
        fq.prepare(made(Stubbed), (IMAGE,), config)


def test_equal_operators_of_both_sides_are_not_merged() -> None:
    class Twice(Stubbed):
        def forward(self, x: Tensor) -> Tensor:
            inside = self.dequant(self.conv(self.quant(x)))
            return inside - self.conv(x)  # type: ignore[no-any-return]

    found = decisions(fq.prepare(made(Twice), (IMAGE,)))
    assert found["conv"] == "int8"
    assert found["conv_1"] == OUTSIDE


def test_a_stub_does_not_rename_the_value_for_others() -> None:
    class Skip(Stubbed):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(self.quant(x))
            return self.dequant(y) + self.bn(self.conv(x))  # type: ignore[no-any-return]

    assert "%conv_1 = Conv2d @conv(%x)" in fq.format_graph(fq.trace(made(Skip), (IMAGE,)))


def test_after_training_in_litert() -> None:
    pytest.importorskip("ai_edge_litert")
    for quantized in (_calibrated(made(Stubbed)), _trained(made(Stubbed))):
        lowered = fq.lower(quantized, "tflite")
        fq.verify(lowered, [IMAGE]).check()
        report = lowered.report
        assert {row.reason.partition(",")[0] for row in report.stayed_float} == {
            "outside QuantStub…DeQuantStub"
        }
        assert report.operators["CONV_2D"] == 2 and report.operators["FULLY_CONNECTED"] == 1
        assert (report.operators["QUANTIZE"], report.operators["DEQUANTIZE"]) == (1, 1)


def _calibrated(model: nn.Module) -> GraphModule:
    prepared = fq.prepare(model, (IMAGE,))
    fq.calibrate(prepared, DATA, progress=False)
    return fq.convert(prepared)


def _trained(model: nn.Module) -> GraphModule:
    prepared = fq.prepare_qat(model.train(), (IMAGE,))
    optimizer = torch.optim.SGD(prepared.parameters(), lr=1e-3)
    for image in DATA:
        optimizer.zero_grad()
        prepared(image).square().mean().backward()
        optimizer.step()
    return fq.convert(prepared.eval())
