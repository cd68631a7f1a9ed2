"""Registered patterns: what they can say, what they refuse, and what is left in the graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import fxquant as fq
from fxquant.errors import PassError, RegistrationError
from fxquant.ir.aten import named_arguments
from fxquant.ir.state import state_of
from fxquant.passes.fuse_patterns import FusePatterns
from fxquant.passes.fusion import registry
from fxquant.passes.fusion.registry import registered_fusions, unregister_fusion
from fxquant.passes.pipeline import Pipeline
from tests.passes.core_graphs import TABLE
from tests.passes.fusion_graphs import core, fuse, fused, operators

X = (2, 3, 4, 4)


@pytest.fixture(autouse=True)
def registry_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is forgotten afterwards."""
    registered_fusions()
    monkeypatch.setattr(registry, "_fusions", dict(registry._fusions))
    yield


def only(graph_module: GraphModule, name: str) -> Node:
    (node,) = (n for n in graph_module.graph.nodes if n.op == "call_function" and name in n.name)
    assert isinstance(node, Node)
    return node


def test_a_fusion_is_applied_by_default_and_by_name() -> None:
    @fq.register_fusion("quick-gelu", replace=lambda x: F.silu(1.702 * x) / 1.702)
    def quick_gelu(x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)

    graph_module = core(lambda x: torch.sigmoid(x * 1.702).mul(x), X)
    assert "silu" in operators(fuse(graph_module))
    assert "silu" in operators(fuse(graph_module, "quick-gelu"))
    assert "silu" not in operators(fuse(graph_module, "mish"))


def test_names_survive_the_text_of_a_pipeline() -> None:
    item = FusePatterns(("gelu-erf", "silu"))
    assert str(item) == "fuse-patterns{names=[gelu-erf;silu]}"
    assert Pipeline.parse(str(item)).passes == (item,)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(RegistrationError, match="there is no fusion named 'gelo'") as caught:
        fused(lambda x: x.relu(), X, names=("gelo",))
    assert "gelu-erf" in str(caught.value)


SIZE = fq.any_literal((2, 2), (4, 4))


def test_literals_of_every_kind() -> None:
    @fq.register_fusion(
        "pooled",
        replace=lambda x, size, slope, exact: F.leaky_relu(F.avg_pool2d(x, size), slope) * 2,
        check=lambda match: match["exact"] or "it counts the padding",
    )
    def pooled(
        x: Tensor,
        size: Any = SIZE,
        slope: float = fq.any_float,
        exact: bool = fq.any_bool,
    ) -> Tensor:
        y = F.leaky_relu(x, slope)
        return F.avg_pool2d(y, size, size, 0, False, exact) * 2

    graph_module = fuse_unchecked(core(lambda x: 2 * F.avg_pool2d(F.leaky_relu(x, 0.3), (2, 1)), X))
    assert operators(graph_module) == ["avg_pool2d", "leaky_relu", "mul"]


def test_an_integer_wildcard_is_no_float_and_no_bool() -> None:
    @fq.register_fusion("doubled-flip", replace=lambda x, dim: torch.flip(x, (dim,)))
    def doubled_flip(x: Tensor, dim: int = fq.any_int(1, 2)) -> Tensor:
        return torch.flip(torch.flip(torch.flip(x, (dim,)), (dim,)), (dim,))

    three = fused(lambda x: x.flip(3).flip(3).flip(3), X)
    assert operators(three) == ["flip"]
    assert named_arguments(only(three, "flip"))["dims"] == [3]
    assert len(operators(fused(lambda x: x.flip(3).flip(2).flip(3), X))) == 3
    assert not fq.any_int.accepts(True)
    assert not fq.any_int.accepts(1.5)
    assert fq.any_number.accepts(1)


def test_optional_operands_and_choices() -> None:
    def linear(x: Tensor, w: Tensor, b: Tensor | None, relu: bool) -> Tensor:
        y = F.linear(x, w, b)
        return F.relu(y) if relu else y

    @fq.register_fusion(
        "matmul-to-linear", replace=linear, shapes={"x": (5, 8), "w": (6, 8), "b": (6,)}
    )
    def by_matmul(
        x: Tensor,
        w: Tensor,
        b: Tensor | None = fq.optional,
        relu: bool = BOTH,
    ) -> Tensor:
        y = x @ w.t()
        y = y if b is None else y + b
        return F.relu(y) if relu else y

    shapes = (4, 3), (2, 3), (2,)
    assert operators(fused(lambda x, w, b: x @ w.T, *shapes)) == ["linear"]
    assert operators(fused(lambda x, w, b: b + x.mm(w.t()), *shapes)) == ["linear"]
    assert operators(fused(lambda x, w, b: (x @ w.T).relu_(), *shapes)) == ["linear", "relu"]
    biased = fused(lambda x, w, b: (b + x @ w.T).clamp(min=0), *shapes)
    assert operators(biased) == ["linear", "relu"]
    assert len(only(biased, "linear").all_input_nodes) == 3


BOTH: Any = fq.either(True, False)


def test_several_outputs() -> None:
    @fq.register_fusion("min-max", replace=lambda x: torch.aminmax(x))
    def extremes(x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.min(x), torch.max(x)

    graph_module = fused(lambda x: (x.max() * 2, x.min() + 1), X)
    assert operators(graph_module) == ["aminmax", "getitem", "getitem", "mul", "add"]


def test_several_outputs_whose_inputs_come_late() -> None:
    @fq.register_fusion("sum-and-product", replace=lambda x, y: (y + x, y * x))
    def both(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.sin() + y, x.sin() * y

    def model(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        s = x.sin()
        first = (s * y.exp()).abs()
        return first, s + y.exp()

    assert "sin" not in operators(fuse_unchecked(core(model, X, X)))


def fuse_unchecked(graph_module: GraphModule) -> GraphModule:
    """Fused without validation, for patterns that compute something else."""
    return Pipeline((FusePatterns(),))(graph_module)


def test_an_output_that_feeds_another_is_refused() -> None:
    @fq.register_fusion("sin-twice", replace=lambda x, y: (x + 1, y + 1))
    def twice(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        s = x + y
        return torch.sin(s) * x, torch.cos(s) * y

    def circular(x: Tensor, y: Tensor) -> Tensor:
        s = x + y
        first = torch.sin(s) * x
        return torch.cos(s) * first

    graph_module = core(circular, X, X)
    assert operators(fuse(graph_module)) == operators(graph_module)


def test_a_value_read_elsewhere_is_refused_with_a_reason() -> None:
    def model(x: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(x)
        return x * gate, gate + 1

    graph_module = core(model, X)
    assert operators(fuse(graph_module)) == operators(graph_module)
    text = fq.explain_match("silu", graph_module)
    assert "silu is refused" in text
    assert "%sigmoid is read outside of the match too, by %add" in text
    assert "from   test_fusion_patterns.py" in text


def test_a_check_refuses_with_its_reason() -> None:
    @fq.register_fusion(
        "tanh-of-relu",
        replace=lambda x: torch.tanh(torch.clamp(x, 0, 9)),
        check=lambda match: match.shape("x")[0] == 1 or f"the batch is {match.shape('x')[0]}",
    )
    def tanh_of_relu(x: Tensor) -> Tensor:
        return torch.tanh(torch.relu(x))

    graph_module = core(lambda x: torch.tanh(torch.relu(x)), X)
    assert operators(fuse(graph_module)) == ["relu", "tanh"]
    assert "why    the batch is 2" in fq.explain_match("tanh-of-relu", graph_module)
    assert operators(fuse(core(lambda x: x.relu().tanh(), (1, 4)))) == ["clamp", "tanh"]


class Scaled(nn.Module):
    """A linear layer with a trained scale behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.rand(3))
        self.register_buffer("offset", torch.rand(3))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.offset, Tensor)
        return torch.sin(self.fc(x) * self.scale) + self.offset


def test_stored_tensors_are_operands_and_new_ones_are_made_at_once() -> None:
    def into_weights(x: Tensor, w: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        return torch.sin(F.linear(x, w * scale[:, None], b * scale))

    @fq.register_fusion(
        "scaled-linear",
        replace=into_weights,
        shapes={"x": (5, 8), "w": (6, 8), "b": (6,), "scale": (6,)},
        check=lambda m: all(m.is_constant(n) for n in ("w", "b", "scale")) or "not constant",
    )
    def scaled_linear(x: Tensor, w: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        return torch.sin(F.linear(x, w, b) * scale)

    model = Scaled()
    graph_module = fused(model, (2, 4))
    assert operators(graph_module) == ["linear", "sin", "add"]
    assert isinstance(graph_module, GraphModule)
    names = dict(graph_module.named_parameters())
    assert len(names) == 2, "trained tensors give trained tensors"
    x = torch.randn(2, 4)
    torch.testing.assert_close(graph_module(x), model(x))
    assert "scale" in model.state_dict()


def test_a_parameter_of_a_pattern_is_one_value() -> None:
    @fq.register_fusion("square", replace=lambda x: torch.sin(x) ** 2)
    def square(x: Tensor) -> Tensor:
        return torch.sin(x) * torch.sin(x)

    graph_module = core(lambda x, y: torch.sin(x) * torch.sin(y), X, X)
    assert operators(fuse(graph_module)) == ["sin", "sin", "mul"]
    assert operators(fused(lambda x: torch.sin(x) * torch.sin(x), X)) == ["sin", "pow"]


def test_source_lines_types_and_provenance_stay() -> None:
    graph_module = fused(lambda x: torch.relu(x * torch.sigmoid(x)), X)
    node = only(graph_module, "silu")
    assert "torch.sigmoid(x)" in str(node.meta["source"])
    assert tuple(node.meta["val"].shape) == X
    assert "fuse-patterns" in node.meta["passes"]


def test_one_fusion_may_make_room_for_another() -> None:
    by_hand = fused(lambda x: x * (F.relu6(x + 3) / 6), X)
    assert operators(by_hand) == ["hardswish"]
    in_steps = fused(lambda x: x / (1 + torch.exp(-x)), X, names=("sigmoid-exp", "silu"))
    assert "exp" in operators(in_steps) or operators(in_steps) == ["silu"]


def test_a_replacement_that_holds_its_pattern_ends_with_an_error() -> None:
    @fq.register_fusion("endless", replace=lambda x: torch.sin(x) + torch.zeros_like(x) * 2)
    def endless(x: Tensor) -> Tensor:
        return torch.sin(x)

    with pytest.raises(PassError, match="the fusions endless still find something after 50 walks"):
        fuse_unchecked(core(lambda x: x.sin(), X))


def test_without_replacement_the_operators_become_a_group() -> None:
    @fq.register_fusion("conv-hardswish", shapes={"x": (1, 3, 8, 8), "w": (4, 3, 3, 3), "b": (4,)})
    def conv_hardswish(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.hardswish(F.conv2d(x, w, b))

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish())
    graph_module = fused(model, (1, 3, 8, 8))
    assert operators(graph_module) == ["conv2d", "hardswish"]
    assert "!group conv-hardswish ends at %_1" in fq.format_graph(graph_module)


@pytest.mark.parametrize("known", [True, False])
def test_a_group_has_one_observer_at_its_end_where_the_target_has_the_operator(
    known: bool,
) -> None:
    @fq.register_fusion("conv-sigmoid", shapes={"x": (1, 3, 8, 8), "w": (4, 3, 3, 3), "b": (4,)})
    def conv_sigmoid(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch.sigmoid(F.conv2d(x, w, b))

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid())
    graph_module = fused(model, (1, 3, 8, 8))
    groups = frozenset({"conv-sigmoid"}) if known else frozenset()
    state_of(graph_module).constraints = replace(TABLE, groups=groups)
    state_of(graph_module).target = "toy"
    text = fq.format_graph(Pipeline.parse("annotate,insert-stubs,insert-observers")(graph_module))
    conv = next(line for line in text.splitlines() if "conv2d(" in line)
    assert ("!int8 fused into %_1" in conv) == known
    assert ("_0_fq = " in text) == (not known)
    assert "%_1_fq = " in text


def test_a_group_is_not_taken_apart_by_other_readers() -> None:
    @fq.register_fusion("sin-cos")
    def sin_cos(x: Tensor) -> Tensor:
        return torch.cos(torch.sin(x))

    def model(x: Tensor) -> Tensor:
        y = torch.sin(x)
        return torch.cos(y) + y

    assert "!group" not in fq.format_graph(fused(model, X))
    assert "!group" in fq.format_graph(fused(lambda x: x.sin().cos(), X))


def test_dropping_a_fusion() -> None:
    unregister_fusion("silu")
    assert operators(fused(lambda x: x * torch.sigmoid(x), X)) == ["sigmoid", "mul"]


def test_a_replacement_that_does_not_fit_the_shapes_of_a_place_is_refused() -> None:
    @fq.register_fusion("flat-cosine", replace=lambda x: torch.cos(x.reshape(2, 4, 64)).relu())
    def flat_cosine(x: Tensor) -> Tensor:
        return torch.cos(x).reshape(2, 4, 64).relu()

    place = core(lambda x: x.cos().reshape(3, 5).relu(), (15,))
    assert operators(fuse_unchecked(place)) == ["cos", "reshape", "relu"]
    text = fq.explain_match("flat-cosine", place)
    assert "why    the pattern does not run on these shapes: shape '[2, 4, 64]' is invalid" in text


def test_a_replacement_of_another_shape_at_a_place_is_refused() -> None:
    @fq.register_fusion("times-itself", replace=lambda x, y: torch.sin(x) * 2 + 0 * x)
    def times_itself(x: Tensor, y: Tensor) -> Tensor:
        return torch.cos(x) * torch.cos(y)

    place = core(lambda x, y: x.cos() * y.cos(), (5, 1), (1, 7))
    assert operators(fuse_unchecked(place)) == ["cos", "cos", "mul"]
    text = fq.explain_match("times-itself", place)
    assert "why    the replacement gives f32[5,1] where the pattern gives f32[5,7]" in text
