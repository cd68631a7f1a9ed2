"""The manual work of eager quantization, done: stubs, modules, the list of what can be fused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxquant as fq
from fxquant import nn as fqnn
from fxquant.backends.source.passes.classic_stubs import ClassicStubs
from fxquant.backends.source.passes.functions_to_modules import FunctionsToModules
from fxquant.errors import PipelineError
from tests.backends.source.source_models import CASES, BasicBlock, SmallResNet
from tests.conftest import Golden
from tests.tracing.test_tracing_zoo import SIZES, network

IMAGE = torch.randn(2, 3, 8, 8)
STUBBED = {"stage": "stubbed"}


class Block(nn.Module):
    """Everything that a person would have to rewrite by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)
        self.act = nn.ReLU()
        self.offset = nn.Parameter(torch.randn(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn(self.conv(x)))
        y = self.act(y + x)
        z = F.hardswish(y) * torch.sigmoid(x)
        z = torch.cat([z, F.relu6(y), x * 0.5 + self.offset], 1)
        z = torch.erf(z)
        return F.leaky_relu(F.max_pool2d(z, 2), 0.1)


def stubbed(model: nn.Module, *args: Tensor) -> tuple[fq.Lowered, str]:
    lowered = fq.lower(fq.trace(model.eval(), args), "source", options=STUBBED)
    return lowered, bytes(lowered.segments()[0]).decode()


def test_before_and_after(golden: Golden) -> None:
    graph = fq.trace(Block().eval(), (IMAGE,))
    steps = fq.Pipeline((ClassicStubs(), FunctionsToModules()))
    after = steps(graph)
    golden("stubs", fq.format_graph(graph) + "\n" + fq.format_graph(after))
    with torch.no_grad():
        assert torch.equal(after(IMAGE), graph(IMAGE))


def test_text(golden: Golden) -> None:
    golden("stubbed_resnet", stubbed(SmallResNet(), IMAGE)[1])


@pytest.mark.parametrize("name", [n for n in CASES if n not in {"in-place", "any-arguments"}])
def test_equal(name: str) -> None:
    case = CASES[name]
    graph = fq.trace(case.make().eval(), case.args, kwargs=dict(case.kwargs))
    lowered = fq.lower(graph, "source", options=STUBBED)
    sample = {"x": case.args[0], **case.kwargs} if case.kwargs else case.args
    report = fq.verify(lowered, [sample])
    assert report.ok, report.render()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "googlenet", "swin"])
def test_networks(name: str, tmp_path: Path) -> None:
    model = network(name).eval()
    example = torch.randn(1, 3, SIZES.get(name, 64), SIZES.get(name, 64))
    fq.compile(model, (example,), backend="source", options=STUBBED, output=tmp_path / "model.py")
    made = fq.load_model(tmp_path / "model.py")
    with torch.no_grad():
        assert torch.equal(made(example), model(example))
    type(made)().load_state_dict(model.state_dict(), strict=True)


def test_a_reused_activation_is_several(tmp_path: Path) -> None:
    class Reused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.two(self.act(self.one(x))))  # type: ignore[no-any-return]

    lowered, text = stubbed(Reused(), torch.randn(1, 3))
    assert "self.act_1 = nn.ReLU()" in text
    lowered.save(tmp_path / "model.py")
    made = fq.load_model(tmp_path / "model.py")
    assert made.fuse_list() == [["one", "act"], ["two", "act_1"]]  # type: ignore[operator]


def test_only_a_single_reader_is_fused() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.relu(y) + y  # type: ignore[no-any-return]

    assert "FUSE = []" in stubbed(Branch(), IMAGE)[1]


def test_a_write_that_others_see_stays() -> None:
    class Visible(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = x.relu()
            z = y.view(-1)
            y.add_(1.0)
            return y, z

    lowered, text = stubbed(Visible(), IMAGE)
    assert "+= 1.0" in text or ".add_(1.0)" in text
    assert fq.verify(lowered, [(IMAGE,)]).ok


def test_core_graphs_are_refused() -> None:
    core = fq.Pipeline.default("float")(fq.trace(BasicBlock(3).eval(), (IMAGE,)))
    with pytest.raises(PipelineError, match="stubs go into a graph as it was traced"):
        fq.lower(core, "source", options=STUBBED)


def test_a_graph_shows_the_modules_of_fxquant() -> None:
    class ByHand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant = fqnn.QuantStub(), fqnn.DeQuantStub()
            self.add, self.conv = fqnn.FloatFunctional(), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.quant(x)
            return self.dequant(self.add.add_relu(self.conv(x), x))  # type: ignore[no-any-return]

    model = ByHand().eval()
    text = fq.format_graph(fq.trace(model, (IMAGE,)))
    assert text.count(" = quant @quant(") == text.count(" = dequant @dequant(") == 1
    assert '%add = float_functional @add("add_relu", %conv, %quant)' in text
    prepared = fq.prepare(model, (IMAGE,))
    fq.calibrate(prepared, [IMAGE], progress=False)
    assert fq.lower(fq.convert(prepared), "tflite").report.operators["CONV_2D"] == 1


@pytest.mark.parametrize(
    ("operation", "args", "expected"),
    [
        ("add", (IMAGE, IMAGE), IMAGE + IMAGE),
        ("add_relu", (IMAGE, IMAGE), torch.relu(IMAGE + IMAGE)),
        ("add_scalar", (IMAGE, 2.0), IMAGE + 2.0),
        ("sub", (IMAGE, IMAGE), IMAGE - IMAGE),
        ("sub_scalar", (IMAGE, 2.0), IMAGE - 2.0),
        ("mul", (IMAGE, IMAGE), IMAGE * IMAGE),
        ("mul_scalar", (IMAGE, 3), IMAGE * 3),
        ("div", (IMAGE, IMAGE), IMAGE / IMAGE),
        ("div_scalar", (IMAGE, 3), IMAGE / 3),
        ("matmul", (IMAGE, IMAGE), IMAGE @ IMAGE),
        ("cat", ([IMAGE, IMAGE], 1), torch.cat([IMAGE, IMAGE], 1)),
        ("stack", ([IMAGE, IMAGE], 1), torch.stack([IMAGE, IMAGE], 1)),
    ],
)
def test_float_functional(operation: str, args: tuple[object, ...], expected: Tensor) -> None:
    module = fqnn.FloatFunctional()
    assert torch.equal(module(operation, *args), expected)
    module.quantizer = nn.Softsign()
    assert torch.equal(module(operation, *args), F.softsign(expected))


def test_a_quantizer_inside_is_followed() -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add = fqnn.FloatFunctional()
            self.add.quantizer = nn.Softsign()

        def forward(self, x: Tensor) -> Tensor:
            return self.add.add(x, x)

    graph = fq.trace(Rounded(), (IMAGE,))
    assert "Softsign @add.quantizer" in fq.format_graph(graph)
    assert torch.equal(graph(IMAGE), F.softsign(IMAGE + IMAGE))


@pytest.mark.parametrize("name", ["resnet", "lists", "encoder"])
def test_the_file_of_the_file_is_the_same(name: str, tmp_path: Path) -> None:
    first, text = stubbed(CASES[name].make(), *CASES[name].args)
    first.save(tmp_path / "model.py")
    assert stubbed(fq.load_model(tmp_path / "model.py"), *CASES[name].args)[1] == text


def test_a_sum_added_by_hand_gets_a_module_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    first, text = stubbed(BasicBlock(3), IMAGE)
    first.save(path)
    path.write_text(text.replace("x = self.quant(x)\n", "x = self.quant(x)\n        x = x + x\n"))
    again = stubbed(fq.load_model(path), IMAGE)[1]
    assert "x = self.add_1.add(x, x)" in again
    assert "self.add_0.add_relu(" in again


def test_float_functional_names_what_it_has() -> None:
    with pytest.raises(ValueError, match="has no 'pow', only"):
        fqnn.FloatFunctional()("pow", IMAGE, 2)
