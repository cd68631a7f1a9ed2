"""The passes of training: text before and after, and what they leave unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import fxquant as fq
from fxquant.errors import InputError
from fxquant.ir.printer import format_graph
from fxquant.ir.state import state_of
from fxquant.passes.finish_training import FinishTraining
from fxquant.passes.free_batch_size import FixBatchSize, FreeBatchSize
from fxquant.passes.instruments import Lint, Validate, instruments
from fxquant.passes.keep_batch_norms import KeepBatchNorms
from fxquant.passes.pipeline import Pipeline
from fxquant.passes.train_quantizers import TrainQuantizers
from fxquant.quant.config import QuantConfig
from tests.conftest import Golden
from tests.quant.qat_models import Picture, example, train, with_signs

QAT = Pipeline.default("qat")


def before(name: str, model: nn.Module, *inputs: Tensor, config: QuantConfig) -> GraphModule:
    """The graph as the pass of that name gets it."""
    passes = QAT.flat()
    place = [item.name for item in passes].index(name)
    return fq.prepare(model, inputs, config, pipeline=Pipeline(tuple(passes[:place])))


def changed(golden: Golden, name: str, item: fq.Pass, graph_module: GraphModule) -> GraphModule:
    with instruments(Validate(), Lint()):
        after = Pipeline((item,))(graph_module)
    text = f"{format_graph(graph_module)}\n{item}\n\n{format_graph(after)}"
    golden(name, text)
    return after


@pytest.fixture(params=[True, False], ids=["per_channel", "per_tensor"])
def config(request: pytest.FixtureRequest) -> QuantConfig:
    return QuantConfig(per_channel=request.param)


def test_keep_batch_norms(golden: Golden) -> None:
    model = with_signs(Picture()).eval()
    graph_module = before("keep-batch-norms", model, *example(), config=QuantConfig())
    changed(golden, "keep-batch-norms", KeepBatchNorms(), graph_module)


def test_train_quantizers(golden: Golden, config: QuantConfig) -> None:
    model = with_signs(Picture()).eval()
    graph_module = before("train-quantizers", model, *example(), config=config)
    name = "train-quantizers" if config.per_channel else "train-quantizers-per-tensor"
    after = Pipeline((TrainQuantizers(),))(graph_module)
    golden(name, f"{format_graph(graph_module)}\n{format_graph(after)}")


def test_finish_training(golden: Golden, config: QuantConfig) -> None:
    torch.manual_seed(0)
    prepared = fq.prepare_qat(with_signs(Picture()), example(), config)
    train(prepared, 2)
    name = "finish-training" if config.per_channel else "finish-training-per-tensor"
    after = changed(golden, name, FinishTraining(), prepared.eval())
    x = torch.randn(7, 3, 8, 8)
    steps = (after(x) - prepared(x)).abs().max() / prepared(x).abs().max()
    assert steps.item() < 0.02


def test_a_graph_that_was_not_in_training_is_left_alone() -> None:
    prepared = fq.prepare(Picture().eval(), example())
    assert not FinishTraining().run(prepared).modified


class Flatten(nn.Module):
    """Sizes that a trace turns into numbers, and a token for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(x.shape[0], -1, 4)
        return torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1).flatten(1)


class AcrossTheBatch(nn.Module):
    """The batch becomes a part of another dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, -1)


def functional(model: nn.Module, x: Tensor) -> GraphModule:
    return Pipeline.parse("functionalize")(fq.trace(model, (x,)))


def test_free_and_fix_batch_size(golden: Golden) -> None:
    model = Flatten()
    graph_module = functional(model, torch.randn(2, 8))
    free = changed(golden, "free-batch-size", FreeBatchSize(), graph_module)
    for batch in (1, 2, 5):
        x = torch.randn(batch, 8)
        assert torch.equal(free(x), model(x))
    fixed = changed(golden, "fix-batch-size", FixBatchSize(), free)
    assert format_graph(fixed) == format_graph(graph_module)
    with pytest.raises(InputError, match="traced with"):
        fixed(torch.randn(5, 8))


def test_a_graph_that_mixes_samples_keeps_its_batch_size() -> None:
    free = Pipeline((FreeBatchSize(),))(functional(AcrossTheBatch(), torch.randn(2, 8)))
    assert not state_of(free).signature.any_batch
