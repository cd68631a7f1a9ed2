"""Named dimensions: a trace holds for every size, or the error says where it cannot."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import fxquant as fq
from fxquant.errors import InputError, TraceError
from fxquant.tracing import trace

BATCH = {"x": {0: "batch"}}


class Tokens(nn.Module):
    """What is written with the size of the batch: reshape, expand, new tensors."""

    cls: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        tokens = torch.cat([self.cls.expand(n, -1, -1), x.reshape(n, 8, -1).permute(0, 2, 1)], 1)
        return (tokens[:, 0] + torch.zeros(n, 8)).view(4 * x.size(0), 2)


class Positions(nn.Module):
    """Constants that are as long as the sequence."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(16, 4)
        self.register_buffer("mask", torch.ones(16, 16).tril())

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        places = torch.arange(length, device=x.device)
        positions: Tensor = self.table(places)
        return self.mask[:length, :length] @ (x + positions)


def test_sizes_are_asked_for() -> None:
    model = Tokens()
    graph = trace(model, (torch.randn(1, 8, 3, 3),), dynamic_shapes=BATCH)
    lines = [line.strip() for line in fq.format_graph(graph).splitlines()]
    assert "%size = .size(%x, 0) : 1" in lines
    assert "%reshape = .reshape(%x, %size, 8, -1) : f32[1,8,9]" in lines
    core = fq.Pipeline.parse("functionalize")(graph)
    text = fq.format_graph(core)
    assert "%expand = expand_dim(@cls, %x) {dim=0, like_dim=0} : f32[1,1,8]" in text
    assert "%view = reshape(%add) {shape=[-1,2]} : f32[4,2]" in text


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_stage_runs_at_every_size(size: int) -> None:
    model, x = Tokens().eval(), torch.randn(size, 8, 3, 3)
    graph = trace(model, (torch.randn(1, 8, 3, 3),), dynamic_shapes=BATCH)
    torch.testing.assert_close(graph(x), model(x), rtol=0, atol=0)
    core = fq.Pipeline.default("float")(graph)
    torch.testing.assert_close(core(x), model(x))
    again = pickle.loads(pickle.dumps(core))
    torch.testing.assert_close(again(x), model(x))


def test_calibration_takes_every_size() -> None:
    model = Tokens().eval()
    prepared = fq.prepare(model, (torch.randn(2, 8, 3, 3),), backend="onnx", dynamic_shapes=BATCH)
    fq.calibrate(prepared, [torch.randn(n, 8, 3, 3) for n in (1, 3, 4)], progress=False)
    x = torch.randn(7, 8, 3, 3)
    assert fq.convert(prepared)(x).shape == model(x).shape


@pytest.mark.parametrize("length", [1, 3, 9, 16])
def test_constants_are_cut(length: int) -> None:
    model, x = Positions(), torch.randn(2, length, 4)
    shapes = {"x": {0: Dim("batch"), 1: Dim("length", max=16)}}
    graph = trace(model, (torch.randn(2, 5, 4),), dynamic_shapes=shapes)
    core = fq.Pipeline.default("float")(graph)
    torch.testing.assert_close(core(x), model(x))


def test_an_exported_program() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    x = torch.randn(2, 3, 4, 4)
    shapes = {"input": {0: Dim("batch")}}
    program = torch.export.export(model.eval(), (x,), dynamic_shapes=shapes)
    prepared = fq.prepare(program, (x,), backend="onnx", dynamic_shapes=shapes)
    fq.calibrate(prepared, [x], progress=False)
    assert fq.convert(prepared)(torch.randn(5, 3, 4, 4)).shape == (5, 2)


def test_shapes_of_inputs_inside_containers() -> None:
    class Pair(nn.Module):
        def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
            return pair[0].view(pair[0].size(0), -1) + pair[1]

    example = ((torch.randn(2, 2, 2), torch.randn(2, 4)),)
    for shapes in (
        {"pair": ({0: "n"}, {0: "n"})},
        {"pair.0": {0: "n"}, "pair.1": {0: "n"}},
        [[{0: "n"}, ["n", None]]],
    ):
        graph = trace(Pair(), example, dynamic_shapes=shapes)
        assert graph((torch.randn(5, 2, 2), torch.randn(5, 4))).shape == (5, 4)


BAD: list[tuple[Any, str]] = [
    ({"y": {0: "n"}}, "there is no input 'y'\n    fix    the inputs are x"),
    ({"x": {4: "n"}}, "x has no dimension 4, it has 2"),
    ({"x": {0: "n", 1: "n"}}, "n is 2 and, in x, 3\n    fix    give each size its own name"),
    ({"x": {0: Dim("n", min=3)}}, "n is 2, not at least 3"),
    ({"x": {0: Dim("n", max=1)}}, "n is 2, not 1 to 1"),
    ({"x": {0: 5}}, "x, dimension 0: its size is 2, not 5"),
    ({"x": {0: "a b"}}, "x, dimension 0: 'a b' is no name"),
    ({"x": "n"}, "x: 'n' is neither a dict nor a sequence"),
    ("batch", "it is 'batch', neither a dict by input nor a sequence"),
]


@pytest.mark.parametrize(("shapes", "text"), BAD)
def test_bad_dynamic_shapes(shapes: Any, text: str) -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    with pytest.raises(InputError) as error:
        trace(Twice(), (torch.randn(2, 3),), dynamic_shapes=shapes)
    assert "dynamic_shapes does not fit the example inputs" in str(error.value)
    assert text in str(error.value)


class Calls(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _branches(x: Tensor) -> Tensor:
    return x * 2 if x.shape[0] == 1 else x + 1


REFUSED: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (_branches, "the model does not do the same at batch=1 and at batch=2"),
    (torch.squeeze, "a value has 1 dimensions at batch=1, 2 at batch=2"),
    (lambda x: x + torch.arange(x.shape[0])[:, None], "a constant depends on the size of an input"),
    (lambda x: x * x.shape[0] ** 0.5, "a number depends on the size of an input"),
    (lambda x: x.view(1, 3)[:, 1:], "at batch=2 the model fails: RuntimeError: shape '[1, 3]'"),
]


@pytest.mark.parametrize(("function", "text"), REFUSED)
def test_a_refusal_names_the_line(function: Callable[[Tensor], Tensor], text: str) -> None:
    with pytest.raises(TraceError) as error:
        trace(Calls(function), (torch.randn(1, 3),), dynamic_shapes=BATCH)
    assert text in str(error.value)
    assert "leave the dimension out of dynamic_shapes" in str(error.value)
    assert "the model fails" in text or "test_tracing_dynamic.py:" in str(error.value)


def test_numbers_of_the_core_dialect_are_refused_together() -> None:
    def both(x: Tensor) -> Tensor:
        return (x + x.sum(0) / x.shape[0]) * x.shape[0]

    graph = trace(Calls(both), (torch.randn(1, 3),), dynamic_shapes=BATCH)
    torch.testing.assert_close(graph(torch.ones(4, 3)), torch.full((4, 3), 8.0))
    with pytest.raises(fq.FxquantError) as error:
        fq.Pipeline.default("float")(graph)
    assert "not for every size of batch: 2 of the operations" in str(error.value)
    assert "it has batch, a fixed number for the operator" in str(error.value)


def test_a_call_is_checked() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    dim = Dim("n", max=4)
    graph = trace(
        Sum(), (torch.ones(2, 3), torch.ones(2, 3)), dynamic_shapes={"x": {0: dim}, "y": {0: dim}}
    )
    with pytest.raises(InputError, match="n is 2 and, in y, 3"):
        graph(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(InputError, match="input x: n is 5\n  fix    n can be 1 to 4"):
        graph(torch.ones(5, 3), torch.ones(5, 3))
    with pytest.raises(InputError, match=r"\[2, 4\], but the model was traced with \[n, 3\]"):
        graph(torch.ones(2, 4), torch.ones(2, 4))


def test_a_backend_with_fixed_shapes_says_so() -> None:
    graph = trace(nn.ReLU(), (torch.randn(2),), dynamic_shapes=[{0: "batch"}])
    with pytest.raises(
        InputError, match="files of the backend tflite have fixed shapes, but batch"
    ):
        fq.lower(graph, "tflite")
