"""Operators written in integer steps: text before and after, when it is done, and what stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq
from fxquant.backends.registry import get_backend
from fxquant.errors import UnsupportedOp
from fxquant.ir.printer import format_graph
from fxquant.ir.state import state_of
from fxquant.passes.instruments import Lint, instruments
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.validation import Validate
from fxquant.passes.write_integer_steps import WriteIntegerSteps
from fxquant.quant.constraints import explain
from fxquant.quant.qat.fake_quantize import TrainedFakeQuantize
from tests.conftest import Golden

ASKED = fq.QuantConfig(integer_only=True)


class Normed(nn.Module):
    """A layer, then a normalization of its own affine parameters."""

    def __init__(self, norm: nn.Module, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(width, width)
        self.norm = norm
        for parameter in norm.parameters():
            nn.init.normal_(parameter, 1, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.fc(x))
        return result


def prepared(model: nn.Module, x: Tensor, config: fq.QuantConfig | None = None) -> GraphModule:
    return fq.prepare(model.eval(), (x,), config)


def written(model: nn.Module, x: Tensor) -> tuple[GraphModule, GraphModule]:
    """The core graph, and the same with its steps written, validated against each other."""
    before = Pipeline.default("float")(fq.trace(model.eval(), (x,)))
    state = state_of(before)
    state.constraints, state.config = get_backend("tflite").constraints(), ASKED
    with instruments(Validate(), Lint()):
        return before, Pipeline((WriteIntegerSteps(),))(before)


def test_the_text_before_and_after(golden: Golden) -> None:
    before, after = written(Normed(nn.LayerNorm(8)), torch.randn(3, 8))
    golden("write-integer-steps", f"{format_graph(before)}\n{format_graph(after)}")


NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer": (lambda: nn.LayerNorm(8), (2, 5, 8)),
    "layer over two": (lambda: nn.LayerNorm([5, 8]), (2, 5, 8)),
    "layer without affine": (lambda: nn.LayerNorm(8, elementwise_affine=False), (2, 8)),
    "layer without bias": (lambda: nn.LayerNorm(8, bias=False), (2, 8)),
    "rms": (lambda: nn.RMSNorm(8), (2, 5, 8)),
    "group": (lambda: nn.GroupNorm(2, 6), (2, 6, 4, 8)),
    "one group": (lambda: nn.GroupNorm(1, 6), (2, 6, 4, 8)),
    "group a channel": (lambda: nn.GroupNorm(6, 6), (2, 6, 4, 8)),
    "group of rows": (lambda: nn.GroupNorm(4, 8), (3, 8)),
    "instance": (lambda: nn.InstanceNorm2d(6, affine=True), (2, 6, 4, 8)),
    "instance 1d": (lambda: nn.InstanceNorm1d(6), (2, 6, 8)),
}


@pytest.mark.parametrize("name", NORMS)
def test_steps_compute_what_the_operator_does(name: str) -> None:
    norm, shape = NORMS[name]
    before, after = written(Normed(norm()), torch.randn(shape))
    assert len(after.graph.nodes) > len(before.graph.nodes)
    x = torch.randn(shape)
    torch.testing.assert_close(after(x), before(x))


def names(graph_module: GraphModule) -> set[str]:
    return {name for name in explain(graph_module) if name.startswith("norm")}


def test_only_where_integers_are_asked_for() -> None:
    model, x = Normed(nn.LayerNorm(8)), torch.randn(3, 8)
    default = prepared(model, x)
    assert names(default) == {"norm"}
    assert "only if they are asked for" in explain(default)["norm"].reason
    rule = fq.QuantConfig(rules=(fq.Rule("int16x8", op="layer_norm"),))
    for config, precision in ((ASKED, "int8"), (rule, "int16x8")):
        found = explain(prepared(model, x, config))
        steps = {name: found[name] for name in names(prepared(model, x, config))}
        assert "norm_inverse" in steps
        assert {str(step.precision) for step in steps.values()} == {precision}
    kept = fq.QuantConfig(integer_only=True, keep_float=("layer_norm",))
    assert names(prepared(model, x, kept)) == {"norm"}


def test_a_graph_without_the_steps_is_told_how_to_get_them() -> None:
    model, x = Normed(nn.LayerNorm(8)), torch.randn(3, 8)
    graph_module = prepared(model, x)
    fq.calibrate(graph_module, [x], progress=False)
    with pytest.raises(UnsupportedOp) as caught:
        fq.lower(fq.convert(graph_module), require="int8")
    text = str(caught.value)
    assert "aten.layer_norm is computed in integers only if they are asked for" in text
    assert "prepare the model with QuantConfig(integer_only=True)" in text


def test_training_sees_every_step() -> None:
    model, x = Normed(nn.LayerNorm(8)), torch.randn(16, 8)
    trained = fq.prepare_qat(model, (x,), ASKED)
    quantizers = [m for m in trained.modules() if isinstance(m, TrainedFakeQuantize)]
    assert len(quantizers) >= 10
    optimizer = torch.optim.SGD(trained.parameters(), 0.05)
    losses = []
    for _ in range(30):
        loss = (trained(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    lowered = fq.lower(fq.convert(trained.eval()), require="int8")
    fq.verify(lowered, [x]).check()
