"""Narrow weights in the file: hybrid kernels, DEQUANTIZE, tables; run in LiteRT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxquant as fq
from fxquant.backends.base import Lowered
from fxquant.backends.tflite.interpreter import Kernels, LiteRT
from fxquant.backends.tflite.reader import read_bytes
from fxquant.quant.config import QuantConfig, Rule
from fxquant.quant.constraints import explain as decisions_of

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
KERNELS: tuple[Kernels, ...] = ("reference", "optimized", "xnnpack")
FLOAT = ("int8_weights", "int4_weights", "float16", "bfloat16")


class Layers(nn.Module):
    """Every layer that has weights to store narrow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 16, 1)
        self.grouped = nn.Conv2d(16, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.line = nn.Conv1d(4, 6, 3, padding=1)
        self.head = nn.Linear(6, 10)
        self.matrix = nn.Parameter(torch.randn(10, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.stem(x))))
        x = self.up(torch.relu(self.grouped(self.point(x))))
        x = self.line(x.mean(3))
        y: Tensor = self.head(x.mean(2)) @ self.matrix
        return y


class Words(nn.Module):
    """A table of rows and a dense layer over it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.table = nn.Embedding(30, 20)
        self.positions = nn.Parameter(torch.randn(7, 20))
        self.head = nn.Linear(20, 5)

    def forward(self, ids: Tensor) -> Tensor:
        y: Tensor = self.head(self.table(ids) + self.positions)
        return y


IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2)) + 0.2
IDS = torch.randint(0, 30, (2, 7), generator=torch.Generator().manual_seed(3))


def lowered(model: nn.Module, x: Tensor, precision: str, **options: Any) -> tuple[Any, Lowered]:
    """The core graph of a precision, and its program."""
    core = fq.quantize_dynamic(model.eval(), (x,), QuantConfig(precision))
    return core, fq.lower(core, "tflite", options=options)


def executed(program: Lowered, x: Tensor, kernels: Kernels) -> Tensor:
    """What LiteRT computes."""
    with LiteRT(program.to_bytes(), kernels=kernels) as runtime:
        (found,) = runtime.run([x.numpy()]).values()
    return torch.from_numpy(np.array(found))


def distance(found: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def operators(program: Lowered) -> dict[str, int]:
    """How often each operator stands in the file."""
    return program.report.operators


def stored(program: Lowered) -> dict[str, str]:
    """The dtype of each stored tensor by name."""
    file = read_bytes(program.to_bytes()).main
    return {tensor.name: tensor.dtype for tensor in file.tensors if tensor.buffer}


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", ["dynamic", "dynamic4", *FLOAT])
@torch.no_grad()
def test_the_simulation_is_what_the_runtime_computes(precision: str, kernels: Kernels) -> None:
    for model, x in ((Layers(), IMAGE), (Words(), IDS)):
        _, program = lowered(model, x, precision)
        found = executed(program, x, kernels)
        assert distance(fq.simulate(program, kernels)(x), found) < 2e-6
        fq.verify(program, [x], kernels=kernels).check()


@pytest.mark.parametrize("precision", ["dynamic", "int8_weights", "int4_weights", "float16"])
@torch.no_grad()
def test_the_core_graph_computes_what_the_delegate_does(precision: str) -> None:
    core, program = lowered(Layers(), IMAGE, precision)
    assert distance(core(IMAGE), executed(program, IMAGE, "xnnpack")) < 2e-6


def test_hybrid_operators_hold_integers() -> None:
    _, program = lowered(Layers(), IMAGE, "dynamic")
    found = operators(program)
    assert found["CONV_2D"] == 4 and found["FULLY_CONNECTED"] == 2
    assert found["TRANSPOSE_CONV"] == found["DEPTHWISE_CONV_2D"] == found["DEQUANTIZE"] == 1
    versions = {(op.name, op.version) for op in read_bytes(program.to_bytes()).main.operators}
    assert {("CONV_2D", 5), ("FULLY_CONNECTED", 12), ("DEQUANTIZE", 5)} <= versions


def test_what_the_target_lacks_is_said() -> None:
    core, program = lowered(Layers(), IMAGE, "dynamic4")
    found = {name: str(each) for name, each in decisions_of(core).items()}
    assert found["depthwise"].startswith("int8_weights instead of dynamic4: the kernel for float")
    assert found["up"] == "dynamic instead of dynamic4: TRANSPOSE_CONV rejects int4 weights"
    assert any("1 conv_transpose2d: dynamic instead of dynamic4" in n for n in program.report.notes)


@pytest.mark.parametrize(
    ("precision", "dtype", "share"),
    [
        ("dynamic", "int8", 0.45),
        ("dynamic4", "int4", 0.4),
        ("int8_weights", "int8", 0.45),
        ("int4_weights", "int4", 0.35),
        ("float16", "float16", 0.6),
        ("bfloat16", "float32", 1.01),
    ],
)
def test_what_is_stored_and_how_large_it_is(precision: str, dtype: str, share: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    x = torch.randn(1, 64)
    _, program = lowered(model, x, precision)
    weights = {name: kind for name, kind in stored(program).items() if "weight" in name}
    assert set(weights.values()) == {dtype}
    assert program.size() < share * fq.compile(model, (x,)).size()


def test_int4_is_packed_two_a_byte() -> None:
    model = nn.Linear(8, 4, bias=False)
    _, program = lowered(model, torch.randn(1, 8), "dynamic4")
    file = read_bytes(program.to_bytes())
    (tensor,) = [t for t in file.main.tensors if t.dtype == "int4"]
    packed = np.frombuffer(file.buffers[tensor.buffer], np.uint8)
    assert packed.size == 16 and tensor.shape == (4, 8)
    nibbles = np.stack([packed & 15, packed >> 4], 1).reshape(4, 8).astype(np.int8)
    integers = np.where(nibbles > 7, nibbles - 16, nibbles)
    assert tensor.quantization is not None
    scale = np.array(tensor.quantization.scale)[:, None]
    assert np.abs(integers * scale - model.weight.detach().numpy()).max() <= scale.max() * 0.501


def test_rows_of_a_table_are_looked_up_as_integers() -> None:
    for precision, dtype in (("dynamic", "int8"), ("dynamic4", "int4"), ("int8_weights", "int8")):
        _, program = lowered(Words(), IDS, precision)
        assert operators(program)["EMBEDDING_LOOKUP"] == 1
        assert stored(program)["table.weight"] == dtype


def test_a_shared_weight_is_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(torch.relu(self.layer(x)))
            return y

    for precision in ("dynamic", "int4_weights", "float16"):
        _, program = lowered(Tied(), torch.randn(1, 16), precision)
        assert sum("weight" in name for name in stored(program)) == 1
        assert operators(program).get("DEQUANTIZE", 1) == 1


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
@torch.no_grad()
def test_bfloat16_weights_are_the_same_in_every_storage(storage: str) -> None:
    model, x = nn.Linear(16, 8), torch.randn(3, 16)
    _, program = lowered(model, x, "bfloat16", bfloat16_storage=storage)
    assert stored(program)["weight"] == storage
    rounded = nn.functional.linear(x, model.weight.bfloat16().float(), model.bias)
    for kernels in KERNELS:
        assert distance(executed(program, x, kernels), rounded) < 1e-6


def test_float16_holds_bfloat16_only_where_that_is_exact() -> None:
    model, x = nn.Linear(16, 8), torch.randn(3, 16)
    nn.init.constant_(model.weight, 1e-9)
    _, program = lowered(model, x, "bfloat16", bfloat16_storage="float16")
    assert stored(program)["weight"] == "float32"


@torch.no_grad()
def test_activations_are_rounded_in_the_file_where_that_is_asked_for() -> None:
    model = Layers()
    core, program = lowered(model, IMAGE, "bfloat16", round_activations=True)
    assert operators(program)["CAST"] > 10 and not program.report.notes[:-1]
    fq.verify(program, [IMAGE]).check()
    # A sum in another order may round to the neighbor, which is 1/256 away.
    assert distance(executed(program, IMAGE, "xnnpack"), core(IMAGE)) < 1 / 100
    _, plain = lowered(model, IMAGE, "bfloat16")
    assert "CAST" not in operators(plain)
    assert any("in the simulation only" in note for note in plain.report.notes)


@torch.no_grad()
def test_precisions_mix_by_rules() -> None:
    rules = (Rule(node="head", precision="dynamic4"), Rule(op="conv2d", precision="float16"))
    config = QuantConfig("float32", rules=rules)
    core = fq.quantize_dynamic(Layers().eval(), (IMAGE,), config)
    program = fq.lower(core)
    kinds = stored(program)
    assert kinds["head.weight"] == "int4" and kinds["stem.weight"] == "float16"
    assert kinds["up.weight"] == "float32"
    fq.verify(program, [IMAGE]).check()


@torch.no_grad()
def test_int8_layers_stand_beside_hybrid_ones() -> None:
    config = QuantConfig(rules=(Rule(node="head", precision="dynamic"),))
    program = fq.compile(
        Layers(), (IMAGE,), quantize=config, calibration=[IMAGE] * 2, progress=False
    )
    file = read_bytes(program.to_bytes()).main
    inputs = {op.name + str(op.version): file.tensors[op.inputs[0]].dtype for op in file.operators}
    assert inputs["FULLY_CONNECTED12"] == "float32" and inputs["CONV_2D3"] == "int8"
    fq.verify(program, [IMAGE]).check()


SMALL: Mapping[str, tuple[nn.Module, Tensor]] = {
    "no bias": (nn.Linear(8, 4, bias=False), torch.randn(2, 8)),
    "one row": (nn.Linear(8, 4), torch.randn(8)),
    "many dimensions": (nn.Linear(8, 4), torch.randn(2, 3, 5, 8)),
    "odd length": (nn.Linear(7, 3), torch.randn(2, 7)),
    "no batch": (nn.Conv2d(3, 4, 3), torch.randn(3, 6, 6)),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=2), torch.randn(1, 3, 9, 9)),
    "dilated transposed": (nn.ConvTranspose2d(3, 4, 3, dilation=2), torch.randn(1, 3, 5, 5)),
    "grouped transposed": (nn.ConvTranspose2d(4, 4, 3, groups=2), torch.randn(1, 4, 5, 5)),
    "volume": (nn.Conv3d(2, 3, 2), torch.randn(1, 2, 4, 4, 4)),
    "line transposed": (nn.ConvTranspose1d(3, 4, 3, 2), torch.randn(1, 3, 7)),
}


@pytest.mark.parametrize("precision", ["dynamic", "dynamic4", "int8_weights", "float16"])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_forms_of_layers(name: str, precision: str) -> None:
    model, x = SMALL[name]
    core, program = lowered(model, x, precision)
    for kernels in ("optimized", "xnnpack"):
        found = executed(program, x, kernels)
        assert distance(fq.simulate(program, kernels)(x), found) < 2e-6
    assert distance(core(x), model(x)) < (0.35 if precision == "dynamic4" else 0.03)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", ["dynamic", "dynamic4", *FLOAT[:2]])
@torch.no_grad()
def test_one_scale_a_tensor_where_all_kernels_are_right_with_it(
    precision: str, kernels: Kernels
) -> None:
    """Builtin hybrid kernels with groups are wrong with one scale: those keep one per channel."""
    config = QuantConfig(precision, per_channel=False)
    core = fq.quantize_dynamic(Layers().eval(), (IMAGE,), config)
    spread = [
        node.name
        for node in core.graph.nodes
        if "fake_quantize_per_channel_affine" in str(node.target)
    ]
    assert spread == (["grouped_weight_q"] if precision.startswith("dynamic") else [])
    program = fq.lower(core, "tflite")
    found = executed(program, IMAGE, kernels)
    assert distance(fq.simulate(program, kernels)(IMAGE), found) < 2e-6
    assert distance(found, Layers().eval()(IMAGE)) < (0.05 if "4" not in precision else 0.4)
